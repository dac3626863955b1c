"""Clipping of gradients, row-sparse ones among them.

A row-sparse gradient is clipped as the table it stands for: its rows must be distinct,
and the zeros it leaves out change no norm and clip to zero.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import tensorflow as tf

Gradient: TypeAlias = "tf.Tensor | tf.IndexedSlices"


def on_values(change: Callable[[tf.Tensor], tf.Tensor], gradient: Gradient) -> Gradient:
    """What `change` makes of a gradient's numbers, each by itself."""
    if isinstance(gradient, tf.IndexedSlices):
        return tf.IndexedSlices(
            change(gradient.values), gradient.indices, gradient.dense_shape
        )
    return change(gradient)


def by_value(gradient: Gradient, limit: float) -> Gradient:
    """Every number between `-limit` and `limit`."""
    return on_values(lambda values: tf.clip_by_value(values, -limit, limit), gradient)


def by_norm(gradient: Gradient, limit: float) -> Gradient:
    """The gradient, shortened to the norm `limit` where it is longer."""
    return on_values(lambda values: tf.clip_by_norm(values, limit), gradient)


def global_factor(gradients: Sequence[Gradient], limit: float) -> tf.Tensor:
    """What all gradients are multiplied by, for a norm of `limit` of all together.

    NaN where the norm is not finite, so that a step which went wrong shows.
    """
    values = [g.values if isinstance(g, tf.IndexedSlices) else g for g in gradients]
    # Squares of float16 numbers overflow.
    wide = tf.float64 if any(v.dtype == tf.float64 for v in values) else tf.float32
    norm = tf.sqrt(
        tf.add_n([tf.reduce_sum(tf.square(tf.cast(v, wide))) for v in values])
    )
    return limit * tf.minimum(1.0 / norm, 1.0 / limit) + (norm - norm)
