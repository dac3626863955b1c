"""Exact metrics over all the classes, in blocks: never `[batch, num_classes]` at once.

`SampledSoftmaxModel.compile(metrics=[...])` takes them. They need every class's logit,
which training does not compute, so they are updated in `evaluate` and in validation
only; the logs of a training step hold the loss alone. A model that has all its logits
may take them as well: called with logits, they are ordinary Keras metrics.
"""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from tfsampled._core import validation
from tfsampled._core.full_softmax.ranks import count_ranked_above
from tfsampled._core.labels import apply_weights, parse_labels
from tfsampled.layers import SampledSoftmax

__all__ = ["ExactMetric", "MeanReciprocalRank", "Perplexity", "TopKAccuracy"]


class ExactMetric(keras.metrics.Metric):
    """The weighted mean of a value that each example has.

    Args:
        name: The metric's name in logs.
        dtype: Of the mean.
    """

    def __init__(self, name: str | None = None, dtype: Any = None) -> None:
        super().__init__(name=name, dtype=dtype)
        self.total = self.add_weight(name="total", initializer="zeros")
        self.count = self.add_weight(name="count", initializer="zeros")

    def values_from_features(
        self, head: SampledSoftmax, features: Any, labels: Any, mask: Any
    ) -> tf.Tensor:
        """The value of each example, from the features that the head takes."""
        raise NotImplementedError

    def values_from_logits(self, logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        """The value of each example `[N]`, from logits `[N, V]`, labels `[N, T]`."""
        raise NotImplementedError

    def update_state_from_features(
        self,
        head: SampledSoftmax,
        features: Any,
        labels: Any,
        sample_weight: Any = None,
        mask: Any = None,
    ) -> None:
        """Adds a batch, in blocks of classes.

        Args:
            head: The layer that holds the classes.
            features: What the head takes, `[..., dim]`.
            labels: As the head's losses take them; padding counts nothing.
            sample_weight: Weights, one for each example or sequence.
            mask: Boolean, False for padding.
        """
        values = self.values_from_features(head, features, labels, mask)
        self._add(values, sample_weight, head.example_mask(features, labels, mask))

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Adds a batch of logits `[..., num_classes]` and labels `[...]`."""
        logits = tf.convert_to_tensor(y_pred)
        shape = logits.shape[:-1]
        labels = tf.convert_to_tensor(y_true)
        if labels.dtype.is_floating:  # Keras casts labels for compiled metrics
            labels = tf.cast(labels, tf.int64)
        ids = parse_labels(labels, shape, 1, None, None).ids
        rows = tf.reshape(logits, [-1, logits.shape[-1]])
        values = tf.reshape(self.values_from_logits(rows, ids), tf.shape(logits)[:-1])
        self._add(values, sample_weight, None)

    def result(self) -> tf.Tensor:
        """The mean so far, 0 before the first example."""
        return tf.math.divide_no_nan(self.total.value, self.count.value)

    def _add(self, values: tf.Tensor, sample_weight: Any, keep: Any) -> None:
        values = tf.cast(values, self.dtype)
        weights = apply_weights(tf.ones_like(values), sample_weight, keep)
        values = tf.where(weights == 0, tf.zeros_like(values), values)
        self.total.assign_add(tf.reduce_sum(values * weights))
        self.count.assign_add(tf.reduce_sum(weights))


@keras.saving.register_keras_serializable(package="tfsampled")
class Perplexity(ExactMetric):
    """`exp` of the mean exact cross entropy. Computed in evaluation only.

    Args:
        name: The metric's name in logs.
        dtype: Of the mean.

    Example:
        >>> metric = Perplexity()
        >>> metric.update_state([0, 1], [[1.0, 1.0, 1.0], [2.0, 2.0, 2.0]])
        >>> round(float(metric.result()), 4)
        3.0
    """

    def __init__(self, name: str = "perplexity", dtype: Any = None) -> None:
        super().__init__(name, dtype)

    def values_from_features(
        self, head: SampledSoftmax, features: Any, labels: Any, mask: Any
    ) -> tf.Tensor:
        """The exact cross entropy of each example."""
        return head.exact_loss(features, labels, mask=mask)

    def values_from_logits(self, logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        """The cross entropy of each example."""
        return tf.nn.sparse_softmax_cross_entropy_with_logits(labels[:, 0], logits)

    def result(self) -> tf.Tensor:
        """`exp` of the mean so far; 1 before the first example."""
        return tf.exp(super().result())


class _OfRank(ExactMetric):
    """A metric of how many classes stand before an example's best label."""

    def values_from_features(
        self, head: SampledSoftmax, features: Any, labels: Any, mask: Any
    ) -> tf.Tensor:
        """The value of each example's rank."""
        return self.values_from_rank(head.ranks(features, labels, mask))

    def values_from_logits(self, logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        """The value of each example's rank."""
        ids = tf.range(tf.shape(logits)[-1])
        own = tf.gather(logits, labels, batch_dims=1)
        return self.values_from_rank(count_ranked_above(logits, ids, own, labels)[:, 0])

    def values_from_rank(self, rank: tf.Tensor) -> tf.Tensor:
        """The value of ranks from 0."""
        raise NotImplementedError


@keras.saving.register_keras_serializable(package="tfsampled")
class TopKAccuracy(_OfRank):
    """The share of examples with a label among the `k` best classes.

    Computed in evaluation only. Of equal logits, the lower class id is the better.

    Args:
        k: How many classes count as best.
        name: The metric's name in logs, `top_{k}_accuracy` by default.
        dtype: Of the mean.

    Example:
        >>> metric = TopKAccuracy(k=2)
        >>> metric.update_state([0, 2], [[1.0, 3.0, 2.0], [1.0, 3.0, 2.0]])
        >>> float(metric.result())
        0.5
    """

    def __init__(self, k: int = 5, name: str | None = None, dtype: Any = None) -> None:
        self.k = validation.positive_int(k, "k")
        super().__init__(name or f"top_{self.k}_accuracy", dtype)

    def values_from_rank(self, rank: tf.Tensor) -> tf.Tensor:
        """1 for a rank below `k`, else 0."""
        return tf.cast(rank < self.k, self.dtype)

    def get_config(self) -> dict[str, Any]:
        """What `from_config` needs."""
        return {**super().get_config(), "k": self.k}


@keras.saving.register_keras_serializable(package="tfsampled")
class MeanReciprocalRank(_OfRank):
    """The mean of `1 / rank` of the examples' best labels, ranks counted from 1.

    Computed in evaluation only.

    Args:
        name: The metric's name in logs.
        dtype: Of the mean.

    Example:
        >>> metric = MeanReciprocalRank()
        >>> metric.update_state([0, 1], [[1.0, 3.0], [1.0, 3.0]])
        >>> float(metric.result())
        0.75
    """

    def __init__(self, name: str = "mean_reciprocal_rank", dtype: Any = None) -> None:
        super().__init__(name, dtype)

    def values_from_rank(self, rank: tf.Tensor) -> tf.Tensor:
        """`1 / (rank + 1)`."""
        return 1 / (tf.cast(rank, self.dtype) + 1)
