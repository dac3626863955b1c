"""The matrix products of sampled logits and of their gradient.

bfloat16 inputs and rows are multiplied as they are, by the hardware's instructions for
them, which sum in float32. Off XLA TensorFlow rounds the sum to bfloat16; under XLA the
sum is the result. Derivatives by logits of bfloat16 rows are cast to bfloat16 as well.
float16 cannot hold small probabilities: there the derivatives are float32, and the
logits are multiplied in float16 under XLA only, since CPUs multiply float16 slowly.

Shapes: `n` examples, `D` features, `S` sampled classes.
"""

from __future__ import annotations

import tensorflow as tf

from tfsampled._core.xla import tracing_for_xla


def logits(inputs: tf.Tensor, rows: tf.Tensor, dtype: tf.DType) -> tf.Tensor:
    """Computes `[n, S]` in `dtype` from inputs `[n, D]` of `dtype`, rows `[S, D]`."""
    if rows.dtype == tf.float16 and not tracing_for_xla():
        rows = tf.cast(rows, dtype)
    return _matmul(tf.cast(inputs, rows.dtype), rows, dtype, transpose_y=True)


def cast_residuals(d_logits: tf.Tensor, rows: tf.Tensor) -> tf.Tensor:
    """Casts `d_logits` to the dtype in which the gradient multiplies it."""
    return tf.cast(d_logits, tf.bfloat16) if rows.dtype == tf.bfloat16 else d_logits


def inputs_gradient(d_logits: tf.Tensor, rows: tf.Tensor, dtype: tf.DType) -> tf.Tensor:
    """Computes `[n, D]` in `dtype` from `cast_residuals` `[n, S]` and rows `[S, D]`."""
    return _matmul(d_logits, tf.cast(rows, d_logits.dtype), dtype)


def rows_gradient(
    d_logits: tf.Tensor, inputs: tf.Tensor, dy: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Computes the gradients of the rows `[S, D]` and of their biases `[S]`.

    Args:
        d_logits: `[n, S]`, from `cast_residuals`.
        inputs: `[n, D]`.
        dy: `[n, 1]`, a factor for each example, in the dtype of `inputs` and of the
            results.
    """
    dtype = dy.dtype
    scaled = dy * inputs  # scales the small factor, not the derivatives `[n, S]`
    if tracing_for_xla():
        # Compiled code is slow if the first factor of a product is large and
        # transposed, or if the derivatives are read twice: one product gives both.
        both = tf.cast(tf.concat([scaled, dy], axis=1), d_logits.dtype)
        sums = _matmul(both, d_logits, dtype, transpose_x=True)
        return tf.transpose(sums[:-1]), sums[-1]
    rows = _matmul(d_logits, tf.cast(scaled, d_logits.dtype), dtype, transpose_x=True)
    column = tf.cast(dy, d_logits.dtype)
    biases = _matmul(d_logits, column, dtype, transpose_x=True)
    return rows, tf.squeeze(biases, axis=1)


def _matmul(
    x: tf.Tensor,
    y: tf.Tensor,
    dtype: tf.DType,
    transpose_x: bool = False,
    transpose_y: bool = False,
) -> tf.Tensor:
    """Multiplies matrices; `dtype` may be wider than that of the factors."""
    if x.dtype != dtype and tracing_for_xla():
        return tf.raw_ops.BatchMatMulV3(
            x=x, y=y, Tout=dtype, adj_x=transpose_x, adj_y=transpose_y
        )
    product = tf.matmul(x, y, transpose_a=transpose_x, transpose_b=transpose_y)
    return product if x.dtype == dtype else tf.cast(product, dtype)
