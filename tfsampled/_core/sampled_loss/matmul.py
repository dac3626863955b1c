"""The matrix products of a block of logits and of its gradient.

bfloat16 inputs and rows are multiplied as they are, by the hardware's instructions for
them, which sum in float32. Off XLA TensorFlow's product then rounds the sum; under XLA
the sum is the result. Slopes of bfloat16 rows are bfloat16 numbers as well. A float16
holds no small probability: there slopes are float32, and the logits' product is narrow
under XLA only, as processors multiply float16 slowly.

Shapes: `n` examples, `D` features, `S` classes.
"""

from __future__ import annotations

import tensorflow as tf

from tfsampled._core.xla import tracing_for_xla


def logits(inputs: tf.Tensor, rows: tf.Tensor, dtype: tf.DType) -> tf.Tensor:
    """`[n, S]` in `dtype`, of inputs `[n, D]` of that dtype and rows `[S, D]`."""
    if rows.dtype == tf.float16 and not tracing_for_xla():
        rows = tf.cast(rows, dtype)
    return _product(tf.cast(inputs, rows.dtype), rows, dtype, transpose_y=True)


def cast_residuals(slopes: tf.Tensor, rows: tf.Tensor) -> tf.Tensor:
    """Slopes in the dtype in which they are multiplied."""
    return tf.cast(slopes, tf.bfloat16) if rows.dtype == tf.bfloat16 else slopes


def inputs_gradient(slopes: tf.Tensor, rows: tf.Tensor, dtype: tf.DType) -> tf.Tensor:
    """`[n, D]` in `dtype`, of `cast_residuals` slopes `[n, S]` and rows `[S, D]`."""
    return _product(slopes, tf.cast(rows, slopes.dtype), dtype)


def rows_gradient(
    slopes: tf.Tensor, inputs: tf.Tensor, scales: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Sums over examples: of `slopes * inputs` `[S, D]`, and of slopes `[S]`.

    Args:
      slopes: `[n, S]`, from `cast_residuals`.
      inputs: `[n, D]`.
      scales: `[n, 1]`, of the examples, in the dtype of `inputs` and of the result.
    """
    dtype = scales.dtype
    scaled = scales * inputs  # the thin factor, not the slopes
    if tracing_for_xla():
        # Compiled code is slow at products whose first factor is large and transposed,
        # and at more than one reader of the slopes: it gets one product for both.
        both = tf.cast(tf.concat([scaled, scales], axis=1), slopes.dtype)
        sums = _product(both, slopes, dtype, transpose_x=True)
        return tf.transpose(sums[:-1]), sums[-1]
    rows = _product(slopes, tf.cast(scaled, slopes.dtype), dtype, transpose_x=True)
    vector = tf.cast(scales[:, 0], slopes.dtype)
    sums = tf.linalg.matvec(slopes, vector, transpose_a=True)
    return rows, tf.cast(sums, dtype)


def _product(
    x: tf.Tensor,
    y: tf.Tensor,
    dtype: tf.DType,
    transpose_x: bool = False,
    transpose_y: bool = False,
) -> tf.Tensor:
    """The product in a dtype that may be wider than its factors'."""
    if x.dtype != dtype and tracing_for_xla():
        return tf.raw_ops.BatchMatMulV3(
            x=x, y=y, Tout=dtype, adj_x=transpose_x, adj_y=transpose_y
        )
    product = tf.matmul(x, y, transpose_a=transpose_x, transpose_b=transpose_y)
    return tf.cast(product, dtype)
