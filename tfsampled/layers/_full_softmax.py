"""What a table of classes says exactly: logits, losses, ranks, the best classes."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from tfsampled._core import validation
from tfsampled._core.full_softmax.api import validate_k
from tfsampled._core.full_softmax.loss import full_softmax_loss
from tfsampled._core.full_softmax.ranks import full_softmax_ranks
from tfsampled._core.full_softmax.top_k import full_softmax_top_k
from tfsampled._core.labels import Labels, apply_weights, flatten_inputs, parse_labels
from tfsampled._core.static_ops import compute_dtype
from tfsampled.layers._class_embedding import ClassTable


class ExactSoftmax(ClassTable):
    """The half of `SampledSoftmax` that looks at all the classes.

    Args:
        num_classes: How many classes there are.
        num_true: See `SampledSoftmax`.
        temperature: See `SampledSoftmax`.
        ignore_class: See `SampledSoftmax`.
        **kwargs: Those of `ClassTable`.

    Raises:
        ValueError: An argument has a value that it cannot have.
    """

    def __init__(
        self,
        num_classes: int,
        num_true: int,
        temperature: float,
        ignore_class: int | None,
        **kwargs: Any,
    ) -> None:
        super().__init__(num_classes, **kwargs)
        self.num_true = validation.positive_int(num_true, "num_true")
        if not temperature > 0:
            raise ValueError(f"temperature is {temperature}; it must be above 0.")
        self.temperature = float(temperature)
        self.ignore_class = None if ignore_class is None else int(ignore_class)
        self.supports_masking = True
        self.input_spec = keras.layers.InputSpec(min_ndim=2)

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """The logit of every class: `[..., num_classes]` for inputs `[..., dim]`."""
        rows, shape = self._rows(inputs)
        table = tf.cast(self.table(), rows.dtype)  # a tied one may come autocast
        logits = tf.matmul(rows, table, transpose_b=True)
        if self.use_bias:
            logits += self._bias()
        return tf.reshape(logits, tf.concat([shape, [self.num_classes]], axis=0))

    def exact_loss(
        self,
        inputs: Any,
        labels: Any,
        sample_weight: Any = None,
        mask: Any = None,
    ) -> tf.Tensor:
        """The cross entropy of each example over all the classes, in blocks of them.

        Arguments, result and errors are those of `SampledSoftmax.sampled_loss`. The
        forward pass holds a few thousand logits an example, however many classes
        there are.
        """
        rows, targets, shape = self._examples(inputs, labels, mask)
        losses = full_softmax_loss(
            rows,
            self._table(),
            self._bias(),
            targets.ids,
            targets.label_weights(compute_dtype(rows.dtype)),
        )
        losses = tf.cast(losses, self.variable_dtype)
        return apply_weights(
            tf.reshape(losses, shape), sample_weight, targets.example_mask
        )

    def ranks(self, inputs: Any, labels: Any, mask: Any = None) -> tf.Tensor:
        """How many classes have a higher logit than the example's best label.

        Of equal logits the lower id stands first, as in `top_k`. In blocks of classes.

        Args:
            inputs: As in `sampled_loss`.
            labels: As in `sampled_loss`.
            mask: As in `sampled_loss`.

        Returns:
            `int32`, `[batch]` or `[batch, time]`: 0 where a label is the best class.
            Examples that are padding have some number.
        """
        rows, targets, shape = self._examples(inputs, labels, mask)
        ranks = full_softmax_ranks(rows, self._table(), self._bias(), targets.ids)
        return tf.reshape(tf.reduce_min(ranks, axis=1), shape)

    def example_mask(self, inputs: Any, labels: Any, mask: Any = None) -> tf.Tensor:
        """True for each example that has a label, False for padding."""
        inputs = tf.convert_to_tensor(inputs)
        shape = inputs.shape[:-1]
        keep = parse_labels(
            labels, shape, self.num_true, self.ignore_class, mask
        ).example_mask
        return tf.ones(tf.shape(inputs)[:-1], tf.bool) if keep is None else keep

    def top_k(self, inputs: Any, k: int) -> tuple[tf.Tensor, tf.Tensor]:
        """The `k` classes of the highest logits, in blocks of classes.

        Args:
            inputs: Float, `[batch, dim]` or `[batch, time, dim]`.
            k: How many; at most `num_classes`.

        Returns:
            The logits in falling order, `[..., k]`, and the ids of their classes,
            `int32`. The lower id comes first where logits are equal.

        Raises:
            ValueError: `k` is below 1 or above `num_classes`.
        """
        k = validate_k(k, self.num_classes)
        rows, shape = self._rows(inputs)
        values, classes = full_softmax_top_k(
            rows,
            self._table(),
            self._bias(),
            k,
        )
        shape = tf.concat([shape, [k]], axis=0)
        values = tf.cast(values, self.variable_dtype)
        return tf.reshape(values, shape), tf.reshape(classes, shape)

    def compute_output_shape(self, input_shape: Any) -> tuple[int | None, ...]:
        """The logits' shape: `[..., num_classes]`."""
        return (*input_shape[:-1], self.num_classes)

    def get_config(self) -> dict[str, Any]:
        """What `from_config` needs to make an equal layer, without its weights."""
        return {
            **super().get_config(),
            "num_true": self.num_true,
            "temperature": self.temperature,
            "ignore_class": self.ignore_class,
        }

    def _rows(self, inputs: Any) -> tuple[tf.Tensor, tf.Tensor]:
        """Inputs `[..., dim]` as scaled rows in the table's dtype; the shape `...`."""
        inputs = tf.cast(tf.convert_to_tensor(inputs), self.variable_dtype)
        if not self.built:
            self.build(inputs.shape)
        rows, shape = flatten_inputs(inputs, self.kernels[0].shape[-1])
        return rows if self.temperature == 1 else rows / self.temperature, shape

    def _bias(self) -> Any:
        bias = None if self.bias is None else self.bias.value
        return (
            bias if bias is None or self.temperature == 1 else bias / self.temperature
        )

    def _examples(
        self, inputs: Any, labels: Any, mask: Any
    ) -> tuple[tf.Tensor, Labels, tf.Tensor]:
        """Scaled rows `[N, dim]`, labels `[N, num_true]`, the losses' shape."""
        inputs = tf.convert_to_tensor(inputs)
        rows, shape = self._rows(inputs)
        targets = parse_labels(
            labels, inputs.shape[:-1], self.num_true, self.ignore_class, mask
        )
        # Before the sampler sees the labels: its own message would not say as much.
        assertions = validation.assert_ids_in_range(
            targets.ids, self.num_classes, "labels"
        )
        with tf.control_dependencies(assertions):
            return rows, targets._replace(ids=tf.identity(targets.ids)), shape
