"""Keras models whose `fit` trains on a sampled loss."""

from __future__ import annotations

import types
from typing import Any

import keras
import tensorflow as tf

from tfsampled._core import checks
from tfsampled.layers import SampledSoftmax
from tfsampled.metrics import ExactMetric
from tfsampled.samplers import LogUniform


@keras.saving.register_keras_serializable(package="tfsampled")
class SampledSoftmaxModel(keras.Model):
    """A classifier that trains on the sampled loss and is evaluated on the exact one.

    `fit(x, y)` takes ordinary integer labels and minimizes `head.sampled_loss` of the
    encoder's features; `evaluate(x, y)` and `validation_data` report the exact cross
    entropy; `predict(x)` gives the logits of all the classes, or the `top_k` best.
    Neither training nor evaluation makes a tensor of all the logits. The loss is the
    model's own: `compile(optimizer=...)` is called without one. Metrics are those of
    `tfsampled.metrics`, computed in evaluation and validation.

    Which to take: with the layers of a model at hand, pass the ones before the head as
    `encoder`. With an ordinary functional or Sequential model, put a `SampledSoftmax`
    in the place of its last Dense and wrap it: `SampledSoftmaxModel.from_model(model)`
    shares its layers, and the wrapped model goes on giving the logits. A loss object
    alone cannot do it: Keras hands a loss the model's outputs, and outputs that a
    sampled loss can start from are not the logits that `predict` should give.

    A labels' or features' mask (Keras's, from `mask_zero`) and the head's
    `ignore_class` leave padding out of the loss and of every mean.

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
        self._loss_mean = keras.metrics.Mean(name="loss")
        # In a namespace, where Keras does not take them for state of the layer.
        self._evaluated = types.SimpleNamespace(metrics=[], weighted_metrics=[])
        if inputs := getattr(encoder, "inputs", None):  # its shapes are known
            symbols = [_symbol(one) for one in inputs]
            self(symbols if len(symbols) > 1 else symbols[0])

    @classmethod
    def from_model(
        cls, model: keras.Model, top_k: int | None = None, **kwargs: Any
    ) -> SampledSoftmaxModel:
        """Wraps a functional or Sequential model that ends in a `SampledSoftmax`.

        Layers and weights are shared: what this model learns, `model` has learnt.

        Args:
            model: A built model whose only output is a `SampledSoftmax`'s.
            top_k: As in the constructor.
            **kwargs: Arguments of `keras.Model`.

        Raises:
            ValueError: The model does not end in a `SampledSoftmax`.

        Example:
            >>> import keras
            >>> inputs = keras.Input((8,))
            >>> features = keras.layers.Dense(16, "relu")(inputs)
            >>> logits = SampledSoftmax(num_classes=1000, num_sampled=50)(features)
            >>> plain = keras.Model(inputs, logits)  # was: Dense(1000)
            >>> model = SampledSoftmaxModel.from_model(plain)
            >>> model.compile(optimizer="adam")
        """
        layers = getattr(model, "layers", [])
        head = layers[-1] if layers else None
        outputs = getattr(model, "outputs", None)
        if (
            not isinstance(head, SampledSoftmax)
            or not outputs
            or len(outputs) != 1
            or head.output is not outputs[0]
        ):
            raise ValueError(
                f"the last layer of {getattr(model, 'name', model)!r} is {head!r}; "
                "from_model wraps a functional or Sequential model (with its Input) "
                "whose only output is that of a tfsampled.layers.SampledSoftmax."
            )
        encoder = keras.Model(model.inputs, head.input, name=f"{model.name}_encoder")
        return cls(encoder, head, top_k=top_k, **kwargs)

    def build(self, input_shape: Any) -> None:
        """Builds the encoder for inputs of `input_shape`, then the head."""
        if not self.encoder.built and _is_one_shape(input_shape):
            # A subclassed encoder says what it makes only when it is called.
            shape = self.encoder(keras.KerasTensor(input_shape)).shape
        else:
            if not self.encoder.built:
                self.encoder.build(input_shape)
            shape = self.encoder.compute_output_shape(input_shape)
        if not self.head.built:
            self.head.build(shape)
        self.built = True

    def call(self, inputs: Any, training: bool = False) -> Any:
        """The logits of all the classes, or a dict of the `top_k` best."""
        features = self.encoder(inputs, training=training)
        if self.top_k is None:
            return self.head(features)
        scores, classes = self.head.top_k(features, self.top_k)
        return {"classes": classes, "scores": scores}

    def compile(
        self,
        optimizer: Any = "rmsprop",
        loss: None = None,
        loss_weights: None = None,
        metrics: list[ExactMetric] | None = None,
        weighted_metrics: list[ExactMetric] | None = None,
        **kwargs: Any,
    ) -> None:
        """Sets the optimizer, and what else `keras.Model.compile` sets, but no loss.

        Args:
            optimizer: Any Keras optimizer, or its name.
            loss: Must be None: the head has the loss.
            loss_weights: Must be None.
            metrics: Metrics of `tfsampled.metrics`, for evaluation and validation.
            weighted_metrics: The same, but they heed sample and class weights.
            **kwargs: Other arguments of `keras.Model.compile`, such as `jit_compile`.

        Raises:
            ValueError: A loss was given, or a metric that wants all the logits.
        """
        for name, value in {"loss": loss, "loss_weights": loss_weights}.items():
            if value is not None:
                raise ValueError(
                    f"compile got {name}={value!r}; a SampledSoftmaxModel trains on "
                    "the head's sampled loss and evaluates its exact loss, and takes "
                    f"no other: leave {name} out."
                )
        self._evaluated.metrics = _checked(metrics, "metrics")
        self._evaluated.weighted_metrics = _checked(
            weighted_metrics, "weighted_metrics"
        )
        super().compile(optimizer=optimizer, **kwargs)

    def get_compile_config(self) -> dict[str, Any] | None:
        """What `compile_from_config` needs, the metrics among it."""
        config = super().get_compile_config()
        if config:
            for name, metrics in vars(self._evaluated).items():
                config[name] = [
                    keras.saving.serialize_keras_object(metric) for metric in metrics
                ]
        return config

    def compile_from_config(self, config: dict[str, Any]) -> None:
        """Compiles a loaded model as the saved one was compiled."""
        self.compile(**keras.saving.deserialize_keras_object(config))
        if self.built:
            self.optimizer.build(self.trainable_variables)

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        """The loss, then the metrics; training updates the loss alone."""
        others = [one for one in super().metrics if one.name != "loss"]
        evaluated = [one for kind in vars(self._evaluated).values() for one in kind]
        return [self._loss_mean, *others, *evaluated]

    def fit(
        self,
        x: Any = None,
        y: Any = None,
        batch_size: int | None = None,
        epochs: int = 1,
        verbose: Any = "auto",
        callbacks: Any = None,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        """As `keras.Model.fit`; warns where labels do not suit a `LogUniform`."""
        if isinstance(self.head.sampler, LogUniform):
            watching = _OrderOfLabels(self.head.sampler)
            if isinstance(callbacks, keras.callbacks.CallbackList):
                callbacks.append(watching)
            else:
                callbacks = [*tf.nest.flatten(callbacks or []), watching]
        return super().fit(
            x, y, batch_size, epochs, verbose, callbacks, *args, **kwargs
        )

    def export(self, filepath: Any, *args: Any, **kwargs: Any) -> Any:
        """As `keras.Model.export`: serves what `predict` gives.

        Where the encoder is a functional or Sequential model of one input, its dtype is
        the served one's: Keras itself takes every subclassed model's for floats.
        """
        inputs = getattr(self.encoder, "inputs", None) or []
        if "input_signature" not in kwargs and len(inputs) == 1:
            (one,) = inputs
            shape = [None, *one.shape[1:]]  # one that was built by data has its batch
            kwargs["input_signature"] = [tf.TensorSpec(shape, one.dtype)]
        return super().export(filepath, *args, **kwargs)

    def train_step(self, data: Any) -> dict[str, Any]:
        """One batch of `fit`: the sampled loss, and a step of the optimizer."""
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        with tf.GradientTape() as tape:
            features = self._features(x, training=True)
            loss = self.compute_loss(x, y, features, sample_weight, training=True)
            scaled = self.optimizer.scale_loss(loss)
        gradients = tape.gradient(scaled, self.trainable_weights)
        self.optimizer.apply_gradients(
            zip(gradients, self.trainable_weights, strict=True)
        )
        self._count_loss(loss, features, y)
        return {"loss": self._loss_mean.result()}

    def test_step(self, data: Any) -> dict[str, Any]:
        """One batch of `evaluate`: the exact loss and metrics, without logits."""
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        features = self._features(x, training=False)
        loss = self.compute_loss(x, y, features, sample_weight, training=False)
        self._count_loss(loss, features, y)
        mask = _mask(features)
        for metric in self._evaluated.metrics:
            metric.update_from_features(self.head, features, y, mask=mask)
        for metric in self._evaluated.weighted_metrics:
            metric.update_from_features(self.head, features, y, sample_weight, mask)
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
        if y is None:
            raise ValueError(
                "there are no labels: pass integer class ids as y, or a dataset of "
                "(x, y) or (x, y, sample_weight)."
            )
        loss_of = self.head.sampled_loss if training else self.head.exact_loss
        losses = loss_of(y_pred, y, sample_weight=sample_weight, mask=_mask(y_pred))
        count = tf.cast(self._count(y_pred, y), losses.dtype)
        loss = tf.math.divide_no_nan(tf.reduce_sum(losses), count)
        loss = tf.add_n([loss, *(tf.cast(extra, loss.dtype) for extra in self.losses)])
        return loss / tf.distribute.get_strategy().num_replicas_in_sync

    def _features(self, x: Any, training: bool) -> tf.Tensor:
        if not self.built:  # a symbolic call: no logits, and Keras knows the shapes
            with tf.init_scope():
                self(tf.nest.map_structure(_symbol, x))
        return self.encoder(x, training=training)

    def _count(self, features: tf.Tensor, labels: Any) -> tf.Tensor:
        """How many examples have a label, as float32."""
        kept = self.head.kept(features, labels, _mask(features))
        return tf.reduce_sum(tf.cast(kept, tf.float32))

    def _count_loss(self, loss: tf.Tensor, features: tf.Tensor, labels: Any) -> None:
        """Adds a batch to the mean that is reported, by its examples."""
        loss *= tf.distribute.get_strategy().num_replicas_in_sync
        self._loss_mean.update_state(loss, sample_weight=self._count(features, labels))

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
        encoder = keras.saving.deserialize_keras_object(config["encoder"])
        head = config["head"]
        tied = head["config"].get("tied_to")
        if tied is not None:  # one embedding again, not two of the same name
            for layer in _embeddings(encoder):
                if layer.name == tied["config"]["name"]:
                    head = {**head, "config": {**head["config"], "tied_to": layer}}
        head = keras.saving.deserialize_keras_object(head)
        return cls(**{**config, "encoder": encoder, "head": head})


class _OrderOfLabels(keras.callbacks.Callback):
    """Has a sampler look, now and then, at the labels that it has seen."""

    EVERY = 10  # batches: reading a variable waits for the step

    def __init__(self, sampler: LogUniform) -> None:
        super().__init__()
        self.sampler = sampler

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if batch % self.EVERY == self.EVERY - 1:
            self.sampler.warn_if_unordered()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.sampler.warn_if_unordered()


def _embeddings(layer: Any) -> list[keras.layers.Embedding]:
    """The Embedding layers inside a layer, in models and attributes."""
    if isinstance(layer, keras.layers.Embedding):
        return [layer]
    parts = tf.nest.flatten(
        getattr(layer, "layers", None) or list(vars(layer).values())
    )
    inner = [part for part in parts if isinstance(part, keras.layers.Layer)]
    return [found for part in inner for found in _embeddings(part)]


def _symbol(tensor: Any) -> keras.KerasTensor:
    return keras.KerasTensor(
        tensor.shape, keras.backend.standardize_dtype(tensor.dtype)
    )


def _mask(features: Any) -> Any:
    return getattr(features, "_keras_mask", None)  # where Keras keeps it


def _checked(metrics: Any, name: str) -> list[ExactMetric]:
    metrics = tf.nest.flatten(metrics) if metrics is not None else []
    for metric in metrics:
        if not isinstance(metric, ExactMetric):
            raise ValueError(
                f"compile got {name}={metrics!r}; Keras's metrics want the logits of "
                "all the classes in each step: pass metrics of tfsampled.metrics "
                f"(accuracy is TopKAccuracy(1)), or leave {name} out."
            )
    return metrics


def _is_one_shape(shape: Any) -> bool:
    """Whether `shape` is that of one input, and not a structure of several."""
    return isinstance(shape, (list, tuple)) and all(
        size is None or isinstance(size, int) for size in shape
    )
