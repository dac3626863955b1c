"""Inputs and labels of any rank as rows, and the losses of rows weighted.

Shapes: `...` are the axes of examples (`[batch]` or `[batch, time]`), `N` their
product, `D` features, `T` true classes an example.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import tensorflow as tf


class Labels(NamedTuple):
    """Labels as the losses take them, padding replaced by ids that do no harm.

    Attributes:
        ids: int64 `[N, T]`.
        label_mask: bool `[N, T]`, False for padding; None where there can be none.
        example_mask: bool `[...]`, True where an example has a label; None if all have.
    """

    ids: tf.Tensor
    label_mask: tf.Tensor | None
    example_mask: tf.Tensor | None

    @property
    def ragged(self) -> bool:
        """Whether examples may differ in how many labels they have."""
        return self.label_mask is not None and self.ids.shape[1] > 1

    def label_weights(self, dtype: tf.DType) -> tf.Tensor | None:
        """What each label weighs in its example, `[N, T]`; None for `1 / T`."""
        if not self.ragged:
            return None
        real = tf.cast(self.label_mask, dtype)
        return tf.math.divide_no_nan(real, tf.reduce_sum(real, axis=1, keepdims=True))


def flatten_inputs(inputs: tf.Tensor, dim: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Inputs `[..., dim]` as `[N, dim]`, and the shape `...` as a tensor."""
    if inputs.shape.rank is None or inputs.shape.rank < 2:
        raise ValueError(
            f"inputs have the shape {inputs.shape}; pass [batch, dim] or "
            "[batch, time, dim]."
        )
    if inputs.shape[-1] != dim:
        raise ValueError(
            f"inputs have the shape {inputs.shape}, but a row of the table has "
            f"{dim} numbers: the last axis of inputs must be {dim}."
        )
    return tf.reshape(inputs, [-1, dim]), tf.shape(inputs)[:-1]


def integer_labels(values: Any) -> tf.Tensor:
    """Labels as a tensor of integers.

    Raises:
        ValueError: They are none.
    """
    values = tf.convert_to_tensor(values)
    if not values.dtype.is_integer:
        # Not which floats: Keras has made float32 of whatever a user passed.
        kind = "floats" if values.dtype.is_floating else f"of dtype {values.dtype.name}"
        raise ValueError(
            f"labels are {kind}, but must be class ids: pass integers (of one-hot "
            "labels the argmax, of whole numbers in floats a cast)."
        )
    return values


def parse_labels(
    values: Any,
    examples: tf.TensorShape,
    num_true: int,
    ignore_class: int | None,
    mask: Any,
) -> Labels:
    """Labels `[...]` or `[..., num_true]` of examples `[...]`.

    Args:
        values: Integers.
        examples: The examples' static shape, `...`.
        num_true: The labels of an example.
        ignore_class: The label that marks padding, or None.
        mask: Boolean `[...]`, False where an example is padding whatever its label
            is; or None.

    Raises:
        ValueError: Dtypes or shapes do not fit.
    """
    values = integer_labels(values)
    allowed = [examples + [num_true]]
    if num_true == 1:
        allowed.insert(0, examples)
    if not any(
        shape.is_compatible_with(values.shape) and values.shape.rank is not None
        for shape in allowed
    ):
        raise ValueError(
            f"labels have the shape {values.shape}, the examples {examples} and "
            f"num_true is {num_true}: labels must have the shape "
            f"{' or '.join(str(shape) for shape in allowed)}. Take the argmax of "
            "one-hot labels, and set the layer's num_true where an example has several."
        )
    if values.shape.rank == examples.rank:
        values = values[..., tf.newaxis]
    ids = tf.cast(values, tf.int64)
    if ignore_class is None and mask is None:
        return Labels(tf.reshape(ids, [-1, num_true]), None, None)
    real = tf.ones_like(ids, tf.bool) if ignore_class is None else ids != ignore_class
    if mask is not None:
        mask = tf.cast(broadcast_to_examples(mask, examples, "mask"), tf.bool)
        real &= mask[..., tf.newaxis]
    keep = tf.reduce_any(real, axis=-1)
    real = tf.reshape(real, [-1, num_true])
    ids = tf.reshape(ids, [-1, num_true])
    # Padding repeats the example's first label, or is class 0 where there is none.
    first = tf.argmax(tf.cast(real, tf.int32), axis=1)[:, tf.newaxis]
    fill = tf.gather(ids, first, batch_dims=1)
    fill = tf.where(tf.gather(real, first, batch_dims=1), fill, 0)
    return Labels(tf.where(real, ids, fill), real, keep)


def apply_weights(
    losses: tf.Tensor, sample_weight: Any, example_mask: tf.Tensor | None
) -> tf.Tensor:
    """Losses `[...]` times their weights, and 0 where an example is masked."""
    if example_mask is not None:
        losses = tf.where(example_mask, losses, tf.zeros_like(losses))
    if sample_weight is not None:
        weight = broadcast_to_examples(sample_weight, losses.shape, "sample_weight")
        losses *= tf.cast(weight, losses.dtype)
    return losses


def broadcast_to_examples(
    values: Any, examples: tf.TensorShape, name: str
) -> tf.Tensor:
    """`values` with the examples' axes: `[batch]` or `[batch, 1]` is one a sequence."""
    values = tf.convert_to_tensor(values)
    given, rank = values.shape, examples.rank
    if given.rank == rank + 1 and given[-1] == 1:
        values = tf.squeeze(values, axis=-1)
    while values.shape.rank is not None and values.shape.rank < rank:
        values = values[..., tf.newaxis]
    if not _broadcasts(values.shape, examples):
        raise ValueError(
            f"{name} has the shape {given}, the losses {examples}: pass one value for "
            "each loss, or one for each sequence."
        )
    return values


def _broadcasts(shape: tf.TensorShape, to: tf.TensorShape) -> bool:
    return shape.rank == to.rank and all(
        one is None or other is None or one in (1, other)
        for one, other in zip(shape, to, strict=True)
    )
