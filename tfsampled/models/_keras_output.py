"""An output of a model that trains on a loss of Keras's, not of a `SampledSoftmax`."""

from __future__ import annotations

import inspect
from typing import Any

import keras
import tensorflow as tf

from tfsampled._core import replicas
from tfsampled._core.labels import apply_weights, broadcast_to_examples
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
        is_config = inspect.isclass(loss) or isinstance(loss, dict)
        self._loss = keras.losses.get(loss) if is_config else loss
        self._is_scalar = False  # until `build`, on several replicas
        # Has no layers: it compiles the loss and the metrics, as Keras reads them.
        self._compiled = keras.Model(name=name)
        self._compiled.compile(
            optimizer=None,
            loss=self._loss,
            metrics=_as_list(metrics),
            weighted_metrics=_as_list(weighted_metrics),
        )

    def named_metrics(self) -> dict[str, keras.metrics.Metric]:
        """Returns the one metric that holds all of `compile`, as Keras makes it."""
        metrics = self._compiled.metrics
        return {metric.name: metric for metric in metrics if metric.name != "loss"}

    def build(self, y: Any, y_pred: Any) -> None:
        """Makes the metrics' variables; `y_pred` is a KerasTensor."""
        if callable(self._loss) and replicas.num_replicas() > 1:
            loss = getattr(self._loss, "call", self._loss)
            dtype = getattr(self._loss, "dtype", keras.config.floatx())
            specs = [tf.TensorSpec(x.shape, dtype) for x in (y, y_pred)]
            function = tf.function(loss, specs, autograph=False)
            self._is_scalar = function.get_concrete_function().output_shapes.rank == 0
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
        self, y: Any, y_pred: tf.Tensor, sample_weight: Any, *_: Any
    ) -> tf.Tensor:
        """Computes the mean loss; other arguments are those of a head's."""
        if not self.has_loss:
            return tf.zeros([])
        loss = self._compiled.compute_loss(None, y, y_pred, sample_weight)
        if replicas.num_replicas() == 1:
            return loss
        mask, reduction = mask_of(y_pred), getattr(self._loss, "reduction", None)
        is_scalar = self._is_scalar and mask is None and sample_weight is None
        if reduction == "sum" or not is_scalar:
            loss *= replicas.num_replicas()  # by which Keras has divided a mean
        if reduction == "sum":
            return loss
        # Of this replica's examples, of a masked output its unmasked steps.
        count = tf.shape(y_pred)[0] if mask is None else tf.math.count_nonzero(mask)
        if reduction == "mean_with_sample_weight" and sample_weight is not None:
            weight = broadcast_to_examples(
                sample_weight, y_pred.shape[:-1], "sample_weight"
            )
            ones = tf.ones(tf.shape(y_pred)[:-1])
            count = tf.reduce_sum(apply_weights(ones, weight, mask))
        count = tf.cast(count, tf.float32)
        share = tf.math.divide_no_nan(count, replicas.mean(count))
        return tf.math.multiply_no_nan(loss, tf.cast(share, loss.dtype))

    def update_metrics(
        self, y: Any, y_pred: tf.Tensor, sample_weight: Any, *_: Any
    ) -> None:
        """Adds a batch to the metrics; other arguments are those of a head's."""
        self._compiled.compute_metrics(None, y, y_pred, sample_weight)


def batch_size(features: Any) -> tf.Tensor:
    """Returns the number of examples, in float32: the mean of replicas."""
    return replicas.mean(tf.cast(tf.shape(features)[0], tf.float32))


def _as_list(metrics: Any) -> Any:
    """Wraps a single metric, which Keras takes for one of several outputs alone."""
    is_single = metrics is not None and not isinstance(metrics, (list, tuple, dict))
    return [metrics] if is_single else metrics
