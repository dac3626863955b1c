"""The outputs of a model: those of a `SampledSoftmax`, and those with a Keras loss.

A model has a single output, whose name is "", or several named ones. Users pass values
by output: for a single output the value itself, for several a dict or a list.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfsampled._core import replicas, validation
from tfsampled._core.labels import Labels, class_list_check, pad_ragged
from tfsampled._core.static_ops import compute_dtype
from tfsampled._core.xla import on_host
from tfsampled.layers import SampledSoftmax
from tfsampled.layers import _encoder_inputs as encoder_inputs
from tfsampled.layers import _head_labels as head_labels
from tfsampled.layers._keras import in_symbolic_scope, mask_of
from tfsampled.layers._losses import compute_losses
from tfsampled.metrics import update_from_features
from tfsampled.models._fit_arguments import (
    added_callback,
    class_weights,
    unwrap,
    unwrap_labels,
    validate_metrics,
)
from tfsampled.models._keras_output import KerasOutput, batch_size
from tfsampled.models._label_check import LabelCheck


class Outputs:
    """The outputs of a model, with what `compile` received for them.

    `head`, `top_k`, `exclude` and `negatives` may also be dicts by output.

    Args:
        encoder: The model's encoder.
        head: A `SampledSoftmax`.
        top_k: The number of classes to predict; None for logits.
        exclude: The name of the input that lists classes not to predict.
        negatives: The name of the input that lists classes to compare with.
    """

    def __init__(
        self, encoder: Any, head: Any, top_k: Any, exclude: Any, negatives: Any
    ) -> None:
        self._is_single = not isinstance(head, dict)
        self.heads: dict[str, SampledSoftmax] = {"": head} if self._is_single else head
        if not all(isinstance(value, SampledSoftmax) for value in self.heads.values()):
            raise ValueError(
                "`head` must be a tfsampled.layers.SampledSoftmax, or a dict of them "
                f"by output. Received: head={head!r}."
            )
        if len({id(value) for value in self.heads.values()}) < len(self.heads):
            raise ValueError("`head` must have a different layer for each output.")
        if not isinstance(encoder, keras.layers.Layer):
            raise ValueError(
                "`encoder` must be a keras.layers.Layer. "
                f"Received: encoder={encoder!r}."
            )
        # What the encoder computes, as KerasTensors; not needed of a single output.
        features = {"": None} if self._is_single else getattr(encoder, "output", None)
        if not isinstance(features, dict) or set(self.heads) - set(features):
            raise ValueError(
                "`encoder` must be a functional model whose output is a dict, with "
                f"each name of `head`. Received: output={features!r}, head={head!r}."
            )
        self._features = features
        self.top_k, self.exclude, self.negatives = top_k, exclude, negatives
        for argument in ("top_k", "exclude", "negatives"):
            names = getattr(self, argument)
            unknown = set(names) - set(self.heads) if isinstance(names, dict) else ()
            if unknown:
                raise ValueError(
                    f"`{argument}` must name outputs that have a head. Received: "
                    f"{sorted(unknown)}, outputs={list(self.heads)}."
                )
        self._k: dict[str, int | None] = {}
        for name, value in self.heads.items():
            k = top_k.get(name) if isinstance(top_k, dict) else top_k
            if k is not None:
                k = validation.positive_int(k, "top_k", num_classes=value.num_classes)
            self._k[name] = k
        self._encoder = encoder
        self._validated = False
        self.compile()

    def by_name(self, values: Any, argument: str = "y") -> dict[str, Any]:
        """Returns values by output; none if `values` is None."""
        if self._is_single:
            return {"": values}
        names = list(self._features)
        if values is None:
            return {}
        if isinstance(values, (list, tuple)) and len(values) == len(names):
            return dict(zip(names, values, strict=True))
        if not isinstance(values, Mapping) or set(values) - set(names):
            raise ValueError(
                f"`{argument}` must be a dict by output, or a list with a value for "
                f"each. Received: {argument}={values!r}, outputs={names}."
            )
        return dict(values)

    def pack(self, by_name: dict[str, Any]) -> Any:
        """Returns the dict, or the value of the only output."""
        return by_name[""] if self._is_single else by_name

    def encoder_inputs(self, x: Any) -> Any:
        """Returns the inputs that the encoder reads."""
        names = map(tf.nest.flatten, (self.negatives, self.exclude))
        return encoder_inputs.match_inputs(self._encoder, x, *names)

    def with_excluded(self, inputs: Any) -> Any:
        """Adds the inputs that `exclude` names for predictions to the encoder's.

        Args:
            inputs: KerasTensors.
        """
        names = encoder_inputs.input_names(self._encoder)
        added = set(tf.nest.flatten(self.exclude)) - {None, *names}
        if not names or not added or not any(self._k.values()):
            return inputs
        if not isinstance(inputs, dict):
            inputs = dict(zip(names, tf.nest.flatten(inputs), strict=True))
        lists = {
            name: keras.KerasTensor((None, None), "int64", name=name) for name in added
        }
        return {**lists, **inputs}

    @on_host()
    def class_list_checks(self, x: Any, argument: str) -> list[validation.Check]:
        """Checks the inputs that `exclude` or `negatives` names."""
        checks = []
        for name, ids in self.class_lists(x, argument).items():
            ids, num_classes = tf.cast(ids, tf.int64), self.heads[name].num_classes
            checks.append(class_list_check(ids, num_classes, argument))
        return checks

    def class_lists(self, x: Any, argument: str) -> dict[str, Any]:
        """Returns the inputs that `exclude` or `negatives` names, by output."""
        names = getattr(self, argument)
        if not isinstance(names, dict):
            names = dict.fromkeys(self.heads, names)
        lists = {}
        for output, name in names.items():
            if name is not None:
                ids = encoder_inputs.named_input(self._encoder, x, name, argument)
                # Keras traces a model that is exported for floats, too.
                is_floating = tf.as_dtype(ids.dtype).is_floating
                lists[output] = tf.cast(ids, tf.int64) if is_floating else ids
        return lists

    @contextlib.contextmanager
    def reused_classes(
        self, exported: bool = False, encode: bool = True
    ) -> Iterator[None]:
        """Encodes all classes of heads with a `class_encoder` once."""
        if encode:
            self._encode_classes()
        with contextlib.ExitStack() as stack:
            for tower in self._class_towers():
                stack.enter_context(tower.reused(exported))
            yield

    @contextlib.contextmanager
    def encoding(self, callbacks: Any) -> Iterator[Any]:
        """Adds a callback that encodes all classes, after others have set weights."""
        callback = keras.callbacks.LambdaCallback(
            on_test_begin=self._encode_classes, on_predict_begin=self._encode_classes
        )
        with (
            self.reused_classes(encode=False),
            added_callback(callbacks, callback) as added,
        ):
            yield added

    def _encode_classes(self, logs: Any = None) -> None:
        for tower in self._class_towers():
            tower.encode_all()

    def _class_towers(self) -> list[Any]:
        towers = (head.class_tower for head in self.heads.values())
        return [tower for tower in towers if tower is not None]

    def predict(self, features: Any, x: Any) -> Any:
        """Computes logits, or best classes, from the encoder's outputs and inputs."""
        results = self.by_name(features)
        exclude = {}
        # A symbolic call builds the model, also for training, which excludes nothing.
        if any(self._k.values()) and not in_symbolic_scope():
            exclude = self.class_lists(x, "exclude")
        for name, head in self.heads.items():
            inputs, k = results.pop(name), self._k[name]
            if k is None:
                results[name] = head(inputs)
            else:  # flat, as the signature of an export has to be
                scores, classes = head.top_k(inputs, k, exclude.get(name))
                prefix = _prefix(name)
                results.update({f"{prefix}classes": classes, f"{prefix}scores": scores})
        return results.get("", results)

    def compile(
        self,
        loss: Any = None,
        loss_weights: Any = None,
        metrics: Any = None,
        weighted_metrics: Any = None,
    ) -> None:
        """Takes arguments of `keras.Model.compile`."""
        arguments = {
            "loss": loss,
            "loss_weights": loss_weights,
            "metrics": metrics,
            "weighted_metrics": weighted_metrics,
        }
        if self._is_single and loss_weights is not None:
            raise ValueError(
                "`loss_weights` must be None for a model with one output. "
                f"Received: loss_weights={loss_weights!r}."
            )
        named = {name: self.by_name(value, name) for name, value in arguments.items()}
        weights = named.pop("loss_weights")
        outputs: dict[str, HeadOutput | KerasOutput] = {}
        for name in self._features:
            own_loss, *own = (values.get(name) for values in named.values())
            if name not in self.heads:
                if [own_loss, *own] != [None, None, None]:
                    outputs[name] = KerasOutput(name, own_loss, *own)
                continue
            if own_loss is not None:
                raise ValueError(
                    "`loss` must be None for an output of a SampledSoftmax: it trains "
                    "on the head's sampled loss and is evaluated on its exact loss. "
                    f"Received: loss={own_loss!r}."
                )
            outputs[name] = HeadOutput(name, self.heads[name], *own)
        given = (named[name].values() for name in ("metrics", "weighted_metrics"))
        objects = [
            metric
            for metric in tf.nest.flatten(list(map(list, given)))
            if isinstance(metric, keras.metrics.Metric)
        ]
        shared = [metric.name for metric in objects if objects.count(metric) > 1]
        if shared:
            raise ValueError(
                "`metrics` and `weighted_metrics`, also of several outputs, must not "
                f"share a metric object. Received: {shared[0]!r} twice."
            )
        self._outputs, self._loss_weights = outputs, weights
        self._is_built = False
        self.compile_arguments = arguments

    def build_heads(self, features: Any) -> None:
        """Builds the heads for the encoder's outputs.

        Raises:
            ValueError: If the encoder of a single head returns several tensors.
        """
        inputs = self.by_name(features)
        for name, head in self.heads.items():
            if not hasattr(inputs[name], "shape"):
                raise ValueError(
                    "`encoder` must return one tensor for a single head. For a dict of "
                    "outputs pass `head` as a dict by output. "
                    f"Received: {type(inputs[name]).__name__}."
                )
            if not head.built:
                head.build(inputs[name].shape)

    def build(self, y: Any) -> None:
        """Makes the variables of metrics that depend on the targets."""
        if not self._is_built:
            targets = self.by_name(y)
            for name, output in self._outputs.items():
                if isinstance(output, KerasOutput):
                    output.build(targets[name], self._features[name])
            self._is_built = True

    def named_metrics(self) -> dict[str, keras.metrics.Metric]:
        """Returns the metrics by their names in logs; first of several their losses."""
        outputs = {} if self._is_single else self._outputs
        losses = {
            f"{k}_loss": one.loss_mean for k, one in outputs.items() if one.has_loss
        }
        return {**losses, **self.evaluated_metrics()}

    def evaluated_metrics(self) -> dict[str, keras.metrics.Metric]:
        """Returns the metrics that are computed only in evaluation, as in logs."""
        return {
            _prefix(name) + key: metric
            for name, output in self._outputs.items()
            for key, metric in output.named_metrics().items()
        }

    def targets(self, y: Any) -> Any:
        """Returns the targets of outputs with a loss or a metric; of heads integers."""
        y = self.by_name(y)
        missing = [name for name in self._outputs if y.get(name) is None]
        if missing and not self._is_single:
            raise ValueError(
                "`y` must have targets for each output with a loss. "
                f"Received: none for {missing}."
            )
        targets = {name: y[name] for name in self._outputs}
        for name, head in self.heads.items():
            labels = unwrap_labels(y[name])
            targets[name] = pad_ragged(labels, head.num_true, head.ignore_class)
        return self.pack(targets)

    def class_weights(self, class_weight: Mapping[int, float]) -> np.ndarray:
        """Returns the weights of the first classes; the last is that of the rest."""
        if not self._is_single:
            raise ValueError(
                "`class_weight` must be None for a model with several outputs: use "
                "`sample_weight`."
            )
        return class_weights(class_weight, self.heads[""].num_classes)

    def sample_weight(
        self, y: Any, sample_weight: Any, class_weights: np.ndarray | None = None
    ) -> Any:
        """Returns the sample weights, or those that the labels have by their class."""
        if self._is_single:
            sample_weight = unwrap(sample_weight, "sample_weight", "array of weights")
        if class_weights is None:
            return sample_weight
        if sample_weight is not None:
            raise ValueError(
                "`class_weight` and `sample_weight` must not both be given: multiply "
                "the sample weights by those of their classes."
            )
        return self._head_outputs()[""].sample_weight_of_classes(y, class_weights)

    def masks(self, features: Any) -> dict[str, Any]:
        """Returns the masks of the heads' features; None where there is none."""
        features = self.by_name(features)
        return {name: mask_of(features[name]) for name in self.heads}

    def batch_checks(
        self, y: Any, features: Any, sample_weight: Any
    ) -> list[validation.Check]:
        """Checks that targets and weights have a value for each example."""
        targets, inputs = self.by_name(y), self.by_name(features)
        weights = self._weights_by_name(sample_weight)
        checks = []
        for name in self._outputs:
            values = {"y": targets[name], "sample_weight": weights.get(name)}
            max_axes = None if name in self.heads else 1  # a loss may take any others
            checks += validation.same_batch_checks(inputs[name], max_axes, **values)
        return checks

    def label_checks(self, y: Any) -> list[validation.Check]:
        """Checks the labels of a training step, before the encoder is called."""
        y = self.by_name(y)
        checks = (o.label_checks(y[name]) for name, o in self._head_outputs().items())
        return [check for some in checks for check in some]

    def record(
        self, x: Any, y: Any, masks: dict[str, Any], training: bool
    ) -> tf.Tensor:
        """Returns whether a compiled step can use the labels; if not, records why."""
        y = self.by_name(y)
        ids = self.class_lists(x, "negatives" if training else "exclude")
        usable = [
            output.record(y[name], masks.get(name), training, ids.get(name))
            for name, output in self._head_outputs().items()
        ]
        return tf.reduce_all(usable)

    def raise_if_invalid(self) -> None:
        """Raises the first of what compiled steps have recorded, and clears all."""
        checks = [output.label_check for output in self._head_outputs().values()]
        messages = [message for check in checks if (message := check.take())]
        if messages:
            raise tf.errors.InvalidArgumentError(None, None, messages[0])

    @contextlib.contextmanager
    def validated_labels(self, validated: bool) -> Iterator[None]:
        """Tells `compute_loss` whether the labels are known to be valid."""
        self._validated = validated
        try:
            yield
        finally:
            self._validated = False

    def compute_loss(
        self, x: Any, y: Any, features: Any, sample_weight: Any, training: bool
    ) -> tf.Tensor:
        """Computes the weighted sum of the outputs' losses."""
        targets, inputs = self.by_name(y), self.by_name(features)
        negatives = self.class_lists(x, "negatives") if training else {}
        weights = self._weights_by_name(sample_weight)
        losses = []
        for name, output in self._outputs.items():
            example = targets[name], inputs[name]
            loss = output.compute_loss(
                *example,
                weights.get(name),
                training,
                self._validated,
                negatives.get(name),
            )
            if not self._is_single:
                output.loss_mean.update_state(loss, output.num_examples(*example))
                loss *= self._loss_weights.get(name, 1.0)
            losses.append(loss)
        return tf.add_n([tf.cast(loss, losses[0].dtype) for loss in losses])

    def num_examples(self, y: Any, features: Any) -> tf.Tensor:
        """Counts the examples with a label; with several outputs the batch size."""
        if self._is_single:
            return self._outputs[""].num_examples(y, features)
        return batch_size(next(iter(features.values())))

    def update_metrics(self, x: Any, y: Any, features: Any, sample_weight: Any) -> None:
        """Adds a batch to the metrics."""
        targets, inputs = self.by_name(y), self.by_name(features)
        weights = self._weights_by_name(sample_weight)
        exclude = self.class_lists(x, "exclude")
        for name, output in self._outputs.items():
            output.update_metrics(
                targets[name], inputs[name], weights.get(name), exclude.get(name)
            )

    def _head_outputs(self) -> dict[str, HeadOutput]:
        return {
            name: output
            for name, output in self._outputs.items()
            if isinstance(output, HeadOutput)
        }

    def _weights_by_name(self, sample_weight: Any) -> dict[str, Any]:
        if sample_weight is None or isinstance(sample_weight, (Mapping, list, tuple)):
            return self.by_name(sample_weight, "sample_weight")
        return dict.fromkeys(self._features, sample_weight)


class HeadOutput:
    """An output that trains on the sampled loss of a head, evaluated on the exact one.

    Args:
        name: The output's name.
        head: The `SampledSoftmax` that makes it.
        metrics: Metrics of `tfsampled.metrics`, or None.
        weighted_metrics: The same, weighted by sample weights.
    """

    has_loss = True

    def __init__(
        self, name: str, head: SampledSoftmax, metrics: Any, weighted_metrics: Any
    ) -> None:
        self.head = head
        self.loss_mean = keras.metrics.Mean(name=f"{name}_loss")
        self.label_check = LabelCheck(head)
        self._metrics = validate_metrics(metrics, "metrics")
        self._weighted = validate_metrics(weighted_metrics, "weighted_metrics")

    def named_metrics(self) -> dict[str, keras.metrics.Metric]:
        """Returns the metrics by their names in logs."""
        named = {metric.name: metric for metric in self._metrics}
        for metric in self._weighted:
            named[("weighted_" if metric.name in named else "") + metric.name] = metric
        return named

    def label_checks(self, y: Any) -> list[validation.Check]:
        """Checks the labels of a training step, before the encoder is called."""
        return head_labels.checks(self.head, *self._ids_and_mask(y), sampled=True)

    def record(self, y: Any, mask: Any, training: bool, class_ids: Any) -> tf.Tensor:
        """Returns whether a compiled step can use the labels; if not, records why."""
        if mask is None:
            targets = Labels(*self._ids_and_mask(y), None)
        else:
            targets = head_labels.parse(self.head, y, mask.shape, mask)
        return self.label_check.record(targets, training, class_ids)

    def num_examples(self, y: Any, features: tf.Tensor) -> tf.Tensor:
        """Counts the examples that have a label, in float32: the mean of replicas."""
        example_mask = self._parse(y, features).example_mask
        if example_mask is None:
            count = tf.reduce_prod(tf.shape(features)[:-1])
        else:
            count = tf.math.count_nonzero(example_mask)
        return replicas.mean(tf.cast(count, tf.float32))

    def compute_loss(
        self,
        y: Any,
        features: tf.Tensor,
        sample_weight: Any,
        training: bool,
        validated: bool,
        negatives: Any,
    ) -> tf.Tensor:
        """Computes the sum of the weighted losses over the number of examples.

        The number of examples is averaged over the replicas, so that the mean of their
        results is the mean over all examples.
        """
        targets = self._parse(y, features)
        if not validated:
            targets = head_labels.validated(self.head, targets, sampled=training)
        losses = compute_losses(
            self.head, features, targets, sample_weight, training, negatives
        )
        losses = tf.cast(losses, compute_dtype(losses.dtype))  # 16 bits may overflow
        count = tf.cast(self.num_examples(y, features), losses.dtype)
        return tf.math.divide_no_nan(tf.reduce_sum(losses), count)

    def update_metrics(
        self, y: Any, features: tf.Tensor, sample_weight: Any, exclude: Any
    ) -> None:
        """Adds a batch to the metrics."""
        weighted = [(metric, None) for metric in self._metrics]
        weighted += [(metric, sample_weight) for metric in self._weighted]
        mask = mask_of(features)
        update_from_features(weighted, self.head, features, y, mask, exclude)

    def sample_weight_of_classes(self, y: Any, class_weights: np.ndarray) -> tf.Tensor:
        """Returns the weight of each label; with several, the mean of an example's."""
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
        mask = mask_of(features)
        return head_labels.parse(self.head, y, features.shape[:-1], mask)

    @on_host()
    def _ids_and_mask(self, y: Any) -> tuple[tf.Tensor, tf.Tensor | None]:
        """Returns label ids of any shape, 0 for padding, and which are labels."""
        ids = tf.cast(y, tf.int64)
        if self.head.ignore_class is None:
            return ids, None
        is_label = ids != self.head.ignore_class
        return tf.where(is_label, ids, 0), is_label


def _prefix(name: str) -> str:
    return f"{name}_" if name else ""
