"""Keras models whose `fit` trains on a sampled loss."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from tfsampled._core import checks
from tfsampled.layers import SampledSoftmax


@keras.saving.register_keras_serializable(package="tfsampled")
class SampledSoftmaxModel(keras.Model):
    """A classifier that trains on the sampled loss and is evaluated on the exact one.

    `fit(x, y)` takes ordinary integer labels and minimizes `head.sampled_loss` of the
    encoder's features; `evaluate(x, y)` and `validation_data` report the exact cross
    entropy; `predict(x)` gives the logits of all the classes, or the `top_k` best.
    Neither training nor evaluation makes a tensor of all the logits. The loss is the
    model's own: `compile(optimizer=...)` is called without one.

    Called as a function, `model(x)` is what `predict` gives, and
    `model(x, training=True)` gives the encoder's features, which is all that training
    needs.

    Args:
        encoder: A layer or model that makes the features, `[batch, dim]` or
            `[batch, time, dim]`, from `x`.
        head: The `tfsampled.layers.SampledSoftmax` over the classes.
        top_k: None for logits `[..., num_classes]`; a number for a dict of `classes`
            (`[..., top_k]`, `int32`, best first) and `scores` (their logits).
        **kwargs: Arguments of `keras.Model`, such as `name`.

    Raises:
        ValueError: `head` is not a `SampledSoftmax`, or `top_k` is above its classes.

    Example:
        >>> import keras, numpy as np
        >>> from tfsampled.layers import SampledSoftmax
        >>> encoder = keras.Sequential([keras.layers.Dense(16, "relu")])
        >>> head = SampledSoftmax(num_classes=1000, num_sampled=50)
        >>> model = SampledSoftmaxModel(encoder, head, top_k=3)
        >>> model.compile(optimizer="adam")
        >>> x, y = np.ones((32, 8), "float32"), np.arange(32)
        >>> _ = model.fit(x, y, epochs=2, verbose=0)
        >>> model.predict(x, verbose=0)["classes"].shape
        (32, 3)
    """

    def __init__(
        self,
        encoder: keras.layers.Layer,
        head: SampledSoftmax,
        top_k: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if not isinstance(head, SampledSoftmax):
            raise ValueError(
                f"head is {head!r}; it must be a tfsampled.layers.SampledSoftmax."
            )
        if top_k is not None:
            top_k = checks.integer(top_k, "top_k")
            if top_k > head.num_classes:
                raise ValueError(
                    f"top_k is {top_k}, but the head has only {head.num_classes} "
                    "classes: pass at most num_classes."
                )
        self.encoder = encoder
        self.head = head
        self.top_k = top_k
        self.supports_masking = True
        self._in_test_step = False

    def build(self, input_shape: Any) -> None:
        """Builds the encoder for inputs of `input_shape`, then the head."""
        if not self.encoder.built:
            self.encoder.build(input_shape)
        if not self.head.built:
            self.head.build(self.encoder.compute_output_shape(input_shape))
        self.built = True

    def call(self, inputs: Any, training: bool = False) -> Any:
        """Logits or the top k; the encoder's features where only a loss is wanted."""
        features = self.encoder(inputs, training=training)
        if training or self._in_test_step:
            return features
        if self.top_k is None:
            return self.head(features)
        scores, classes = self.head.top_k(features, self.top_k)
        return {"classes": classes, "scores": scores}

    def compile(
        self,
        optimizer: Any = "rmsprop",
        loss: None = None,
        loss_weights: None = None,
        metrics: None = None,
        weighted_metrics: None = None,
        **kwargs: Any,
    ) -> None:
        """Sets the optimizer, and what else `keras.Model.compile` sets, but no loss.

        Args:
            optimizer: Any Keras optimizer, or its name.
            loss: Must be None: the head has the loss.
            loss_weights: Must be None.
            metrics: Must be None: Keras's metrics want all the logits in each step.
            weighted_metrics: Must be None.
            **kwargs: Other arguments of `keras.Model.compile`.

        Raises:
            ValueError: A loss or a metric was given.
        """
        given = {
            "loss": loss,
            "loss_weights": loss_weights,
            "metrics": metrics,
            "weighted_metrics": weighted_metrics,
        }
        for name, value in given.items():
            if value is not None:
                raise ValueError(
                    f"compile got {name}={value!r}; a SampledSoftmaxModel trains on "
                    "the head's sampled loss and evaluates its exact loss, and takes "
                    f"no other: leave {name} out."
                )
        super().compile(optimizer=optimizer, **kwargs)

    def compile_from_config(self, config: dict[str, Any]) -> None:
        """Compiles a loaded model as the saved one was compiled."""
        self.compile(**keras.saving.deserialize_keras_object(config))
        if self.built:
            self.optimizer.build(self.trainable_variables)

    def test_step(self, data: Any) -> Any:
        """One batch of `evaluate`: the exact loss, of features and without logits."""
        self._in_test_step = True
        try:
            return super().test_step(data)
        finally:
            self._in_test_step = False

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> tf.Tensor:
        """The mean of the losses, sampled while training, plus the regularizers'.

        Args:
            x: Not used.
            y: Integer labels, as `SampledSoftmax.sampled_loss` takes them.
            y_pred: The encoder's features.
            sample_weight: Weights of the examples.
            training: Whether the sampled loss is meant, or else the exact one.

        Returns:
            A scalar: the weighted losses' sum over the number of examples, masked ones
            (as in Keras's losses) not counted.

        Raises:
            ValueError: There are no labels, or they do not fit the features.
        """
        del x
        if y is None:
            raise ValueError(
                "there are no labels: pass integer class ids as y, or a dataset of "
                "(x, y) or (x, y, sample_weight)."
            )
        loss_of: Callable[..., tf.Tensor] = (
            self.head.sampled_loss if training else self.head.exact_loss
        )
        mask = getattr(y_pred, "_keras_mask", None)  # where Keras keeps it
        losses = loss_of(y_pred, y, sample_weight=sample_weight, mask=mask)
        kept = tf.ones_like(losses) if mask is None else tf.cast(mask, losses.dtype)
        loss = tf.math.divide_no_nan(tf.reduce_sum(losses), tf.reduce_sum(kept))
        loss = tf.add_n([loss, *(tf.cast(extra, loss.dtype) for extra in self.losses)])
        # The optimizer sums gradients over replicas: each gives its share.
        return loss / tf.distribute.get_strategy().num_replicas_in_sync

    def get_config(self) -> dict[str, Any]:
        """The encoder and the head, serialized, and `top_k`."""
        return {
            **super().get_config(),
            "encoder": keras.saving.serialize_keras_object(self.encoder),
            "head": keras.saving.serialize_keras_object(self.head),
            "top_k": self.top_k,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> SampledSoftmaxModel:
        """A model of equal parts, without their weights."""
        parts = {
            name: keras.saving.deserialize_keras_object(config[name])
            for name in ("encoder", "head")
        }
        return cls(**{**config, **parts})
