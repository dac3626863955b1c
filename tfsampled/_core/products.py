"""The matrix products of a block of logits and of its gradient.

Shapes: `n` examples, `D` features, `S` classes.
"""

from __future__ import annotations

import tensorflow as tf


def logits(inputs: tf.Tensor, rows: tf.Tensor, dtype: tf.DType) -> tf.Tensor:
    """`[n, S]` in `dtype`, of inputs `[n, D]` and rows `[S, D]`."""
    inputs, rows = tf.cast(inputs, dtype), tf.cast(rows, dtype)
    return tf.matmul(inputs, rows, transpose_b=True)


def inputs_gradient(slopes: tf.Tensor, rows: tf.Tensor) -> tf.Tensor:
    """`[n, D]` in the dtype of slopes `[n, S]`."""
    return tf.matmul(slopes, tf.cast(rows, slopes.dtype))


def rows_gradient(slopes: tf.Tensor, inputs: tf.Tensor, scales: tf.Tensor) -> tf.Tensor:
    """`[S, D]` in the dtype of slopes `[n, S]`, of inputs `[n, D]`, scales `[n, 1]`."""
    inputs = tf.cast(inputs, slopes.dtype) * scales
    return tf.matmul(slopes, inputs, transpose_a=True)
