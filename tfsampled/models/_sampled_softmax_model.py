"""`SampledSoftmaxModel`: trains on the sampled loss, is evaluated on the exact one."""

from __future__ import annotations

import contextlib
import operator
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfsampled._core import replicas, validation
from tfsampled._core.xla import tracing_for_xla
from tfsampled.layers import SampledSoftmax
from tfsampled.layers import _encoder_inputs as encoder_inputs
from tfsampled.models import _tied_embedding as tied_embedding
from tfsampled.models._distributed_model import DistributedModel, logs_of_step
from tfsampled.models._fit_arguments import (
    added_callback,
    set_monitor_modes,
    warn_if_unordered,
)
from tfsampled.models._label_check import PeriodicCheck
from tfsampled.models._outputs import Outputs
from tfsampled.models._split_model import split_model
from tfsampled.optimizers import LossScaleOptimizer


@keras.saving.register_keras_serializable(package="tfsampled")
class SampledSoftmaxModel(DistributedModel):
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

    A subclass may override `compute_loss`, and add layers, which must be built before
    `fit`. `call` computes predictions alone.

    A mask of the features (Keras's, from `mask_zero`) and the head's `ignore_class`
    leave padding out of the loss and of every mean.

    A training step validates its labels before it changes anything. If one is out of
    range, or one that the sampler never draws, weights, slots and sampler state stay as
    they are, and the step raises. With several steps per execution, the steps before it
    have been applied. A step compiled by XLA cannot raise: it skips the batch, and
    `fit`, `train_on_batch`, `evaluate` or `test_on_batch` raise later. Without XLA, the
    number of labels, and with a mask their ids, are validated after the encoder is
    called: its own state (moving averages, seeds) has then been updated.

    Args:
        encoder: A layer or model that makes the features, `[batch, dim]` or
            `[batch, time, dim]`, from `x`.
        head: The `tfsampled.layers.SampledSoftmax` over the classes. For several
            outputs a dict of them, by the names of the encoder's outputs. The encoder
            must then be a functional model whose output is a dict; its outputs without
            a head are passed through.
        top_k: None for logits `[..., num_classes]`; an int for a dict of `classes`
            (`[..., top_k]`, int32, best first) and `scores` (their logits). With
            several outputs also a dict by output; the names are then `{output}_classes`
            and `{output}_scores`.
        exclude: The name of an input of class ids `[batch, n]`, such as items already
            seen, -1 for none: they are left out of the `top_k` best and of the ranks of
            metrics. With several outputs also a dict by output.
        negatives: The name of an input of class ids `[n]` or `[batch, n]` that training
            compares with besides the sampled ones; see `SampledSoftmax.sampled_loss`.
            With several outputs also a dict by output. An input that is not one
            of the encoder's is not passed to it.
        **kwargs: Arguments of `keras.Model`, such as `name`.

    Raises:
        ValueError: If `head` is not a `SampledSoftmax`, or `top_k` exceeds its classes.

    Example:
        >>> import keras, numpy as np
        >>> from tfsampled.layers import SampledSoftmax
        >>> from tfsampled.models import SampledSoftmaxModel
        >>> from tfsampled.optimizers import LazyAdam
        >>> encoder = keras.Sequential([keras.layers.Dense(16, "relu")])
        >>> head = SampledSoftmax(num_classes=1000, num_sampled=50)
        >>> model = SampledSoftmaxModel(encoder, head, top_k=3)
        >>> model.compile(LazyAdam(1e-3))
        >>> x, y = np.ones((32, 8), "float32"), np.arange(32)
        >>> _ = model.fit(x, y, epochs=2, verbose=0)
        >>> model.predict(x, verbose=0)["classes"].shape
        (32, 3)
    """

    def __init__(
        self,
        encoder: keras.layers.Layer,
        head: SampledSoftmax | dict[str, SampledSoftmax],
        top_k: int | dict[str, int] | None = None,
        exclude: str | dict[str, str] | None = None,
        negatives: str | dict[str, str] | None = None,
        **kwargs: Any,
    ) -> None:
        # `predict` must not cast inputs: `fit` and `evaluate` do not.
        super().__init__(**{**kwargs, "autocast": False})
        if self.activity_regularizer is not None:
            raise ValueError(
                "`activity_regularizer` must be None: give it to a layer of the "
                "encoder. Received: "
                f"activity_regularizer={self.activity_regularizer!r}."
            )
        self._outputs = Outputs(encoder, head, top_k, exclude, negatives)
        self.encoder = encoder
        self.head: Any = head
        for name, value in head.items() if isinstance(head, dict) else ():
            # tf.train.Checkpoint does not look inside Keras's dicts.
            setattr(self, f"_head_{name}", value)
        self._class_weights: np.ndarray | None = None
        self.supports_masking = True
        self._loss_mean = keras.metrics.Mean(name="loss")
        self._has_mask: bool | None = None  # unknown before the encoder is called
        inputs = encoder_inputs.functional_inputs(encoder)
        if inputs is not None:
            inputs = encoder_inputs.keras_tensors_like(inputs)
            self(self._outputs.with_excluded(inputs))

    top_k = property(operator.attrgetter("_outputs.top_k"))
    exclude = property(operator.attrgetter("_outputs.exclude"))
    negatives = property(operator.attrgetter("_outputs.negatives"))

    @classmethod
    def from_model(
        cls,
        model: keras.Model,
        top_k: int | dict[str, int] | None = None,
        **kwargs: Any,
    ) -> SampledSoftmaxModel:
        """Wraps a functional or Sequential model that ends in a `SampledSoftmax`.

        Layers and weights are shared: training one model trains the other. With several
        outputs, each `SampledSoftmax` trains on its sampled loss, and each other output
        on its loss in `compile(loss={name: ...})`. The name of an output is its key in
        a dict of outputs, or the name of its layer.

        Args:
            model: A built model with one or more `SampledSoftmax` output layers.
            top_k: As in the constructor.
            **kwargs: Other arguments of the constructor.

        Raises:
            ValueError: If no output is that of a `SampledSoftmax`.

        Example:
            >>> import keras
            >>> inputs = keras.Input((8,))
            >>> features = keras.layers.Dense(16, "relu")(inputs)
            >>> logits = SampledSoftmax(num_classes=1000, num_sampled=50)(features)
            >>> plain = keras.Model(inputs, logits)  # was: Dense(1000)
            >>> model = SampledSoftmaxModel.from_model(plain)
            >>> model.compile(optimizer="adam")
        """
        encoder, head = split_model(model)
        return cls(encoder, head, top_k, **kwargs)

    def __setattr__(self, name: str, value: Any) -> None:
        """Refuses to replace the encoder or the head, which other parts hold too."""
        if name in ("encoder", "head") and getattr(self, name, value) is not value:
            raise AttributeError(
                f"`{name}` must not be replaced: make another SampledSoftmaxModel."
            )
        super().__setattr__(name, value)

    def __call__(self, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """Calls the model; the first call builds it for inputs like these."""
        if not self.built and encoder_inputs.are_tensors(inputs):
            # `build` receives shapes alone, and an encoder may need the dtypes.
            self._build_parts(encoder_inputs.keras_tensors_like(inputs))
        return super().__call__(inputs, *args, **kwargs)

    def build(self, input_shape: Any) -> None:
        """Builds the encoder for floating inputs of `input_shape`, then the head."""
        heads_built = all(head.built for head in self._outputs.heads.values())
        if not (self.encoder.built and heads_built):
            self._build_parts(encoder_inputs.float_inputs(input_shape))
        self.built = True

    def call(self, inputs: Any, training: bool = False) -> Any:
        """Computes the logits of all classes, or a dict of the `top_k` best."""
        return self._outputs.predict(self._features(inputs, training), inputs)

    def compile(
        self,
        optimizer: Any = "rmsprop",
        loss: Any = None,
        loss_weights: Any = None,
        metrics: Any = None,
        weighted_metrics: Any = None,
        **kwargs: Any,
    ) -> None:
        """Configures the model for training, as `keras.Model.compile` without a loss.

        With several outputs, each of the arguments `loss`, `loss_weights`, `metrics`
        and `weighted_metrics` is a dict by output, or a list with a value for each.

        Args:
            optimizer: Any Keras optimizer, or its name. Under the policy
                "mixed_float16" it is wrapped in
                `tfsampled.optimizers.LossScaleOptimizer`.
            loss: Must be None for an output of a head, which has the loss. For others
                as in Keras.
            loss_weights: Numbers that multiply the losses of several outputs.
            metrics: Metrics of `tfsampled.metrics`, for evaluation and validation; of
                outputs without a head those of Keras.
            weighted_metrics: The same, weighted by sample weights. As in Keras, one
                whose name is in `metrics` is reported as `weighted_{name}`.
            **kwargs: Other arguments of `keras.Model.compile`, such as `jit_compile`.

        Raises:
            ValueError: If a head is given a loss, or a metric that needs all the
                logits.
        """
        scales_loss = kwargs.get("auto_scale_loss", True)
        if scales_loss and self.dtype_policy.name == "mixed_float16":
            optimizer = keras.optimizers.get(optimizer)
            scales = isinstance(optimizer, keras.optimizers.LossScaleOptimizer)
            if optimizer is not None and not scales:
                # Keras's own would make gradients as large as the tables.
                optimizer = LossScaleOptimizer(optimizer)
        before = dict(vars(self._outputs))
        try:
            self._outputs.compile(loss, loss_weights, metrics, weighted_metrics)
            super().compile(optimizer=optimizer, **kwargs)
        except Exception:  # the traced steps have the metrics from before
            vars(self._outputs).update(before)
            raise

    def get_compile_config(self) -> dict[str, Any] | None:
        """Returns the arguments of `compile`, metrics included."""
        config = super().get_compile_config()
        if not config:
            return config
        arguments = self._outputs.compile_arguments
        return {**config, **keras.saving.serialize_keras_object(arguments)}

    def compile_from_config(self, config: dict[str, Any]) -> None:
        """Compiles a loaded model as the saved one was compiled."""
        self.compile(**keras.saving.deserialize_keras_object(config))
        self._build_optimizer()

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
        return _results_of(self._named_metrics())

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
        weights each example by the class of its label, or by the mean over its labels,
        and each time step separately.

        Raises:
            tf.errors.InvalidArgumentError: If a label is out of range, or one that the
                sampler never draws. The batch changes nothing. Under `jit_compile` the
                error is raised some steps later, at the end of the epoch at the latest.
        """
        warn_if_unordered(self._outputs.heads, y)
        check = PeriodicCheck(self._raise_if_invalid)
        set_monitor_modes(callbacks, self._named_metrics())
        with self._fitting(class_weight), added_callback(callbacks, check) as added:
            arguments = x, y, batch_size, epochs, verbose, added, validation_split
            # The class weights are in the traced step.
            return super().fit(
                *arguments, validation_data, shuffle, None, *args, **kwargs
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
        if class_weight is not None:
            y = self._outputs.targets(y)
            weights = self._outputs.class_weights(class_weight)
            sample_weight = self._outputs.sample_weight(y, sample_weight, weights)
        with self._fitting():
            logs = super().train_on_batch(x, y, sample_weight, None, return_dict)
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
        with self._retrace_after_error(), self._outputs.encoding(callbacks) as added:
            arguments = x, y, batch_size, verbose, sample_weight, steps, added
            logs = super().evaluate(*arguments, return_dict=True, **kwargs)
        return self._results(logs, return_dict)

    def test_on_batch(
        self,
        x: Any,
        y: Any = None,
        sample_weight: Any = None,
        return_dict: bool = False,
    ) -> Any:
        """Evaluates one batch, as `keras.Model.test_on_batch`."""
        with self._retrace_after_error(), self._outputs.reused_classes():
            logs = super().test_on_batch(x, y, sample_weight, return_dict=True)
        return self._results(logs, return_dict)

    def predict(
        self,
        x: Any,
        batch_size: int | None = None,
        verbose: Any = "auto",
        steps: int | None = None,
        callbacks: Any = None,
    ) -> Any:
        """Predicts logits or best classes, as `keras.Model.predict`."""
        with self._outputs.encoding(callbacks) as added:
            return super().predict(x, batch_size, verbose, steps, added)

    def predict_on_batch(self, x: Any) -> Any:
        """Predicts for one batch, as `keras.Model.predict_on_batch`."""
        with self._outputs.reused_classes():
            return super().predict_on_batch(x)

    @tf.autograph.experimental.do_not_convert
    def train_step(self, data: Any) -> dict[str, Any]:
        """Trains on one batch: the sampled loss and an optimizer step."""
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        y = self._outputs.targets(y)
        weights = self._outputs.sample_weight(y, sample_weight, self._class_weights)
        self._build_for(x, y)
        self._clear_losses()  # Keras does so where it calls the model
        with tf.init_scope():
            self._build_optimizer()
        if tracing_for_xla():
            self._refuse_compiled_replicas()
            # XLA updates tables in place in a branch too.
            tf.cond(
                self._outputs.record(x, y, self._masks_before_training(x), True),
                lambda: self._train(x, y, weights, validated=True),
                lambda: None,
            )
        else:
            checks = self._outputs.class_list_checks(x, "negatives")
            if self._has_mask is False:
                checks += self._outputs.label_checks(y)
            # With a mask, the labels are validated once the encoder has made it.
            assertions = replicas.all_finished(validation.assert_all(checks))
            with tf.control_dependencies(assertions):
                self._train(x, y, weights, validated=self._has_mask is False)
        named, evaluated = self._named_metrics(), self._outputs.evaluated_metrics()
        trained = {name: named[name] for name in named if name not in evaluated}
        return logs_of_step(_results_of(trained))

    @tf.autograph.experimental.do_not_convert
    def test_step(self, data: Any) -> dict[str, Any]:
        """Evaluates one batch: the exact loss and the metrics."""
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        y = self._outputs.targets(y)
        self._build_for(x, y)
        self._clear_losses()
        sample_weight = self._outputs.sample_weight(y, sample_weight)
        features = self._features(x, training=False)
        checks = self._outputs.batch_checks(y, features, sample_weight)
        if tracing_for_xla():
            self._outputs.record(x, y, self._outputs.masks(features), False)
        else:
            checks += self._outputs.class_list_checks(x, "exclude")
        with tf.control_dependencies(validation.assert_all(checks)):
            loss = self.compute_loss(x, y, features, sample_weight, training=False)
            self._update_loss_mean(loss, y, features)
            self._outputs.update_metrics(x, y, features, sample_weight)
        return logs_of_step(self.get_metrics_result())

    @tf.autograph.experimental.do_not_convert
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
            x: The inputs, of which `negatives` names one.
            y: Integer labels, as in `SampledSoftmax.sampled_loss`; of several outputs
                a dict.
            y_pred: What the encoder computes.
            sample_weight: Weights of the examples.
            training: Whether to compute the sampled loss, or else the exact one.

        Returns:
            A scalar: the sum of the weighted losses over the number of examples. As in
            Keras's losses, padding does not count. Under a distribution strategy it is
            divided by the number of replicas, whose gradients the optimizer sums.

        Raises:
            ValueError: If there are no labels, or they do not fit the features.
        """
        y = self._outputs.targets(y)
        loss = self._outputs.compute_loss(x, y, y_pred, sample_weight, training)
        for extra in self.losses:
            loss += tf.reduce_sum(tf.cast(extra, loss.dtype))
        return loss / replicas.num_replicas()

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
        its inputs, with their dtypes; several in a dict or list. With `top_k` it also
        takes class ids `[batch, n]` for what only `exclude` names; all inputs are then
        in a dict. For other encoders Keras takes every input to be floating: pass
        `input_signature`.
        """
        inputs = encoder_inputs.functional_inputs(self.encoder)
        if input_signature is None and inputs is not None:
            input_signature = [self._outputs.with_excluded(inputs)]
        with self._outputs.reused_classes(exported=True):
            return super().export(filepath, format, verbose, input_signature, **kwargs)

    def get_config(self) -> dict[str, Any]:
        """Returns the serialized encoder and head, and the other arguments."""
        heads = self._outputs.heads
        tied_embedding.refuse_shared_layers(self.encoder, heads.values())
        tied = {
            name: tied_embedding.tied_index(self.encoder, head)
            for name, head in heads.items()
        }
        return {
            **super().get_config(),
            "encoder": keras.saving.serialize_keras_object(self.encoder),
            "head": keras.saving.serialize_keras_object(self.head),
            "top_k": self.top_k,
            "exclude": self.exclude,
            "negatives": self.negatives,
            "tied_embedding": self._outputs.pack(tied),
        }

    @classmethod
    def from_config(
        cls, config: dict[str, Any], custom_objects: dict[str, Any] | None = None
    ) -> SampledSoftmaxModel:
        """Makes a model from its config, without weights."""
        config = dict(config)
        with keras.saving.custom_object_scope(custom_objects or {}):
            encoder = keras.saving.deserialize_keras_object(config.pop("encoder"))
            head, index = config.pop("head"), config.pop("tied_embedding", "unknown")
            head = tied_embedding.heads_from_config(head, encoder, index)
        return cls(encoder=encoder, head=head, **config)

    def _build_parts(self, inputs: Any) -> None:
        # A subclassed encoder shows its features only when it is called.
        features = self.encoder(self._outputs.encoder_inputs(inputs))
        self._outputs.build_heads(features)

    def _build_for(self, x: Any, y: Any) -> None:
        """Makes the state of model and outputs, before the step is traced."""
        with tf.init_scope():
            if self._has_mask is None:  # a symbolic call makes no logits
                self(encoder_inputs.keras_tensors_like(x))
            self._outputs.build(y)

    def _build_optimizer(self) -> None:
        optimizer = self.optimizer if self.compiled else None
        if self.built and optimizer is not None and not optimizer.built:
            optimizer.build(self.trainable_variables)

    def _features(self, x: Any, training: bool) -> tf.Tensor:
        features = self.encoder(self._outputs.encoder_inputs(x), training=training)
        masks = self._outputs.masks(features).values()
        self._has_mask = any(mask is not None for mask in masks)
        return features

    def _masks_before_training(self, x: Any) -> dict[str, Any]:
        """Returns the masks of a batch before its training step.

        If the encoder makes a mask, it is called for it; what else it computes is not
        used, and XLA removes it.
        """
        if not self._has_mask:
            return {}
        x = self._outputs.encoder_inputs(x)
        with keras.StatelessScope():
            return self._outputs.masks(self.encoder(x, training=False))

    def _train(self, x: Any, y: Any, sample_weight: Any, validated: bool) -> None:
        weights = self.trainable_weights
        with tf.GradientTape() as tape:
            features = self._features(x, training=True)
            checks = self._outputs.batch_checks(y, features, sample_weight)
            assertions = replicas.all_finished(validation.assert_all(checks))
            with (
                tf.control_dependencies(assertions),
                self._outputs.validated_labels(validated),
            ):
                loss = self.compute_loss(x, y, features, sample_weight, training=True)
            scaled = self.optimizer.scale_loss(loss)
        if weights:
            gradients = tape.gradient(scaled, weights)
            with tf.control_dependencies([loss]):  # the count of steps waits for it
                self.optimizer.apply_gradients(zip(gradients, weights, strict=True))
        else:
            warnings.warn(
                "The model has no trainable weights: nothing is trained.", stacklevel=2
            )
        self._update_loss_mean(loss, y, features)

    def _update_loss_mean(self, loss: tf.Tensor, y: Any, features: Any) -> None:
        """Adds a batch to the reported mean, weighted by its number of examples."""
        loss *= replicas.num_replicas()
        self._loss_mean.update_state(loss, self._outputs.num_examples(y, features))

    def _named_metrics(self) -> dict[str, keras.metrics.Metric]:
        named = {"loss": self._loss_mean}
        named.update((m.name, m) for m in super().metrics if m.name != "loss")
        named.update(self._outputs.named_metrics())
        return named

    @contextlib.contextmanager
    def _fitting(self, class_weight: Any = None) -> Iterator[None]:
        """Trains with class weights, which are constants of the traced step."""
        # TensorFlow traces a function twice that makes variables.
        with self.distribute_strategy.scope():
            self._build_optimizer()
        if class_weight is not None:
            self._class_weights = self._outputs.class_weights(class_weight)
            self.train_function = None
        try:
            with self._retrace_after_error():
                yield
        finally:
            if class_weight is not None:
                self._class_weights = self.train_function = None

    @contextlib.contextmanager
    def _retrace_after_error(self) -> Iterator[None]:
        """Drops the traced steps after an error.

        Otherwise TensorFlow relaxes the traced shape to fit the refused labels as well.
        """
        try:
            yield
        except ValueError:
            self.train_function = self.test_function = None
            raise

    def _results(self, logs: dict[str, Any], return_dict: bool) -> Any:
        """Returns logs of evaluation, or their values in the order of the metrics."""
        self._raise_if_invalid()
        # Keras sorts them by name, and Keras 3.10 leaves tensors.
        names = dict.fromkeys([*self.get_metrics_result(), *logs])
        logs = {name: np.asarray(logs[name]).tolist() for name in names if name in logs}
        values = list(logs.values())
        return logs if return_dict else values[0] if len(values) == 1 else values

    def _raise_if_invalid(self) -> None:
        if self.jit_compile:
            self._outputs.raise_if_invalid()


def _results_of(metrics: dict[str, keras.metrics.Metric]) -> dict[str, Any]:
    """Returns the results of metrics by name; those that are dicts are joined."""
    results = {}
    for name, metric in metrics.items():
        value = metric.result()
        if isinstance(value, dict):  # as of an output's metrics
            prefix = name.removesuffix(metric.name)
            results.update({prefix + key: v for key, v in value.items()})
        else:
            results[name] = value
    return results
