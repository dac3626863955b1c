"""The matrix products of logits and of their gradient.

bfloat16 inputs and rows are multiplied in bfloat16, with sums in float32, if the
processor has instructions for it; otherwise in float32. Without XLA TensorFlow rounds
such a sum to bfloat16; under XLA the sum is the result. Derivatives by logits of rows
in bfloat16 are cast to bfloat16, too. float16 cannot hold small probabilities: there
the derivatives are float32, and the logits are multiplied in float16 under XLA only,
since CPUs multiply float16 slowly.

Shapes: `n` examples, `D` features, `S` sampled classes.
"""

from __future__ import annotations

import functools
import pathlib

import tensorflow as tf

from tfsampled._core.static_ops import compute_dtype
from tfsampled._core.xla import tracing_for_xla

# With so many examples for each column the transposed product is faster. Measured on 2
# cores with AVX2, dim 32 to 512, batch 32 to 8,192.
MIN_RATIO = 8
UNKNOWN_BATCH = 512  # assumed if the graph does not know the batch size

# CPU flags of instructions for bfloat16: two of x86-64, one of Arm.
BFLOAT16_FLAGS = {"avx512_bf16", "amx_bf16", "bf16"}


def factor_dtype(rows: tf.DType, inputs: tf.DType) -> tf.DType:
    """Returns the dtype in which rows and inputs are multiplied."""
    if rows == inputs == tf.bfloat16 and multiplies_bfloat16():
        return rows
    if rows == inputs == tf.float16 and tracing_for_xla():
        return rows
    return compute_dtype(inputs)


@functools.cache
def multiplies_bfloat16() -> bool:
    """Tells whether the processor has instructions for bfloat16, or there is a GPU.

    Other processors convert to float32 and back in each product, which takes longer
    than a product in float32.
    """
    if any(map(tf.config.list_physical_devices, ("GPU", "TPU"))):
        return True
    try:
        processor = pathlib.Path("/proc/cpuinfo").read_text()
    except OSError:  # not on Linux
        return False
    return not BFLOAT16_FLAGS.isdisjoint(processor.split())


def logits(inputs: tf.Tensor, rows: tf.Tensor, dtype: tf.DType) -> tf.Tensor:
    """Computes `[n, S]` in `dtype` from inputs `[n, D]` of `dtype`, rows `[S, D]`."""
    return _matmul(tf.cast(inputs, rows.dtype), rows, dtype, transpose_y=True)


def cast_residuals(d_logits: tf.Tensor, rows: tf.Tensor) -> tf.Tensor:
    """Casts `d_logits` to the dtype in which the gradient multiplies it."""
    return tf.cast(d_logits, tf.bfloat16) if rows.dtype == tf.bfloat16 else d_logits


def inputs_gradient(d_logits: tf.Tensor, rows: tf.Tensor, dtype: tf.DType) -> tf.Tensor:
    """Computes `[n, D]` in `dtype` from `cast_residuals` `[n, S]` and rows `[S, D]`."""
    return _matmul(d_logits, tf.cast(rows, d_logits.dtype), dtype)


def is_transposed(inputs: tf.Tensor) -> bool:
    """Tells whether to compute the gradient of the rows as `(x^T d)^T`.

    On a CPU a product is slow if its first factor is large and transposed. But if `x`
    has many columns, transposing the result without XLA takes longer than that saves.
    """
    if tracing_for_xla():
        return True
    batch, dim = inputs.shape
    has_few_columns = dim is not None and dim * MIN_RATIO <= (batch or UNKNOWN_BATCH)
    return has_few_columns and not tf.config.list_physical_devices("GPU")


def row_sums(
    d_logits: tf.Tensor, scaled_inputs: tf.Tensor, dy: tf.Tensor, transposed: bool
) -> tuple[tf.Tensor, ...]:
    """Computes what some examples add to the gradients of the rows and their biases.

    Args:
        d_logits: `[n, S]`, from `cast_residuals`; without the factor `dy`.
        scaled_inputs: `[n, D]`, `dy * inputs`.
        dy: `[n, 1]`, a factor for each example, in the dtype of the results.
        transposed: Whether the result is `[D + 1, S]`, by one product that reads
            `d_logits` once; otherwise it is `[S, D]` and `[S]`.
    """
    dtype = dy.dtype
    if transposed:
        both = tf.cast(tf.concat([scaled_inputs, dy], axis=1), d_logits.dtype)
        return (_matmul(both, d_logits, dtype, transpose_x=True),)
    scaled_inputs, dy = (tf.cast(x, d_logits.dtype) for x in (scaled_inputs, dy))
    rows = _matmul(d_logits, scaled_inputs, dtype, transpose_x=True)
    biases = _matmul(d_logits, dy, dtype, transpose_x=True)
    return rows, tf.squeeze(biases, axis=1)


def rows_gradient(*sums: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the gradients `[S, D]` and `[S]` that `row_sums` computed."""
    if len(sums) == 2:
        return sums
    rows, biases = tf.split(sums[0], [-1, 1])
    return tf.transpose(rows), tf.squeeze(biases, axis=0)


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
