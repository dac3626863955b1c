"""`SampledSoftmaxModel`: trains on the sampled loss, is evaluated on the exact one."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfsampled._core import validation
from tfsampled._core.full_softmax.api import validate_k
from tfsampled._core.labels import Labels
from tfsampled._core.xla import tracing_for_xla
from tfsampled.layers import SampledSoftmax
from tfsampled.metrics import ExactMetric
from tfsampled.models import _encoder_inputs as encoder_inputs
from tfsampled.models._fit_arguments import (
    added_callback,
    class_weights,
    first_labels,
    set_monitor_modes,
    unwrap_labels,
    validate_metrics,
)
from tfsampled.models._label_check import LabelCheck, PeriodicCheck
from tfsampled.optimizers import LossScaleOptimizer
from tfsampled.samplers import LogUniform


@keras.saving.register_keras_serializable(package="tfsampled")
class SampledSoftmaxModel(keras.Model):
    """A classifier that trains on the sampled loss and is evaluated on the exact one.

    `fit(x, y)` takes integer labels and minimizes `head.sampled_loss` of the encoder's
    features. `evaluate(x, y)` and `validation_data` report the exact cross entropy;
    `predict(x)` gives the logits of all classes, or the `top_k` best. Neither training
    nor evaluation makes a tensor of all the logits. The model has its own loss:
    `compile(optimizer=...)` is called without one. Metrics are those of
    `tfsampled.metrics`, computed in evaluation and validation.

    There are two ways to make one. Pass the layers before the head as `encoder`. Or, in
    an ordinary functional or Sequential model, replace its last Dense by a
    `SampledSoftmax` and wrap it: `SampledSoftmaxModel.from_model(model)` shares its
    layers, and the wrapped model still gives the logits.

    A mask of the features (Keras's, from `mask_zero`) and the head's `ignore_class`
    leave padding out of the loss and of every mean.

    A training step validates its labels before it changes anything. If one is out of
    range, or one that the sampler never draws, weights, slots and sampler state stay as
    they are, and the step raises. With several steps per execution those before it have
    changed them. A step compiled by XLA cannot raise: it skips the batch, and `fit`,
    `train_on_batch`, `evaluate` or `test_on_batch` raise later. Which labels a mask
    leaves out is known only after the encoder was called: with a mask, and without XLA,
    the encoder's own state (moving averages, seeds) has moved by the time of the error.

    Args:
        encoder: A layer or model that makes the features, `[batch, dim]` or
            `[batch, time, dim]`, from `x`.
        head: The `tfsampled.layers.SampledSoftmax` over the classes.
        top_k: None for logits `[..., num_classes]`; an int for a dict of `classes`
            (`[..., top_k]`, int32, best first) and `scores` (their logits).
        **kwargs: Arguments of `keras.Model`, such as `name`.

    Raises:
        ValueError: If `head` is not a `SampledSoftmax`, or `top_k` exceeds its classes.

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
                "`head` must be a tfsampled.layers.SampledSoftmax. "
                f"Received: head={head!r}."
            )
        self.encoder = encoder
        self.head = head
        self.top_k = None if top_k is None else validate_k(top_k, head.num_classes)
        self.supports_masking = True
        self._loss_mean = keras.metrics.Mean(name="loss")
        self._label_check = LabelCheck(head)
        self._has_mask: bool | None = None  # unknown before the encoder is called
        # In an object of its own, whose attributes Keras does not track.
        self._step = _StepState()
        inputs = encoder_inputs.functional_inputs(encoder)
        if inputs is not None:  # the shapes are known
            self(encoder_inputs.keras_tensors_like(inputs))

    @classmethod
    def from_model(
        cls, model: keras.Model, top_k: int | None = None, **kwargs: Any
    ) -> SampledSoftmaxModel:
        """Wraps a functional or Sequential model that ends in a `SampledSoftmax`.

        Layers and weights are shared: training one trains the other.

        Args:
            model: A built model whose only output is that of a `SampledSoftmax`.
            top_k: As in the constructor.
            **kwargs: Arguments of `keras.Model`.

        Raises:
            ValueError: If the model does not end in a `SampledSoftmax`.

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
        outputs = getattr(model, "outputs", None) or []
        if (
            not isinstance(head, SampledSoftmax)
            or len(outputs) != 1
            or head.output is not outputs[0]
        ):
            raise ValueError(
                "`model` must be a functional or Sequential model (with its Input) "
                "whose only output is that of a tfsampled.layers.SampledSoftmax. "
                f"Received: {getattr(model, 'name', model)!r} with the last layer "
                f"{head!r}."
            )
        inputs = encoder_inputs.functional_inputs(model)
        encoder = keras.Model(inputs, head.input, name=f"{model.name}_encoder")
        return cls(encoder, head, top_k=top_k, **kwargs)

    def __call__(self, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """Calls the model; the first call builds it for inputs like these."""
        if not self.built and encoder_inputs.are_tensors(inputs):
            # `build` receives shapes alone, and an encoder may need the dtypes.
            self._build_parts(encoder_inputs.keras_tensors_like(inputs))
        return super().__call__(inputs, *args, **kwargs)

    def build(self, input_shape: Any) -> None:
        """Builds the encoder for floating inputs of `input_shape`, then the head."""
        if not (self.encoder.built and self.head.built):
            self._build_parts(encoder_inputs.float_inputs(input_shape))
        self.built = True

    def call(self, inputs: Any, training: bool = False) -> Any:
        """Computes the logits of all classes, or a dict of the `top_k` best."""
        features = self._features(inputs, training)
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
        """Configures the model for training, as `keras.Model.compile` without a loss.

        Args:
            optimizer: Any Keras optimizer, or its name. Under the policy
                "mixed_float16" it is wrapped in
                `tfsampled.optimizers.LossScaleOptimizer`.
            loss: Must be None: the head has the loss.
            loss_weights: Must be None.
            metrics: Metrics of `tfsampled.metrics`, for evaluation and validation.
            weighted_metrics: The same, weighted by sample and class weights. As in
                Keras, one whose name is in `metrics` is reported as `weighted_{name}`.
            **kwargs: Other arguments of `keras.Model.compile`, such as `jit_compile`.

        Raises:
            ValueError: If a loss is given, or a metric that needs all the logits.
        """
        for name, value in {"loss": loss, "loss_weights": loss_weights}.items():
            if value is not None:
                raise ValueError(
                    f"`{name}` must be None: the model trains on the head's sampled "
                    f"loss and evaluates its exact loss. Received: {name}={value!r}."
                )
        plain = validate_metrics(metrics, "metrics")
        weighted = validate_metrics(weighted_metrics, "weighted_metrics")
        if shared := [metric.name for metric in weighted if metric in plain]:
            raise ValueError(
                "`metrics` and `weighted_metrics` must not share a metric object. "
                f"Received: {shared[0]!r} in both."
            )
        self._step.metrics = plain
        self._step.weighted_metrics = weighted
        scales_loss = kwargs.get("auto_scale_loss", True)
        if scales_loss and self.dtype_policy.name == "mixed_float16":
            optimizer = keras.optimizers.get(optimizer)
            if not isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
                # Keras's own would make gradients as large as the tables.
                optimizer = LossScaleOptimizer(optimizer)
        super().compile(optimizer=optimizer, **kwargs)

    def get_compile_config(self) -> dict[str, Any] | None:
        """Returns the arguments of `compile`, metrics included."""
        config = super().get_compile_config()
        if not config:
            return config
        serialize = keras.saving.serialize_keras_object
        return {
            **config,
            "metrics": [serialize(metric) for metric in self._step.metrics],
            "weighted_metrics": [
                serialize(metric) for metric in self._step.weighted_metrics
            ],
        }

    def compile_from_config(self, config: dict[str, Any]) -> None:
        """Compiles a loaded model as the saved one was compiled."""
        self.compile(**keras.saving.deserialize_keras_object(config))
        if self.built:
            self.optimizer.build(self.trainable_variables)

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        """The loss, then the metrics; training updates the loss alone."""
        return list(self._named_metrics().values())

    @property
    def metrics_names(self) -> list[str]:
        """The names of `metrics`, in the same order."""
        return list(self._named_metrics())

    def get_metrics_result(self) -> dict[str, Any]:
        """Returns the current value of each metric."""
        named = self._named_metrics()
        return {name: metric.result() for name, metric in named.items()}

    def fit(
        self,
        x: Any = None,
        y: Any = None,
        batch_size: int | None = None,
        epochs: int = 1,
        verbose: Any = "auto",
        callbacks: Any = None,
        validation_split: float = 0.0,
        validation_data: Any = None,
        shuffle: bool = True,
        class_weight: Mapping[int, float] | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        """Trains the model, as `keras.Model.fit`, on labels that are class ids.

        Warns if an array of labels does not suit a `LogUniform` sampler. `class_weight`
        weighs each label: each time step by itself, and several labels of an example by
        the mean of their weights.

        Raises:
            tf.errors.InvalidArgumentError: If a label is out of range, or one that the
                sampler never draws. The batch changes nothing. Under `jit_compile` the
                error is raised some steps later, at the end of the epoch at the latest.
        """
        if isinstance(self.head.sampler, LogUniform):
            labels = first_labels(y)
            if labels is not None:
                self.head.sampler.warn_if_unordered(
                    labels, self.head.num_classes, labels != self.head.ignore_class
                )
        check = PeriodicCheck(self._raise_if_invalid)
        set_monitor_modes(callbacks, self._named_metrics())
        with self._fitting(class_weight), added_callback(callbacks, check) as added:
            return super().fit(
                x,
                y,
                batch_size,
                epochs,
                verbose,
                added,
                validation_split,
                validation_data,
                shuffle,
                None,
                *args,
                **kwargs,
            )

    def train_on_batch(
        self,
        x: Any,
        y: Any = None,
        sample_weight: Any = None,
        class_weight: Mapping[int, float] | None = None,
        return_dict: bool = False,
    ) -> Any:
        """Trains on one batch; errors and `class_weight` as in `fit`."""
        with self._fitting(class_weight):
            logs = super().train_on_batch(
                x, y, sample_weight=sample_weight, return_dict=return_dict
            )
        self._raise_if_invalid()
        return logs

    def evaluate(
        self,
        x: Any = None,
        y: Any = None,
        batch_size: int | None = None,
        verbose: Any = "auto",
        sample_weight: Any = None,
        steps: int | None = None,
        callbacks: Any = None,
        return_dict: bool = False,
        **kwargs: Any,
    ) -> Any:
        """Evaluates the exact loss and the metrics, as `keras.Model.evaluate`."""
        with self._retrace_after_error():
            logs = super().evaluate(
                x,
                y,
                batch_size,
                verbose,
                sample_weight,
                steps,
                callbacks,
                return_dict=True,
                **kwargs,
            )
        self._raise_if_invalid()
        # Keras 3.10 leaves tensors.
        logs = {name: np.asarray(value).tolist() for name, value in logs.items()}
        return logs if return_dict else _values(logs)

    def test_on_batch(
        self,
        x: Any,
        y: Any = None,
        sample_weight: Any = None,
        return_dict: bool = False,
    ) -> Any:
        """Evaluates one batch, as `keras.Model.test_on_batch`."""
        with self._retrace_after_error():
            logs = super().test_on_batch(x, y, sample_weight, return_dict=True)
        self._raise_if_invalid()
        return logs if return_dict else _values(logs)

    def train_step(self, data: Any) -> dict[str, Any]:
        """Trains on one batch: the sampled loss and an optimizer step."""
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        y = unwrap_labels(y)
        if self._step.class_weights is not None:
            sample_weight = self._class_sample_weight(y, sample_weight)
        self._build_for(x)
        if not tracing_for_xla():
            # With a mask, the labels are validated once the encoder has made it.
            assertions = []
            if self._has_mask is False:
                ids, is_label = self._ids_and_mask(y)
                assertions = validation.assert_all(
                    self.head._label_checks(ids, is_label, sampled=True)
                )
            with tf.control_dependencies(assertions):
                self._train(x, y, sample_weight, validated=self._has_mask is False)
        else:
            if _num_replicas() > 1:
                raise ValueError(
                    "`jit_compile` must be False with several replicas: a compiled "
                    "step cannot refuse labels there. "
                    f"Received: {_num_replicas()} replicas."
                )
            targets = self._targets_before_training(x, y)
            # XLA updates tables in place in a branch too.
            tf.cond(
                self._label_check.record(targets, training=True),
                lambda: self._train(x, y, sample_weight, validated=True),
                lambda: None,
            )
        return {"loss": self._loss_mean.result()}

    def test_step(self, data: Any) -> dict[str, Any]:
        """Evaluates one batch: the exact loss and the metrics."""
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        y = unwrap_labels(y)
        self._build_for(x)
        features = self._features(x, training=False)
        targets = self.head._parse(y, features.shape[:-1], _mask(features))
        if tracing_for_xla():
            self._label_check.record(targets, training=False)
        targets = self.head._validated(targets, sampled=False)
        loss = self._loss_of(x, y, features, sample_weight, targets, training=False)
        self._update_loss_mean(loss, features, targets)
        mask = _mask(features)
        for metric in self._step.metrics:
            metric.update_state_from_features(self.head, features, y, mask=mask)
        for metric in self._step.weighted_metrics:
            metric.update_state_from_features(
                self.head, features, y, sample_weight, mask
            )
        return self.get_metrics_result()

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> tf.Tensor:
        """Computes the mean loss, sampled in training, plus regularization losses.

        Args:
            x: Not used.
            y: Integer labels, as in `SampledSoftmax.sampled_loss`.
            y_pred: The encoder's features.
            sample_weight: Weights of the examples.
            training: Whether to compute the sampled loss, or else the exact one.

        Returns:
            A scalar: the sum of the weighted losses over the number of examples. As in
            Keras's losses, padding does not count. Under a distribution strategy it is
            divided by the number of replicas, whose gradients the optimizer sums.

        Raises:
            ValueError: If there are no labels, or they do not fit the features.
        """
        del x
        y = unwrap_labels(y)
        targets = self._step.targets
        if targets is None or self._step.labels is not y:
            targets = self.head._parse(y, y_pred.shape[:-1], _mask(y_pred))
            targets = self.head._validated(targets, sampled=training)
        losses = self.head._compute_losses(
            y_pred, targets, sample_weight, sampled=training
        )
        count = tf.cast(_num_examples(y_pred, targets), losses.dtype)
        loss = tf.math.divide_no_nan(tf.reduce_sum(losses), count)
        loss = tf.add_n([loss, *(tf.cast(extra, loss.dtype) for extra in self.losses)])
        return loss / _num_replicas()

    def export(
        self,
        filepath: Any,
        format: str = "tf_saved_model",
        verbose: bool | None = None,
        input_signature: Any = None,
        **kwargs: Any,
    ) -> Any:
        """Exports what `predict` computes, as `keras.Model.export`.

        If the encoder is a functional or Sequential model, the exported function takes
        its inputs, with their dtypes; several in a dict or list. For other encoders
        Keras takes every input to be floating: pass `input_signature`.
        """
        inputs = encoder_inputs.functional_inputs(self.encoder)
        if input_signature is None and inputs is not None:
            input_signature = encoder_inputs.serving_signature(inputs)
        return super().export(filepath, format, verbose, input_signature, **kwargs)

    def get_config(self) -> dict[str, Any]:
        """Returns the serialized encoder and head, and `top_k`."""
        embeddings = encoder_inputs.embeddings(self.encoder)
        tied = [i for i, layer in enumerate(embeddings) if layer is self.head.tied_to]
        return {
            **super().get_config(),
            "encoder": keras.saving.serialize_keras_object(self.encoder),
            "head": keras.saving.serialize_keras_object(self.head),
            "top_k": self.top_k,
            "tied_embedding": tied[0] if tied else None,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> SampledSoftmaxModel:
        """Makes a model from its config, without weights."""
        config = dict(config)
        encoder = keras.saving.deserialize_keras_object(config.pop("encoder"))
        head = config.pop("head")
        embedding = _find_tied(encoder, head, config.pop("tied_embedding", None))
        if embedding is not None:  # the encoder's own, not a copy of it
            head = {**head, "config": {**head["config"], "tied_to": embedding}}
        head = keras.saving.deserialize_keras_object(head)
        return cls(encoder=encoder, head=head, **config)

    def _build_parts(self, inputs: Any) -> None:
        # A subclassed encoder shows its features only when it is called.
        features = self.encoder(encoder_inputs.match_input_order(self.encoder, inputs))
        self._has_mask = _mask(features) is not None
        if not self.head.built:
            self.head.build(features.shape)

    def _build_for(self, x: Any) -> None:
        """Makes all state of a step, before the step is traced."""
        with tf.init_scope():
            if not self.built:  # a symbolic call makes no logits
                self(encoder_inputs.keras_tensors_like(x))
            elif self._has_mask is None:
                self._build_parts(encoder_inputs.keras_tensors_like(x))
            if self.optimizer is not None and not self.optimizer.built:
                self.optimizer.build(self.trainable_variables)

    def _features(self, x: Any, training: bool) -> tf.Tensor:
        x = encoder_inputs.match_input_order(self.encoder, x)
        features = self.encoder(x, training=training)
        self._has_mask = _mask(features) is not None
        return features

    def _ids_and_mask(self, y: Any) -> tuple[tf.Tensor, tf.Tensor | None]:
        """Returns label ids of any shape, 0 for padding, and which are labels."""
        y = y.flat_values if isinstance(y, tf.RaggedTensor) else y
        ids = tf.cast(y, tf.int64)
        if self.head.ignore_class is None:
            return ids, None
        is_label = ids != self.head.ignore_class
        return tf.where(is_label, ids, 0), is_label

    def _targets_before_training(self, x: Any, y: Any) -> Labels:
        """Returns the labels of a batch before its training step.

        If the encoder makes a mask, it is called for it; what else it computes is not
        used, and XLA removes it.
        """
        if not self._has_mask:
            ids, is_label = self._ids_and_mask(y)
            return Labels(ids, is_label, None)
        x = encoder_inputs.match_input_order(self.encoder, x)
        with keras.StatelessScope():
            mask = _mask(self.encoder(x, training=False))
        return self.head._parse(y, mask.shape, mask)

    def _train(self, x: Any, y: Any, sample_weight: Any, validated: bool) -> None:
        weights = self.trainable_weights
        with tf.GradientTape() as tape:
            features = self._features(x, training=True)
            targets = self.head._parse(y, features.shape[:-1], _mask(features))
            if not validated:
                targets = self.head._validated(targets, sampled=True)
            loss = self._loss_of(x, y, features, sample_weight, targets, training=True)
            scaled = self.optimizer.scale_loss(loss)
        if weights:
            gradients = tape.gradient(scaled, weights)
            with tf.control_dependencies([loss]):  # the count of steps waits for it
                self.optimizer.apply_gradients(zip(gradients, weights, strict=True))
        else:
            warnings.warn(
                "The model has no trainable weights: nothing is trained.", stacklevel=2
            )
        self._update_loss_mean(loss, features, targets)

    def _loss_of(
        self,
        x: Any,
        y: Any,
        features: tf.Tensor,
        sample_weight: Any,
        targets: Labels,
        training: bool,
    ) -> tf.Tensor:
        """Calls `compute_loss`, which a subclass may override, on valid labels."""
        self._step.labels, self._step.targets = y, targets
        try:
            return self.compute_loss(x, y, features, sample_weight, training=training)
        finally:
            self._step.labels = self._step.targets = None

    def _update_loss_mean(
        self, loss: tf.Tensor, features: tf.Tensor, targets: Labels
    ) -> None:
        """Adds a batch to the reported mean, weighted by its number of examples."""
        self._loss_mean.update_state(
            loss * _num_replicas(), sample_weight=_num_examples(features, targets)
        )

    def _named_metrics(self) -> dict[str, keras.metrics.Metric]:
        named = {"loss": self._loss_mean}
        named.update((m.name, m) for m in super().metrics if m.name != "loss")
        named.update((metric.name, metric) for metric in self._step.metrics)
        for metric in self._step.weighted_metrics:
            prefix = "weighted_" if metric.name in named else ""
            named[prefix + metric.name] = metric
        return named

    def _class_sample_weight(self, y: Any, sample_weight: Any) -> tf.Tensor:
        """Returns the weight of each label; with several, the mean of an example's."""
        if sample_weight is not None:
            raise ValueError(
                "`class_weight` and `sample_weight` must not both be given: multiply "
                "the sample weights by those of their classes."
            )
        ids, is_label = self._ids_and_mask(y)
        values: Any = self._step.class_weights
        weights = tf.constant(values)
        last = len(values) - 1  # the classes after it have weight 1
        weights = tf.gather(weights, tf.clip_by_value(ids, 0, last))
        if self.head.num_true == 1:
            return weights
        if is_label is None:
            return tf.reduce_mean(weights, axis=-1)
        is_label = tf.cast(is_label, weights.dtype)
        return tf.math.divide_no_nan(
            tf.reduce_sum(weights * is_label, axis=-1), tf.reduce_sum(is_label, axis=-1)
        )

    @contextlib.contextmanager
    def _fitting(self, class_weight: Mapping[int, float] | None) -> Iterator[None]:
        """Trains with class weights, which are constants of the traced step."""
        if class_weight is not None:
            self._step.class_weights = class_weights(
                class_weight, self.head.num_classes
            )
            self.train_function = None
        try:
            with self._retrace_after_error():
                yield
        finally:
            if class_weight is not None:
                self._step.class_weights = self.train_function = None

    @contextlib.contextmanager
    def _retrace_after_error(self) -> Iterator[None]:
        """Drops the traced steps after an error.

        Otherwise TensorFlow generalizes over the shapes that were refused, and traces
        the next labels, whose shape is right, as of unknown shape.
        """
        try:
            yield
        except ValueError:
            self.train_function = self.test_function = None
            raise

    def _raise_if_invalid(self) -> None:
        if self.jit_compile:
            self._label_check.raise_if_invalid()


class _StepState:
    """What the traced steps of a model read.

    Attributes:
        metrics: The `metrics` of `compile`.
        weighted_metrics: The `weighted_metrics` of `compile`.
        class_weights: See `_class_weights`; None for equal weights.
        labels: The labels of a step that has validated them.
        targets: The same, parsed.
    """

    def __init__(self) -> None:
        self.metrics: list[ExactMetric] = []
        self.weighted_metrics: list[ExactMetric] = []
        self.class_weights: np.ndarray | None = None
        self.labels: Any = None
        self.targets: Labels | None = None


def _find_tied(
    encoder: Any, head: dict[str, Any], index: int | None
) -> keras.layers.Embedding | None:
    """Returns the encoder's Embedding that the saved head was tied to, or None.

    Args:
        encoder: The loaded encoder.
        head: The config of the head.
        index: Its position among the encoder's; None in files of version 0.1.0, which
            find it by its name.

    Raises:
        ValueError: If it cannot be told.
    """
    tied_to = head["config"].get("tied_to")
    if tied_to is None:
        return None
    name = tied_to["config"]["name"]
    embeddings = encoder_inputs.embeddings(encoder)
    if index is not None:
        if index < len(embeddings) and embeddings[index].name == name:
            return embeddings[index]
        raise ValueError(
            f"The head was tied to the Embedding {name!r} of the encoder, but the "
            f"loaded encoder has {[layer.name for layer in embeddings]}. Make the "
            "encoder from its config with the same layers."
        )
    matches = [layer for layer in embeddings if layer.name == name]
    if len(matches) > 1:
        raise ValueError(
            f"The head was tied to the Embedding {name!r}, but the encoder has "
            f"{len(matches)} of that name. Save the model again with this version."
        )
    return matches[0] if matches else None


def _num_examples(features: tf.Tensor, targets: Labels) -> tf.Tensor:
    """Counts the examples that have a label, in float32."""
    if targets.example_mask is not None:
        return tf.reduce_sum(tf.cast(targets.example_mask, tf.float32))
    return tf.cast(tf.reduce_prod(tf.shape(features)[:-1]), tf.float32)


def _values(logs: dict[str, Any]) -> Any:
    """Returns the values alone, as Keras does."""
    values = list(logs.values())
    return values[0] if len(values) == 1 else values


def _mask(features: Any) -> Any:
    return getattr(features, "_keras_mask", None)  # where Keras keeps it


def _num_replicas() -> int:
    return tf.distribute.get_strategy().num_replicas_in_sync
