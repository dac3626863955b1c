"""Blocks of classes: how wide, in which order, their logits, and their gradients' rows.

The blocks of a part are visited one after another by a loop, so that one block's
logits are alive at a time; unrolled, TensorFlow would start them all.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from tfsampled._core.full_softmax.shards import Part
from tfsampled._core.xla import tracing_for_xla

# What the logits of a block should fit into: a share of a core's outer cache.
BLOCK_BYTES = 8 << 20
MIN_WIDTH, MAX_WIDTH = 128, 1 << 16
MULTIPLE = 64  # of which widths between the two are

State = tuple[Any, ...]


def compute_dtype(dtype: tf.DType) -> tf.DType:
    """What logits of inputs of `dtype` are carried in: at least float32."""
    return tf.float64 if dtype == tf.float64 else tf.float32


def width_of(
    inputs: tf.Tensor, budget: int | None = None, at_least: int = 1
) -> int | tf.Tensor:
    """How many classes make a block for inputs `[N, D]`.

    Args:
      budget: bytes that the logits of a block may take, `BLOCK_BYTES` by default.
      at_least: the fewest classes, whatever they take.

    Returns:
      An `int`, or an int32 scalar where the graph does not know `N`.
    """
    most = (budget or BLOCK_BYTES) // compute_dtype(inputs.dtype).size
    batch = tf.compat.dimension_value(inputs.shape[0])
    if batch is None and tracing_for_xla():
        batch = 1024  # XLA needs to know the width of a block while it is traced
    low, high = max(MIN_WIDTH, at_least), max(MAX_WIDTH, at_least)
    if batch is None:
        fitting = most // tf.maximum(tf.shape(inputs)[0], 1)
        return tf.clip_by_value(fitting // MULTIPLE * MULTIPLE, low, high)
    return min(max(most // max(batch, 1) // MULTIPLE * MULTIPLE, low), high)


def sweep(
    part: Part,
    width: int | tf.Tensor,
    visit: Callable[..., State],
    state: State,
    start: int | tf.Tensor = 0,
) -> State:
    """`state = visit(first row, number of rows, *state)` for each block of a part.

    The last block may have fewer rows than `width`. Under XLA, which must know the
    number of rows, it comes after the loop.
    """
    rows = part.num_rows
    if isinstance(rows, int) and isinstance(width, int) and isinstance(start, int):
        if rows - start <= width:
            return visit(start, rows - start, *state) if rows > start else state
        if tracing_for_xla():
            end = rows - (rows - start) % width
            state = _loop(lambda at: (at, width), end, width, visit, state, start)
            return visit(end, rows - end, *state) if end < rows else state
    return _loop(
        lambda at: (at, tf.minimum(width, rows - at)), rows, width, visit, state, start
    )


def _loop(
    block: Callable[[tf.Tensor], tuple[Any, Any]],
    end: Any,
    width: Any,
    visit: Callable[..., State],
    state: State,
    start: Any,
) -> State:
    return tf.while_loop(
        lambda at, *_: at < end,
        lambda at, *state: (at + width, *visit(*block(at), *state)),
        (tf.convert_to_tensor(start, tf.int32), *state),
        parallel_iterations=1,
    )[1:]


def rows_of(table: tf.Tensor, start: Any, size: Any, dtype: tf.DType) -> tf.Tensor:
    """`size` rows of `table` from `start` on, in `dtype`."""
    rest = table.shape.rank - 1
    rows = tf.slice(table, [start] + [0] * rest, [size] + [-1] * rest)
    return tf.cast(rows, dtype)


def block_logits(
    inputs: tf.Tensor,
    part: Part,
    start: Any,
    size: Any,
    less: tf.Tensor | None = None,
) -> tuple[tf.Tensor, tf.Tensor]:
    """The logits `[N, size]` of a block, and its rows `[size, D]`.

    With `less`, `[N, 1]`, the logits less that: biases and `less` are then columns of
    the product, which costs less than passes over the logits.
    """
    rows = rows_of(part.weights, start, size, inputs.dtype)
    biases = part.biases
    if biases is not None:
        biases = rows_of(biases, start, size, inputs.dtype)
    if less is None:
        logits = tf.matmul(inputs, rows, transpose_b=True)
        return logits if biases is None else tf.nn.bias_add(logits, biases), rows
    ones = tf.ones_like(rows[:, :1])
    left, right = [inputs, -less], [rows, ones]
    if biases is not None:
        left.append(tf.ones_like(less))
        right.append(biases[:, tf.newaxis])
    product = tf.matmul(tf.concat(left, 1), tf.concat(right, 1), transpose_b=True)
    return product, rows


def unwritten(table: tf.Tensor) -> tf.Tensor:
    """A tensor like `table`, for `written` to fill in place, every row of it."""
    shape = tf.shape(table)
    if tracing_for_xla():
        return tf.zeros(shape, table.dtype)
    return tf.raw_ops.Empty(shape=shape, dtype=table.dtype)


def written(table: tf.Tensor, start: Any, size: Any, rows: tf.Tensor) -> tf.Tensor:
    """`table`, what `unwritten` made, with `rows` from row `start` on.

    Nothing else may read the `table` that comes in: off XLA it is the same memory. A
    scatter or a TensorArray would need a second table here, and time to copy it.
    """
    rows = tf.cast(rows, table.dtype)
    ids = start + tf.range(size)
    if tracing_for_xla():
        return tf.tensor_scatter_nd_update(table, ids[:, tf.newaxis], rows)
    return tf.raw_ops.InplaceUpdate(x=table, i=ids, v=rows)
