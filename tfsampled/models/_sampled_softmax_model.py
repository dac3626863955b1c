"""`SampledSoftmaxModel`: trains on the sampled loss, is evaluated on the exact one."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfsampled._core import validation
from tfsampled._core.full_softmax.api import validate_k
from tfsampled._core.xla import tracing_for_xla
from tfsampled.layers import SampledSoftmax
from tfsampled.models import _encoder_inputs as encoder_inputs
from tfsampled.models._fit_arguments import (
    added_callback,
    class_weights,
    first_labels,
    set_monitor_modes,
    unwrap_labels,
)
from tfsampled.models._label_check import PeriodicCheck
from tfsampled.models._outputs import HeadOutput, KerasOutput, keras_mask, num_replicas
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
        head: SampledSoftmax | dict[str, SampledSoftmax],
        top_k: int | dict[str, int] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        heads = list(head.values()) if isinstance(head, dict) else [head]
        for value in heads:
            if not isinstance(value, SampledSoftmax):
                raise ValueError(
                    "`head` must be a tfsampled.layers.SampledSoftmax, or a dict of "
                    f"them by output. Received: head={head!r}."
                )
        if len({id(value) for value in heads}) < len(heads):
            raise ValueError("`head` must have another layer for each output.")
        if isinstance(head, dict):
            outputs = getattr(encoder, "output", None)
            if not isinstance(outputs, dict) or not head or head.keys() - outputs:
                raise ValueError(
                    "`encoder` must be a functional model whose output is a dict, with "
                    f"each name of `head`. Received: output={outputs!r}, "
                    f"head={head!r}."
                )
        self.encoder = encoder
        self.head = head
        self.top_k = top_k
        self._top_k: dict[str, int | None] = {}
        for name, head in self._heads.items():
            k = top_k.get(name) if isinstance(top_k, dict) else top_k
            self._top_k[name] = k and validate_k(k, head.num_classes)
        self.supports_masking = True
        self._loss_mean = keras.metrics.Mean(name="loss")
        self._has_mask: bool | None = None  # unknown before the encoder is called
        # In an object of its own, whose attributes Keras does not track.
        self._step = _StepState()
        inputs = encoder_inputs.functional_inputs(encoder)
        if inputs is not None:  # the shapes are known
            self(encoder_inputs.keras_tensors_like(inputs))

    @classmethod
    def from_model(
        cls,
        model: keras.Model,
        top_k: int | dict[str, int] | None = None,
        **kwargs: Any,
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
        heads = {
            id(getattr(layer, "output", None)): layer
            for layer in getattr(model, "layers", [])
            if isinstance(layer, SampledSoftmax)
        }
        outputs = getattr(model, "outputs", None) or []
        if not any(id(output) in heads for output in outputs):
            raise ValueError(
                "`model` must be a functional or Sequential model (with its Input) "
                "with an output that is that of a tfsampled.layers.SampledSoftmax. "
                f"Received: {getattr(model, 'name', model)!r} with the outputs "
                f"{outputs}."
            )
        inputs = encoder_inputs.functional_inputs(model)
        name = f"{model.name}_encoder"
        if len(outputs) == 1:
            head = heads[id(outputs[0])]
            encoder = keras.Model(inputs, head.input, name=name)
            return cls(encoder, head, top_k=top_k, **kwargs)
        tensors = model.output
        if not isinstance(tensors, dict):
            tensors = dict(zip(model.output_names, outputs, strict=True))
        named = {key: heads[id(x)] for key, x in tensors.items() if id(x) in heads}
        features = {**tensors, **{key: head.input for key, head in named.items()}}
        return cls(keras.Model(inputs, features, name=name), named, top_k, **kwargs)

    def __call__(self, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """Calls the model; the first call builds it for inputs like these."""
        if not self.built and encoder_inputs.are_tensors(inputs):
            # `build` receives shapes alone, and an encoder may need the dtypes.
            self._build_parts(encoder_inputs.keras_tensors_like(inputs))
        return super().__call__(inputs, *args, **kwargs)

    def build(self, input_shape: Any) -> None:
        """Builds the encoder for floating inputs of `input_shape`, then the head."""
        heads_built = all(head.built for head in self._heads.values())
        if not (self.encoder.built and heads_built):
            self._build_parts(encoder_inputs.float_inputs(input_shape))
        self.built = True

    def call(self, inputs: Any, training: bool = False) -> Any:
        """Computes the logits of all classes, or a dict of the `top_k` best."""
        results = self._by_name(self._features(inputs, training), "encoder")
        for name, head in self._heads.items():
            features, k = results.pop(name), self._top_k[name]
            if k is None:
                results[name] = head(features)
            else:
                prefix = f"{name}_" if name else ""
                scores, classes = head.top_k(features, k)
                results.update({f"{prefix}classes": classes, f"{prefix}scores": scores})
        return results[""] if "" in results else results

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
        arguments = {
            "loss": loss,
            "loss_weights": loss_weights,
            "metrics": metrics,
            "weighted_metrics": weighted_metrics,
        }
        by_name = {
            argument: self._by_name(value, argument)
            for argument, value in arguments.items()
        }
        for name in self._heads:
            if (received := by_name["loss"].get(name)) is not None:
                raise ValueError(
                    "`loss` must be None for an output of a SampledSoftmax: it trains "
                    "on the head's sampled loss and is evaluated on its exact loss. "
                    f"Received: loss={received!r}."
                )
        if loss_weights is not None and not isinstance(self.head, dict):
            raise ValueError(
                "`loss_weights` must be None for a model with one output. "
                f"Received: loss_weights={loss_weights!r}."
            )
        weights = by_name.pop("loss_weights")
        outputs: dict[str, HeadOutput | KerasOutput] = {}
        for name in self._output_names:
            loss, metrics, weighted = (by.get(name) for by in by_name.values())
            if name in self._heads:
                head = self._heads[name]
                outputs[name] = HeadOutput(name, head, metrics, weighted)
            elif (loss, metrics, weighted) != (None, None, None):
                outputs[name] = KerasOutput(name, loss, metrics, weighted)
        self._step.outputs = outputs
        self._step.loss_weights = weights
        self._step.compile_arguments = arguments
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
        arguments = self._step.compile_arguments
        return {**config, **keras.saving.serialize_keras_object(arguments)}

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
        results = {}
        for name, metric in self._named_metrics().items():
            value = metric.result()
            if isinstance(value, dict):  # of an output's metrics
                prefix = name.removesuffix(metric.name)
                results.update({prefix + key: v for key, v in value.items()})
            else:
                results[name] = value
        return results

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
        labels = y if isinstance(y, dict) or not isinstance(self.head, dict) else {}
        for name, head in self._heads.items():
            first = first_labels(self._by_name(labels, "y").get(name))
            if first is not None and isinstance(head.sampler, LogUniform):
                head.sampler.warn_if_unordered(
                    first, head.num_classes, first != head.ignore_class
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
        y = self._targets(y)
        if self._step.class_weights is not None:
            if sample_weight is not None:
                raise ValueError(
                    "`class_weight` and `sample_weight` must not both be given: "
                    "multiply the sample weights by those of their classes."
                )
            sample_weight = self._head_outputs[""].sample_weight_of_classes(
                y[""], self._step.class_weights
            )
        self._build_for(x, y)
        if tracing_for_xla():
            if num_replicas() > 1:
                raise ValueError(
                    "`jit_compile` must be False with several replicas: a compiled "
                    "step cannot refuse labels there. "
                    f"Received: {num_replicas()} replicas."
                )
            # XLA updates tables in place in a branch too.
            tf.cond(
                self._record(y, self._masks_before_training(x), training=True),
                lambda: self._train(x, y, sample_weight, validated=True),
                lambda: None,
            )
        else:
            # With a mask, the labels are validated once the encoder has made it.
            assertions = []
            if self._has_mask is False:
                checks = [
                    check
                    for name, output in self._head_outputs.items()
                    for check in output.label_checks(y[name])
                ]
                assertions = validation.assert_all(checks)
            with tf.control_dependencies(assertions):
                self._train(x, y, sample_weight, validated=self._has_mask is False)
        return self._loss_results()

    def test_step(self, data: Any) -> dict[str, Any]:
        """Evaluates one batch: the exact loss and the metrics."""
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        y = self._targets(y)
        self._build_for(x, y)
        features = self._features(x, training=False)
        by_name = self._by_name(features, "encoder")
        if tracing_for_xla():
            masks = {name: keras_mask(value) for name, value in by_name.items()}
            self._record(y, masks, training=False)
        loss = self.compute_loss(
            x, self._pack(y), features, sample_weight, training=False
        )
        self._update_loss_mean(loss, y, by_name)
        weights = self._weights(sample_weight)
        for name, output in self._step.outputs.items():
            output.update_metrics(y[name], by_name[name], weights.get(name))
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
        y, features = self._targets(y), self._by_name(y_pred, "encoder")
        weights = self._weights(sample_weight)
        total = list(self.losses)
        for name, output in self._step.outputs.items():
            loss = output.compute_loss(
                y[name],
                features[name],
                weights.get(name),
                training=training,
                validated=self._step.validated,
            )
            if isinstance(self.head, dict):
                output.loss_mean.update_state(
                    loss, sample_weight=output.num_examples(y[name], features[name])
                )
                loss *= self._step.loss_weights.get(name, 1.0)
            total.insert(0, loss)
        dtype = total[0].dtype
        return tf.add_n([tf.cast(loss, dtype) for loss in total]) / num_replicas()

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

        def tied_index(head: SampledSoftmax) -> int | None:
            tied = [i for i, layer in enumerate(embeddings) if layer is head.tied_to]
            return tied[0] if tied else None

        return {
            **super().get_config(),
            "encoder": keras.saving.serialize_keras_object(self.encoder),
            "head": self._map_heads(keras.saving.serialize_keras_object),
            "top_k": self.top_k,
            "tied_embedding": self._map_heads(tied_index),
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> SampledSoftmaxModel:
        """Makes a model from its config, without weights."""
        config = dict(config)
        encoder = keras.saving.deserialize_keras_object(config.pop("encoder"))
        head, index = config.pop("head"), config.pop("tied_embedding", None)
        if "class_name" in head:
            head = _head_from_config(head, encoder, index)
        else:
            head = {
                name: _head_from_config(value, encoder, index[name])
                for name, value in head.items()
            }
        return cls(encoder=encoder, head=head, **config)

    @property
    def _heads(self) -> dict[str, SampledSoftmax]:
        return self.head if isinstance(self.head, dict) else {"": self.head}

    @property
    def _head_outputs(self) -> dict[str, HeadOutput]:
        return {
            name: output
            for name, output in self._step.outputs.items()
            if isinstance(output, HeadOutput)
        }

    @property
    def _output_names(self) -> list[str]:
        return list(self.encoder.output) if isinstance(self.head, dict) else [""]

    def _map_heads(self, function: Callable[[SampledSoftmax], Any]) -> Any:
        results = {name: function(head) for name, head in self._heads.items()}
        return self._pack(results)

    def _pack(self, values: dict[str, Any]) -> Any:
        """Returns a dict by output, or the value of the only output."""
        return values if isinstance(self.head, dict) else values[""]

    def _by_name(self, values: Any, argument: str) -> dict[str, Any]:
        """Returns values by output, from a dict or a list; "" is the only output."""
        if not isinstance(self.head, dict):
            return {"": values}
        if values is None:
            return {}
        names = self._output_names
        if isinstance(values, (list, tuple)) and len(values) == len(names):
            return dict(zip(names, values, strict=True))
        if not isinstance(values, dict) or values.keys() - set(names):
            raise ValueError(
                f"`{argument}` must be a dict by output, or a list with a value for "
                f"each. Received: {argument}={values!r}, outputs={names}."
            )
        return dict(values)

    def _targets(self, y: Any) -> dict[str, Any]:
        """Returns the targets of each output that has a loss or a metric."""
        y = self._by_name(y, "y")
        missing = [name for name in self._step.outputs if y.get(name) is None]
        if missing and missing != [""]:
            raise ValueError(
                "`y` must have targets for each output with a loss. "
                f"Received: none for {missing}."
            )
        return {
            name: unwrap_labels(y[name]) if name in self._heads else y[name]
            for name in self._step.outputs
        }

    def _weights(self, sample_weight: Any) -> dict[str, Any]:
        """Returns the sample weights of each output; an array weighs every output."""
        if sample_weight is None or isinstance(sample_weight, (dict, list, tuple)):
            return self._by_name(sample_weight, "sample_weight")
        return dict.fromkeys(self._output_names, sample_weight)

    def _build_parts(self, inputs: Any) -> None:
        # A subclassed encoder shows its features only when it is called.
        features = self.encoder(encoder_inputs.match_input_order(self.encoder, inputs))
        by_name = self._by_name(features, "encoder")
        for name, head in self._heads.items():
            if not head.built:
                head.build(by_name[name].shape)

    def _build_for(self, x: Any, y: dict[str, Any]) -> None:
        """Makes all state of a step, before the step is traced."""
        with tf.init_scope():
            if self._has_mask is None:  # a symbolic call makes no logits
                self(encoder_inputs.keras_tensors_like(x))
            if not self._step.is_built:
                for name, output in self._step.outputs.items():
                    if isinstance(output, KerasOutput):
                        output.build(y[name], self.encoder.output[name])
                self._step.is_built = True
            if self.optimizer is not None and not self.optimizer.built:
                self.optimizer.build(self.trainable_variables)

    def _features(self, x: Any, training: bool) -> tf.Tensor:
        x = encoder_inputs.match_input_order(self.encoder, x)
        features = self.encoder(x, training=training)
        by_name = self._by_name(features, "encoder")
        masks = [keras_mask(by_name[name]) for name in self._heads]
        self._has_mask = any(mask is not None for mask in masks)
        return features

    def _record(
        self, y: dict[str, Any], masks: dict[str, Any], training: bool
    ) -> tf.Tensor:
        """Returns whether a compiled step can use the labels; if not, records why."""
        valid = [
            output.record(y[name], masks.get(name), training)
            for name, output in self._head_outputs.items()
        ]
        return tf.reduce_all(valid)

    def _masks_before_training(self, x: Any) -> dict[str, Any]:
        """Returns the masks of a batch before its training step.

        If the encoder makes a mask, it is called for it; what else it computes is not
        used, and XLA removes it.
        """
        if not self._has_mask:
            return {}
        x = encoder_inputs.match_input_order(self.encoder, x)
        with keras.StatelessScope():
            features = self._by_name(self.encoder(x, training=False), "encoder")
        return {name: keras_mask(value) for name, value in features.items()}

    def _train(
        self, x: Any, y: dict[str, Any], sample_weight: Any, validated: bool
    ) -> None:
        weights = self.trainable_weights
        with tf.GradientTape() as tape:
            features = self._features(x, training=True)
            self._step.validated = validated
            try:
                loss = self.compute_loss(
                    x, self._pack(y), features, sample_weight, training=True
                )
            finally:
                self._step.validated = False
            scaled = self.optimizer.scale_loss(loss)
        if weights:
            gradients = tape.gradient(scaled, weights)
            with tf.control_dependencies([loss]):  # the count of steps waits for it
                self.optimizer.apply_gradients(zip(gradients, weights, strict=True))
        else:
            warnings.warn(
                "The model has no trainable weights: nothing is trained.", stacklevel=2
            )
        self._update_loss_mean(loss, y, self._by_name(features, "encoder"))

    def _update_loss_mean(
        self, loss: tf.Tensor, y: dict[str, Any], features: dict[str, Any]
    ) -> None:
        """Adds a batch to the reported mean, weighted by its number of examples.

        That of several outputs is the batch size.
        """
        if isinstance(self.head, dict):
            count = tf.shape(next(iter(features.values())))[0]
        else:
            count = self._head_outputs[""].num_examples(y[""], features[""])
        self._loss_mean.update_state(loss * num_replicas(), sample_weight=count)

    def _named_metrics(self) -> dict[str, keras.metrics.Metric]:
        named = {"loss": self._loss_mean}
        named.update((m.name, m) for m in super().metrics if m.name != "loss")
        for name, output in self._step.outputs.items():
            prefix = f"{name}_" if name else ""
            if name:
                named[output.loss_mean.name] = output.loss_mean
            named.update((prefix + key, m) for key, m in output.named_metrics().items())
        return named

    def _loss_results(self) -> dict[str, Any]:
        """Returns the logs of training: the losses alone."""
        results = {"loss": self._loss_mean.result()}
        if isinstance(self.head, dict):
            means = [output.loss_mean for output in self._step.outputs.values()]
            results.update((mean.name, mean.result()) for mean in means)
        return results

    @contextlib.contextmanager
    def _fitting(self, class_weight: Mapping[int, float] | None) -> Iterator[None]:
        """Trains with class weights, which are constants of the traced step."""
        if class_weight is not None:
            if isinstance(self.head, dict):
                raise ValueError(
                    "`class_weight` must be None for a model with several outputs: "
                    "use `sample_weight`."
                )
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
            for output in self._head_outputs.values():
                output.label_check.raise_if_invalid()


class _StepState:
    """What `compile` made for the steps, and what a step tells `compute_loss`.

    Attributes:
        outputs: The outputs with a loss or a metric, by name.
        loss_weights: The weights of their losses; 1 where there is none.
        compile_arguments: The arguments of `compile`.
        is_built: Whether the metrics of Keras have their variables.
        class_weights: See `class_weights`; None for equal weights.
        validated: Whether the labels of the step are known to be valid.
    """

    def __init__(self) -> None:
        self.outputs: dict[str, HeadOutput | KerasOutput] = {}
        self.loss_weights: dict[str, float] = {}
        self.compile_arguments: dict[str, Any] = {}
        self.is_built = False
        self.class_weights: np.ndarray | None = None
        self.validated = False


def _head_from_config(
    head: dict[str, Any], encoder: Any, index: int | None
) -> SampledSoftmax:
    """Makes a head; one that was tied to the encoder's Embedding is again."""
    embedding = _find_tied(encoder, head, index)
    if embedding is not None:  # the encoder's own, not a copy of it
        head = {**head, "config": {**head["config"], "tied_to": embedding}}
    return keras.saving.deserialize_keras_object(head)


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


def _values(logs: dict[str, Any]) -> Any:
    """Returns the values alone, as Keras does."""
    values = list(logs.values())
    return values[0] if len(values) == 1 else values
