"""Exact metrics over all classes, in chunks: never `[batch, num_classes]` at once.

Pass them to `SampledSoftmaxModel.compile(metrics=[...])`. They need the logits of all
classes, which training does not compute, so they are updated only in `evaluate` and in
validation, and the logs of a training step hold only the loss. With a model that
outputs all logits they work like any Keras metric.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfsampled._core import validation
from tfsampled._core.full_softmax.ranks import EXCLUDED, count_ranked_above
from tfsampled._core.labels import (
    apply_weights,
    broadcast_to_examples,
    parse_labels,
    real_tensor,
)
from tfsampled._core.static_ops import compute_dtype
from tfsampled._core.xla import tracing_for_xla
from tfsampled.layers import SampledSoftmax, _head_labels
from tfsampled.layers._keras import mask_of
from tfsampled.layers._losses import label_ranks

__all__ = [
    "NDCG",
    "ExactMetric",
    "MeanReciprocalRank",
    "Perplexity",
    "RankMetric",
    "TopKAccuracy",
]

# The whole numbers up to 2 to this power are exact.
_PRECISION = {tf.bfloat16: 8, tf.float16: 11, tf.float32: 24, tf.float64: 53}


class ExactMetric(keras.metrics.Metric):
    """Computes the weighted mean of a value per example.

    A subclass implements `values_from_features` and `values_from_logits`. Its attribute
    `_direction` tells callbacks such as `keras.callbacks.EarlyStopping` whether a
    higher ("up") or a lower ("down") value is better.

    Args:
        name: The metric's name in logs.
        dtype: The dtype of the values; their sums are in float32 or float64.
    """

    def __init__(self, name: str | None = None, dtype: Any = None) -> None:
        super().__init__(name=name, dtype=dtype)
        if not tf.as_dtype(self.dtype).is_floating:
            raise ValueError(f"`dtype` must be floating. Received: dtype={dtype!r}.")
        # 16 bits would stop counting.
        dtype = compute_dtype(tf.as_dtype(self.dtype)).name
        self.total = self.add_weight(name="total", initializer="zeros", dtype=dtype)
        self.count = self.add_weight(name="count", initializer="zeros", dtype=dtype)

    def values_from_features(
        self, head: SampledSoftmax, features: Any, labels: Any, mask: Any
    ) -> tf.Tensor:
        """Computes the value of each example `[...]` from the features.

        Args:
            head: The layer that holds the classes.
            features: The head's inputs, `[..., dim]`.
            labels: As in `head.sampled_loss`.
            mask: Boolean `[...]`, False for padding; or None.
        """
        raise NotImplementedError

    def values_from_logits(self, logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        """Computes the value of each example `[N]` from the logits.

        Args:
            logits: `[N, num_classes]`.
            labels: int64 `[N, 1]`.
        """
        raise NotImplementedError

    @tf.autograph.experimental.do_not_convert
    def update_state_from_features(
        self,
        head: SampledSoftmax,
        features: Any,
        labels: Any,
        sample_weight: Any = None,
        mask: Any = None,
        exclude: Any = None,
    ) -> None:
        """Adds a batch, in chunks of classes.

        Args:
            head: The layer that holds the classes.
            features: The head's inputs, `[..., dim]`.
            labels: As in `head.sampled_loss`. Padding does not count.
            sample_weight: One weight for each example or sequence.
            mask: Boolean `[...]`, False for padding.
            exclude: Class ids `[..., n]` that ranks do not count, -1 for none. A label
                among them is never found.
        """
        weighted = [(self, sample_weight)]
        update_from_features(weighted, head, features, labels, mask, exclude)

    @tf.autograph.experimental.do_not_convert
    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Adds a batch of logits.

        Args:
            y_true: Class ids `[...]`: integers, or whole numbers in floats.
            y_pred: Logits `[..., num_classes]`. Where a mask that Keras has attached to
                them is False, an example does not count.
            sample_weight: One weight for each example or sequence.

        Raises:
            ValueError: If the shapes do not fit, the number of classes is unknown, or
                `y_true` is of a float dtype that cannot hold each class id.
            tf.errors.InvalidArgumentError: If an id is out of range or not whole. Under
                XLA, which cannot raise, the result is NaN.
        """
        logits = real_tensor(y_pred, "y_pred")
        if not logits.dtype.is_floating:
            raise ValueError(
                f"`y_pred` must be floating. Received: dtype={logits.dtype.name}."
            )
        if logits.shape.rank in (None, 0) or logits.shape[-1] is None:
            raise ValueError(
                "`y_pred` must have the shape [..., num_classes], of known rank and "
                f"num_classes. Received: y_pred.shape={logits.shape}."
            )
        examples, num_classes = logits.shape[:-1], logits.shape[-1]
        labels, mask = real_tensor(y_true, "y_true"), mask_of(y_pred)
        if labels.shape.rank is None or not any(
            shape.is_compatible_with(labels.shape)
            for shape in (examples, examples + [1])
        ):
            raise ValueError(
                f"`y_true` must be class ids of the shape {examples}; for one-hot "
                f"labels pass the argmax. Received: y_true.shape={labels.shape}."
            )
        if mask is not None:
            is_label = mask if labels.shape.rank == mask.shape.rank else mask[..., None]
            labels = tf.where(is_label, labels, tf.zeros_like(labels))
        labels, checks = _integer_ids(labels, num_classes)
        parsed = parse_labels(labels, examples, 1, None, mask)
        ids = parsed.ids
        checks.append(validation.ids_check(ids, num_classes, "y_true"))
        with tf.control_dependencies(validation.assert_all(checks)):
            in_range = validation.in_range(ids, num_classes)
            ids = tf.where(in_range, ids, 0)
            rows = tf.reshape(logits, [-1, num_classes])
            values = tf.cast(self.values_from_logits(rows, ids), self.dtype)
            values = tf.where(in_range[:, 0], values, float("nan"))
            values = tf.reshape(values, tf.shape(logits)[:-1])
            self._add(values, sample_weight, parsed.example_mask)

    def result(self) -> tf.Tensor:
        """Returns the mean so far, 0 before the first example."""
        return tf.math.divide_no_nan(self.total.value, self.count.value)

    def _add(self, values: tf.Tensor, sample_weight: Any, example_mask: Any) -> None:
        values = tf.cast(values, self.total.dtype)
        weights = broadcast_to_examples(sample_weight, values.shape, "sample_weight")
        weights = apply_weights(tf.ones_like(values), weights, example_mask)
        values = tf.where(weights == 0, tf.zeros_like(values), values)
        self.total.assign_add(tf.reduce_sum(values * weights))
        self.count.assign_add(tf.reduce_sum(weights))


@keras.saving.register_keras_serializable(package="tfsampled")
class Perplexity(ExactMetric):
    """`exp` of the mean exact cross entropy. Computed in evaluation only.

    Args:
        name: The metric's name in logs.
        dtype: The dtype of the values; their sums are in float32 or float64.

    Example:
        >>> from tfsampled.metrics import Perplexity
        >>> metric = Perplexity()
        >>> metric.update_state([0, 1], [[1.0, 1.0, 1.0], [2.0, 2.0, 2.0]])
        >>> round(float(metric.result()), 4)
        3.0
    """

    _direction = "down"

    def __init__(self, name: str = "perplexity", dtype: Any = None) -> None:
        super().__init__(name, dtype)

    def values_from_features(
        self, head: SampledSoftmax, features: Any, labels: Any, mask: Any
    ) -> tf.Tensor:
        """Computes the exact cross entropy of each example, over all classes."""
        return head.exact_loss(features, labels, mask=mask)

    def values_from_logits(self, logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        """Computes the cross entropy of each example."""
        # In 16 bits the sum of many exponentials, and the loss, would lose digits.
        logits = tf.cast(logits, compute_dtype(logits.dtype))
        return tf.nn.sparse_softmax_cross_entropy_with_logits(labels[:, 0], logits)

    def result(self) -> tf.Tensor:
        """Returns `exp` of the mean so far; 1 before the first example."""
        return tf.exp(super().result())


class RankMetric(ExactMetric):
    """The weighted mean of a value that depends on the ranks of an example's labels.

    A subclass implements `values_from_ranks`. The ranks are counted once for all such
    metrics of an output.
    """

    _direction = "up"

    def values_from_ranks(self, ranks: tf.Tensor) -> tf.Tensor:
        """Computes the value of each example `[...]`.

        Args:
            ranks: int32 `[..., num_true]`, how many classes have a higher logit than
                the label; `2**31 - 2` for an excluded label, one more for padding.
        """
        raise NotImplementedError

    def values_from_logits(self, logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        """Computes the value of each example from its labels' ranks."""
        ids = tf.range(tf.shape(logits)[-1])
        label_logits = tf.gather(logits, labels, batch_dims=1)
        ranks = count_ranked_above(logits, ids, label_logits, labels)
        return self.values_from_ranks(tf.cast(ranks, tf.int32))


@keras.saving.register_keras_serializable(package="tfsampled")
class TopKAccuracy(RankMetric):
    """The share of examples with a label among the `k` classes of greatest logits.

    Computed in evaluation only. Of equal logits the lower class id ranks first.

    Args:
        k: How many classes are predicted.
        name: The metric's name in logs, `top_{k}_accuracy` by default.
        dtype: The dtype of the values; their sums are in float32 or float64.

    Example:
        >>> from tfsampled.metrics import TopKAccuracy
        >>> metric = TopKAccuracy(k=2)
        >>> metric.update_state([0, 2], [[1.0, 3.0, 2.0], [1.0, 3.0, 2.0]])
        >>> float(metric.result())
        0.5
    """

    def __init__(self, k: int = 5, name: str | None = None, dtype: Any = None) -> None:
        self.k = validation.positive_int(k, "k")
        super().__init__(name or f"top_{self.k}_accuracy", dtype)

    def values_from_ranks(self, ranks: tf.Tensor) -> tf.Tensor:
        """Returns 1 where the best rank is below `k`, else 0."""
        rank = tf.reduce_min(ranks, axis=-1)
        return tf.cast(rank < min(self.k, EXCLUDED), self.dtype)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of an equal metric."""
        return {**super().get_config(), "k": self.k}


@keras.saving.register_keras_serializable(package="tfsampled")
class MeanReciprocalRank(RankMetric):
    """The mean of `1 / rank` of the examples' best labels, ranks counted from 1.

    Computed in evaluation only. Of equal logits the lower class id ranks first.

    Args:
        name: The metric's name in logs.
        dtype: The dtype of the values; their sums are in float32 or float64.

    Example:
        >>> from tfsampled.metrics import MeanReciprocalRank
        >>> metric = MeanReciprocalRank()
        >>> metric.update_state([0, 1], [[1.0, 3.0], [1.0, 3.0]])
        >>> float(metric.result())
        0.75
    """

    def __init__(self, name: str = "mean_reciprocal_rank", dtype: Any = None) -> None:
        super().__init__(name, dtype)

    def values_from_ranks(self, ranks: tf.Tensor) -> tf.Tensor:
        """Returns `1 / (rank + 1)` of the best rank."""
        return 1 / (tf.cast(tf.reduce_min(ranks, axis=-1), self.dtype) + 1)


@keras.saving.register_keras_serializable(package="tfsampled")
class NDCG(RankMetric):
    """Normalized discounted cumulative gain of the `k` best classes, labels relevant.

    `sum_t [rank_t < k] / log2(rank_t + 2)` over the labels of an example, ranks counted
    from 0, divided by the value of the best possible ranks. The labels of an example
    must differ. Computed in evaluation only. Of equal logits the lower class id ranks
    first.

    Args:
        k: How many classes are predicted.
        name: The metric's name in logs, `ndcg_{k}` by default.
        dtype: The dtype of the values; their sums are in float32 or float64.

    Example:
        >>> from tfsampled.metrics import NDCG
        >>> metric = NDCG(k=2)
        >>> metric.update_state([0, 1], [[1.0, 3.0, 0.0], [1.0, 3.0, 0.0]])
        >>> round(float(metric.result()), 4)
        0.8155

    Reference:
        Jarvelin and Kekalainen, Cumulated Gain-Based Evaluation of IR Techniques, 2002,
        https://doi.org/10.1145/582415.582418
    """

    def __init__(self, k: int = 10, name: str | None = None, dtype: Any = None) -> None:
        self.k = validation.positive_int(k, "k")
        super().__init__(name or f"ndcg_{self.k}", dtype)

    def values_from_ranks(self, ranks: tf.Tensor) -> tf.Tensor:
        """Computes the gain of each example's labels."""
        # ranks = [[0, 5, padding]], k = 2 -> (1 + 0) / (1 + 1 / log2(3))
        num_labels = tf.reduce_sum(
            tf.cast(ranks < ranks.dtype.max, tf.int32), axis=-1, keepdims=True
        )
        best = tf.range(ranks.shape[-1])
        best = tf.where(best < num_labels, best, best.dtype.max)
        return tf.math.divide_no_nan(self._gain(ranks), self._gain(best))

    def _gain(self, ranks: tf.Tensor) -> tf.Tensor:
        """Sums `1 / log2(rank + 2)` over the ranks below `k`."""
        discounts = tf.math.log(tf.cast(ranks, self.dtype) + 2) / np.log(2)
        is_found = ranks < min(self.k, EXCLUDED)
        gains = tf.where(is_found, 1 / discounts, tf.zeros_like(discounts))
        return tf.reduce_sum(gains, axis=-1)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of an equal metric."""
        return {**super().get_config(), "k": self.k}


def update_from_features(
    metrics: Iterable[tuple[ExactMetric, Any]],
    head: SampledSoftmax,
    features: Any,
    labels: Any,
    mask: Any,
    exclude: Any,
) -> None:
    """Adds a batch to several metrics; counts the ranks of labels once."""
    examples = real_tensor(features, "features").shape[:-1]
    targets, ranks = _head_labels.parse(head, labels, examples, mask), None
    for metric, sample_weight in metrics:
        if isinstance(metric, RankMetric):
            if ranks is None:
                ranks = label_ranks(head, features, labels, mask, exclude)
            values = metric.values_from_ranks(ranks)
            if tracing_for_xla():  # which drops the check of the labels
                valid = validation.in_range(targets.ids, head.num_classes)
                valid = tf.reshape(tf.reduce_all(valid, axis=1), tf.shape(values))
                values = tf.where(valid, values, float("nan"))
        else:
            values = metric.values_from_features(head, features, labels, mask)
        metric._add(values, sample_weight, targets.example_mask)


def _integer_ids(
    labels: tf.Tensor, num_classes: int
) -> tuple[tf.Tensor, list[validation.Check]]:
    """Casts floats to class ids: Keras casts the labels of compiled metrics to floats.

    Returns:
        Integers, -1 where a float is not a whole number; and the check that all are.
    """
    if not labels.dtype.is_floating:
        return labels, []
    if num_classes > 2 ** _PRECISION.get(labels.dtype, 0):
        raise ValueError(
            "`y_true` must be of a dtype that holds each class id. "
            f"Received: dtype={labels.dtype.name}, num_classes={num_classes}."
        )
    ids = tf.cast(labels, tf.int64)
    whole = tf.equal(tf.cast(ids, labels.dtype), labels)
    message = "`y_true` must be class ids. Received: floats that are not whole numbers."
    check = validation.Check(tf.reduce_all(whole), message, tuple)
    return tf.where(whole, ids, -1), [check]
