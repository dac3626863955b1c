"""What a `SampledSoftmaxModel` does with a batch."""

from __future__ import annotations

import warnings
from typing import Any

import keras
import tensorflow as tf

from tfsampled._core.labels import integer_labels
from tfsampled._core.xla import tracing_for_xla
from tfsampled.layers import SampledSoftmax
from tfsampled.models import _structure as structure
from tfsampled.models._class_weight import ClassWeight, sample_weight_of
from tfsampled.models._evaluation import Evaluation
from tfsampled.models._labels import LabelCheck


class SampledSteps(keras.Model):
    """Steps of training on the sampled loss, and of evaluation on the exact one.

    A step of training looks at its labels before anything else. Where one is no class,
    or a class that the sampler never draws, weights, the optimizer's slots and the
    sampler's state stay as they are. The step raises then, unless XLA compiles it; a
    compiled one is told of by `fit`, `train_on_batch`, `evaluate` and `test_on_batch`.
    Which labels a mask leaves out is known once the encoder was called: with a mask,
    and not compiled, its own state (moving averages, seeds) is a batch further then.
    """

    encoder: keras.layers.Layer
    head: SampledSoftmax

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._loss_mean = keras.metrics.Mean(name="loss")
        # Plain objects, in which Keras looks for no state of the layer.
        self._evaluation = Evaluation()
        self._class_weight: ClassWeight | None = None
        self._label_check: LabelCheck | None = None
        self._masks: bool | None = None  # not known before the first call

    def train_step(self, data: Any) -> dict[str, Any]:
        """One batch of `fit`: the sampled loss, and a step of the optimizer."""
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        y = _labels(y)
        sample_weight = sample_weight_of(self._class_weight, y, sample_weight)
        self._build_for(x)
        if not tracing_for_xla() or _replicas() > 1:
            with tf.control_dependencies(self._assertions(y)):
                self._train(x, y, sample_weight)
        else:
            if not self.optimizer.built:  # no variables are made in a branch
                with tf.init_scope():
                    self.optimizer.build(self.trainable_variables)
            # It costs no copy: XLA updates tables in place in a branch too.
            tf.cond(
                self._check.note(y, self._mask_of(x), training=True),
                lambda: self._train(x, y, sample_weight),
                lambda: None,
            )
        return {"loss": self._loss_mean.result()}

    def test_step(self, data: Any) -> dict[str, Any]:
        """One batch of `evaluate`: the exact loss and metrics, without logits."""
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        y = _labels(y)
        self._build_for(x)
        features = self._features(x, training=False)
        mask = _mask(features)
        if tracing_for_xla() and _replicas() == 1:
            self._check.note(y, mask, training=False)
        loss = self.compute_loss(x, y, features, sample_weight, training=False)
        self._count_loss(loss, features, y)
        self._evaluation.update(self.head, features, y, sample_weight, mask)
        return self.get_metrics_result()

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
            A scalar: the weighted losses' sum over the number of examples, padding (as
            in Keras's losses) not counted; under a distribution strategy divided by
            the number of replicas, whose gradients the optimizer sums.

        Raises:
            ValueError: There are no labels, or they do not fit the features.
        """
        del x
        y = _labels(y)
        loss_of = self.head.sampled_loss if training else self.head.exact_loss
        losses = loss_of(y_pred, y, sample_weight=sample_weight, mask=_mask(y_pred))
        count = tf.cast(self._count(y_pred, y), losses.dtype)
        loss = tf.math.divide_no_nan(tf.reduce_sum(losses), count)
        loss = tf.add_n([loss, *(tf.cast(extra, loss.dtype) for extra in self.losses)])
        return loss / _replicas()

    def _train(self, x: Any, y: Any, sample_weight: Any) -> None:
        weights = self.trainable_weights
        with tf.GradientTape() as tape:
            features = self._features(x, training=True)
            loss = self.compute_loss(x, y, features, sample_weight, training=True)
            scaled = self.optimizer.scale_loss(loss)
        if weights:
            gradients = tape.gradient(scaled, weights)
            with tf.control_dependencies([loss]):  # the count of steps waits for it
                self.optimizer.apply_gradients(zip(gradients, weights, strict=True))
        else:
            warnings.warn(
                "the model does not have any trainable weights: nothing is learnt.",
                stacklevel=2,
            )
        self._count_loss(loss, features, y)

    def _build_for(self, x: Any) -> None:
        if not self.built:  # a symbolic call: no logits, and Keras knows the shapes
            with tf.init_scope():
                self(structure.symbols(x))

    def _features(self, x: Any, training: bool) -> tf.Tensor:
        x = structure.as_declared(self.encoder, x)
        features = self.encoder(x, training=training)
        self._masks = _mask(features) is not None
        return features

    def _mask_of(self, x: Any) -> tf.Tensor | None:
        """The features' mask. Of the call that makes it, the rest is never run."""
        if self._masks is False:
            return None
        x = structure.as_declared(self.encoder, x)
        with keras.StatelessScope():
            return _mask(self.encoder(x, training=False))

    @property
    def _check(self) -> LabelCheck:
        if self._label_check is None:
            with tf.init_scope():
                self._label_check = LabelCheck(self.head)
        return self._label_check

    def _assertions(self, labels: tf.Tensor) -> list[Any]:
        """What a step waits for. With a mask, the head checks once it has that."""
        return [] if self._masks is not False else self._check.assertions(labels, None)

    def _count(self, features: tf.Tensor, labels: Any) -> tf.Tensor:
        """How many examples have a label, as float32."""
        kept = self.head.example_mask(features, labels, _mask(features))
        return tf.reduce_sum(tf.cast(kept, tf.float32))

    def _count_loss(self, loss: tf.Tensor, features: tf.Tensor, labels: Any) -> None:
        """Adds a batch to the mean that is reported, by its examples."""
        loss *= _replicas()
        self._loss_mean.update_state(loss, sample_weight=self._count(features, labels))


def _labels(y: Any) -> tf.Tensor:
    if y is None:
        raise ValueError(
            "there are no labels: pass integer class ids as y, or a dataset of (x, y) "
            "or (x, y, sample_weight)."
        )
    return integer_labels(y)


def _mask(features: Any) -> Any:
    return getattr(features, "_keras_mask", None)  # where Keras keeps it


def _replicas() -> int:
    return tf.distribute.get_strategy().num_replicas_in_sync
