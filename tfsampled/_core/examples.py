"""Inputs and labels of any rank as rows, and the losses of rows weighted.

Shapes: `...` are the axes of examples (`[batch]` or `[batch, time]`), `N` their
product, `D` features, `T` true classes an example.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf


def rows(inputs: tf.Tensor, dim: int) -> tuple[tf.Tensor, tf.Tensor]:
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


def targets(labels: Any, inputs: tf.Tensor, num_true: int) -> tf.Tensor:
    """Labels `[...]` or `[..., num_true]` of inputs `[..., D]` as int64 `[N, T]`."""
    labels = tf.convert_to_tensor(labels)
    if not labels.dtype.is_integer:
        raise ValueError(
            f"labels have the dtype {labels.dtype.name}; they are class ids: pass "
            "integers (one-hot or float labels: take their argmax, or cast them)."
        )
    examples = inputs.shape[:-1]
    allowed = [examples + [num_true]]
    if num_true == 1:
        allowed.insert(0, examples)
    if not any(
        shape.is_compatible_with(labels.shape) and labels.shape.rank is not None
        for shape in allowed
    ):
        raise ValueError(
            f"labels have the shape {labels.shape}, inputs {inputs.shape} and num_true "
            f"is {num_true}: labels must have the shape "
            f"{' or '.join(str(shape) for shape in allowed)}."
        )
    return tf.reshape(tf.cast(labels, tf.int64), [-1, num_true])


def weighted(losses: tf.Tensor, sample_weight: Any, mask: Any) -> tf.Tensor:
    """Losses `[...]` times their weights, and 0 where the mask is False."""
    if mask is not None:
        mask = tf.cast(aligned(mask, losses.shape, "mask"), tf.bool)
        losses = tf.where(mask, losses, tf.zeros_like(losses))
    if sample_weight is not None:
        weight = aligned(sample_weight, losses.shape, "sample_weight")
        losses *= tf.cast(weight, losses.dtype)
    return losses


def aligned(values: Any, examples: tf.TensorShape, name: str) -> tf.Tensor:
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
