"""An output of a model that trains on a loss of Keras's, not of a `SampledSoftmax`."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from tfsampled._core import replicas
from tfsampled.layers._keras import mask_of


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
        self.has_loss = loss is not None
        self._is_sum = getattr(loss, "reduction", None) == "sum"
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
        """Makes the metrics' variables; `y_pred` is a KerasTensor."""
        y, y_pred = (
            tf.zeros([1] + [size or 1 for size in x.shape[1:]], x.dtype)
            for x in (y, y_pred)
        )
        self._compiled.compute_metrics(None, y, y_pred)
        self._compiled.reset_metrics()

    def num_examples(self, y: Any, y_pred: tf.Tensor) -> tf.Tensor:
        """Counts the examples, in float32: the mean of replicas."""
        return batch_size(y_pred)

    def compute_loss(
        self,
        y: Any,
        y_pred: tf.Tensor,
        sample_weight: Any,
        training: bool,
        validated: bool,
        negatives: Any,
    ) -> tf.Tensor:
        """Computes the mean loss; the last three arguments are not used."""
        del training, validated, negatives
        if not self.has_loss:
            return tf.zeros([])
        loss = self._compiled.compute_loss(None, y, y_pred, sample_weight)
        loss *= replicas.num_replicas()
        if self._is_sum:
            return loss
        # Keras takes the mean over this replica's examples, or of a masked output over
        # its unmasked steps, divided by the number of replicas.
        mask = mask_of(y_pred)
        count = tf.shape(y_pred)[0] if mask is None else tf.math.count_nonzero(mask)
        count = tf.cast(count, tf.float32)
        share = tf.math.divide_no_nan(count, replicas.mean(count))
        return loss * tf.cast(share, loss.dtype)

    def update_metrics(
        self, y: Any, y_pred: tf.Tensor, sample_weight: Any, exclude: Any
    ) -> None:
        """Adds a batch to the metrics; the last argument is not used."""
        del exclude
        self._compiled.compute_metrics(None, y, y_pred, sample_weight)


def batch_size(features: Any) -> tf.Tensor:
    """Returns the number of examples, in float32: the mean of replicas."""
    return replicas.mean(tf.cast(tf.shape(features)[0], tf.float32))
