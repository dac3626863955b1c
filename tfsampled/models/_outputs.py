"""Outputs of a model: of a `SampledSoftmax`, or trained on a loss of Keras's.

Both kinds have `loss_mean`, `named_metrics`, `num_examples`, `compute_loss` and
`update_metrics`. The name of a model's only output is "".
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfsampled._core import validation
from tfsampled._core.labels import Labels
from tfsampled.layers import SampledSoftmax
from tfsampled.models._fit_arguments import validate_metrics
from tfsampled.models._label_check import LabelCheck


class HeadOutput:
    """An output that trains on the sampled loss of a head, evaluated on the exact one.

    Args:
        name: The output's name.
        head: The `SampledSoftmax` that makes it.
        metrics: Metrics of `tfsampled.metrics`, or None.
        weighted_metrics: The same, weighted by sample weights.
    """

    def __init__(
        self, name: str, head: SampledSoftmax, metrics: Any, weighted_metrics: Any
    ) -> None:
        self.head = head
        self.loss_mean = keras.metrics.Mean(name=f"{name}_loss")
        self.label_check = LabelCheck(head)
        self._metrics = validate_metrics(metrics, "metrics")
        self._weighted = validate_metrics(weighted_metrics, "weighted_metrics")
        if shared := [
            metric.name for metric in self._weighted if metric in self._metrics
        ]:
            raise ValueError(
                "`metrics` and `weighted_metrics` must not share a metric object. "
                f"Received: {shared[0]!r} in both."
            )

    def named_metrics(self) -> dict[str, keras.metrics.Metric]:
        """Returns the metrics by their names in logs."""
        named = {metric.name: metric for metric in self._metrics}
        for metric in self._weighted:
            named[("weighted_" if metric.name in named else "") + metric.name] = metric
        return named

    def label_checks(self, y: Any) -> list[validation.Check]:
        """Checks the labels of a training step, before the encoder is called."""
        return self.head._label_checks(*self._ids_and_mask(y), sampled=True)

    def record(self, y: Any, mask: Any, training: bool) -> tf.Tensor:
        """Returns whether a compiled step can use the labels; if not, records why."""
        if mask is None:
            targets = Labels(*self._ids_and_mask(y), None)
        else:
            targets = self.head._parse(y, mask.shape, mask)
        return self.label_check.record(targets, training)

    def num_examples(self, y: Any, features: tf.Tensor) -> tf.Tensor:
        """Counts the examples that have a label, in float32."""
        example_mask = self._parse(y, features).example_mask
        if example_mask is None:
            return tf.cast(tf.reduce_prod(tf.shape(features)[:-1]), tf.float32)
        return tf.reduce_sum(tf.cast(example_mask, tf.float32))

    def compute_loss(
        self,
        y: Any,
        features: tf.Tensor,
        sample_weight: Any,
        training: bool,
        validated: bool,
    ) -> tf.Tensor:
        """Computes the sum of the weighted losses over the number of examples.

        Args:
            y: Integer labels, as in `SampledSoftmax.sampled_loss`.
            features: The head's inputs.
            sample_weight: Weights of the examples, or None.
            training: Whether to compute the sampled loss, or else the exact one.
            validated: Whether the labels are known to be valid.
        """
        targets = self._parse(y, features)
        if not validated:
            targets = self.head._validated(targets, sampled=training)
        losses = self.head._compute_losses(
            features, targets, sample_weight, sampled=training
        )
        count = tf.cast(self.num_examples(y, features), losses.dtype)
        return tf.math.divide_no_nan(tf.reduce_sum(losses), count)

    def update_metrics(self, y: Any, features: tf.Tensor, sample_weight: Any) -> None:
        """Adds a batch to the metrics."""
        mask = keras_mask(features)
        for metric in self._metrics:
            metric.update_state_from_features(self.head, features, y, mask=mask)
        for metric in self._weighted:
            metric.update_state_from_features(
                self.head, features, y, sample_weight, mask
            )

    def sample_weight_of_classes(self, y: Any, class_weights: np.ndarray) -> tf.Tensor:
        """Returns the weight of each label; with several, the mean of an example's.

        Args:
            y: Integer labels.
            class_weights: Weights of the first classes; the last is that of the rest.
        """
        ids, is_label = self._ids_and_mask(y)
        ids = tf.clip_by_value(ids, 0, len(class_weights) - 1)
        weights = tf.gather(tf.constant(class_weights), ids)
        if self.head.num_true == 1:
            return weights
        if is_label is None:
            return tf.reduce_mean(weights, axis=-1)
        is_label = tf.cast(is_label, weights.dtype)
        return tf.math.divide_no_nan(
            tf.reduce_sum(weights * is_label, axis=-1), tf.reduce_sum(is_label, axis=-1)
        )

    def _parse(self, y: Any, features: tf.Tensor) -> Labels:
        return self.head._parse(y, features.shape[:-1], keras_mask(features))

    def _ids_and_mask(self, y: Any) -> tuple[tf.Tensor, tf.Tensor | None]:
        """Returns label ids of any shape, 0 for padding, and which are labels."""
        y = y.flat_values if isinstance(y, tf.RaggedTensor) else y
        ids = tf.cast(y, tf.int64)
        if self.head.ignore_class is None:
            return ids, None
        is_label = ids != self.head.ignore_class
        return tf.where(is_label, ids, 0), is_label


class KerasOutput:
    """An output that trains on a loss of Keras's.

    Args:
        name: The output's name.
        loss: As in `keras.Model.compile`; None does not train it.
        metrics: As in `keras.Model.compile`.
        weighted_metrics: As in `keras.Model.compile`.
    """

    def __init__(
        self, name: str, loss: Any, metrics: Any, weighted_metrics: Any
    ) -> None:
        self.loss_mean = keras.metrics.Mean(name=f"{name}_loss")
        self._has_loss = loss is not None
        # Has no layers: it compiles the loss and the metrics, as Keras reads them.
        self._compiled = keras.Model(name=name)
        self._compiled.compile(
            loss=loss, metrics=metrics, weighted_metrics=weighted_metrics
        )

    def named_metrics(self) -> dict[str, keras.metrics.Metric]:
        """Returns the one metric that holds all of `compile`, as Keras makes it."""
        metrics = self._compiled.metrics
        return {metric.name: metric for metric in metrics if metric.name != "loss"}

    def build(self, y: Any, y_pred: Any) -> None:
        """Makes the metrics' variables, for targets and predictions like these.

        Args:
            y: A KerasTensor.
            y_pred: A KerasTensor.
        """
        y, y_pred = (
            tf.zeros([1 if size is None else size for size in x.shape], x.dtype)
            for x in (y, y_pred)
        )
        self._compiled.compute_metrics(None, y, y_pred)
        self._compiled.reset_metrics()

    def num_examples(self, y: Any, y_pred: tf.Tensor) -> tf.Tensor:
        """Counts the examples, in float32."""
        return tf.cast(tf.shape(y_pred)[0], tf.float32)

    def compute_loss(
        self,
        y: Any,
        y_pred: tf.Tensor,
        sample_weight: Any,
        training: bool,
        validated: bool,
    ) -> tf.Tensor:
        """Computes the mean loss; the last two arguments are not used."""
        del training, validated
        if not self._has_loss:
            return tf.zeros([])
        # Keras divides it by the number of replicas.
        loss = self._compiled.compute_loss(None, y, y_pred, sample_weight)
        return loss * num_replicas()

    def update_metrics(self, y: Any, y_pred: tf.Tensor, sample_weight: Any) -> None:
        """Adds a batch to the metrics."""
        self._compiled.compute_metrics(None, y, y_pred, sample_weight)


def keras_mask(features: Any) -> Any:
    """Returns the mask that Keras has attached to a tensor, or None."""
    return getattr(features, "_keras_mask", None)  # where Keras keeps it


def num_replicas() -> int:
    """Returns the number of replicas of the current strategy."""
    return tf.distribute.get_strategy().num_replicas_in_sync
