"""Chunks of classes: their size, the loop over them, their logits, gradient rows.

A loop visits the chunks of a shard one after another, so that the logits of a single
chunk are alive at a time. Unrolled, TensorFlow would start all chunks at once.

Sizes are int32 and stay on the host. Ids and rows are int64: TensorFlow computes int32
on the host, which would wait for a GPU in every chunk.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from tfsampled._core.embedding.sharded_table import unit_rows
from tfsampled._core.full_softmax.shards import Shard
from tfsampled._core.static_ops import (
    Size,
    compute_dtype,
    maximum,
    minimum,
    num_rows,
    slice_rows,
)
from tfsampled._core.validation import in_range
from tfsampled._core.xla import tracing_for_xla

# The logits of a chunk should fit into a core's share of the outer cache.
CHUNK_BYTES = 8 << 20
MIN_CHUNK, MAX_CHUNK = 128, 1 << 16
CHUNK_MULTIPLE = 64

Carry = tuple[Any, ...]


def chunk_size(
    inputs: tf.Tensor, num_bytes: int | None = None, min_size: Size = 1
) -> Size:
    """Computes how many classes make a chunk.

    Args:
        inputs: `[N, D]`.
        num_bytes: What the logits of a chunk may take; `CHUNK_BYTES` by default.
        min_size: The least number of classes, whatever they take.

    Returns:
        An int, or an int32 scalar where the graph does not know `N`. XLA compiles for
        each `N` anew, so it is a constant there too.
    """
    max_logits = (num_bytes or CHUNK_BYTES) // compute_dtype(inputs.dtype).size
    low, high = maximum(MIN_CHUNK, min_size), maximum(MAX_CHUNK, min_size)
    size = max_logits // maximum(num_rows(inputs), 1) // CHUNK_MULTIPLE * CHUNK_MULTIPLE
    return minimum(maximum(size, low), high)


def first_chunk_size(rows: Size, size: Size, min_size: Size = 1) -> Size:
    """Computes the size of a first chunk that leaves a multiple of `size` rows."""
    # 10 rows, size 4 -> 2, which leaves 4 + 4; with min_size 3 -> 6, which leaves 4
    return minimum(rows, (rows - min_size) % size + min_size)


def scan_chunks(
    shard: Shard,
    size: int | tf.Tensor,
    body: Callable[..., Carry],
    carry: Carry,
    start: int | tf.Tensor = 0,
) -> Carry:
    """Runs `carry = body(first row, number of rows, *carry)` for each chunk of a shard.

    Args:
        size: Rows of a chunk. One chunk may have fewer: the last, and under XLA the
            first, before the loop, where sizes have to be constants.
        body: Called with the chunk and the carry; returns the carry.
        start: The first row; 0, or a `first_chunk_size`.

    Returns:
        The last carry.
    """
    rows = shard.num_rows
    if all(isinstance(value, int) for value in (rows, size, start)):
        if rows == start:
            return carry
        if rows - start <= size:
            return body(start, rows - start, *carry)
    xla = tracing_for_xla()
    if xla:
        size = minimum(size, rows)
        if isinstance(start, int) and start == 0:
            start = first_chunk_size(rows, size)
            carry = body(0, start, *carry)

    def loop_body(start: tf.Tensor, *carry: Any) -> Carry:
        chunk_rows = size if xla else tf.minimum(size, rows - start)
        return start + size, *body(start, chunk_rows, *carry)

    return tf.while_loop(
        lambda start, *_: start < rows,
        loop_body,
        (tf.convert_to_tensor(start, tf.int32), *carry),
        parallel_iterations=1,
    )[1:]


def scan_shards(
    shards: Sequence[Shard],
    size: int | tf.Tensor,
    body_of: Callable[[Shard], Callable[..., Carry]],
    carry: Carry,
    merge: Callable[[Carry, Carry], Carry],
) -> Carry:
    """Runs `scan_chunks` for all shards.

    Without devices, each shard continues with the carry of the one before. Shards with
    devices of their own run in parallel, and their carries are merged.

    Args:
        body_of: Returns the body for a shard.
        carry: Tensors, of no chunk.
        merge: Merges the carries of two devices.

    Returns:
        The carry of all chunks.
    """
    carries = [carry]
    for shard in shards:
        first = carries.pop() if shard.device is None else carry
        carries.append(shard.run(scan_chunks, shard, size, body_of(shard), first))
    return functools.reduce(merge, carries)


def chunk_rows(table: tf.Tensor, start: Any, size: Any, dtype: tf.DType) -> tf.Tensor:
    """Reads `size` rows of `table` from row `start` on, in `dtype`."""
    return tf.cast(slice_rows(table, start, size), dtype)


def chunk_logits(
    inputs: tf.Tensor, shard: Shard, start: Any, size: Any
) -> tuple[tf.Tensor, tf.Tensor]:
    """Computes the logits of a chunk from inputs `[N, D]`.

    Returns:
        The logits `[N, size]`, and the rows `[size, D]` that they are products with.
    """
    weights = chunk_rows(shard.weights, start, size, inputs.dtype)
    if shard.normalize:
        weights = unit_rows(weights)
    logits = tf.matmul(inputs, weights, transpose_b=True)
    if shard.biases is not None:
        biases = chunk_rows(shard.biases, start, size, inputs.dtype)
        logits = tf.nn.bias_add(logits, biases)
    return logits, weights


def find_in_chunk(
    rows: tf.Tensor, start: Any, size: Any
) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns which rows lie in a chunk, and their columns in it, 0 for the others."""
    # rows = [3, 6, 9], start 4, size 4 -> [False, True, False], [0, 2, 0]
    columns = rows - tf.cast(start, tf.int64)
    in_chunk = in_range(columns, size)
    return in_chunk, tf.where(in_chunk, columns, 0)


def empty_like(table: tf.Tensor) -> tf.Tensor:
    """Makes a tensor for `update_rows_inplace` to fill; bfloat16 rows as float16 bits.

    TensorFlow's in-place update has no bfloat16 kernel on a GPU.
    """
    dtype = tf.float16 if table.dtype == tf.bfloat16 else table.dtype
    if tracing_for_xla():
        return tf.zeros(tf.shape(table), dtype)
    return tf.raw_ops.Empty(shape=tf.shape(table), dtype=dtype)


def update_rows_inplace(
    table: tf.Tensor, start: Any, rows: tf.Tensor, dtype: tf.DType
) -> tf.Tensor:
    """Writes `rows` in `dtype` into a table of `empty_like`, from row `start` on.

    Nothing else may read the `table` passed in: without XLA its memory is changed. A
    scatter or a TensorArray would hold the table twice.
    """
    rows = bitcast(tf.cast(rows, dtype), table.dtype)
    ids = start + tf.range(tf.shape(rows)[0])
    if tracing_for_xla():
        return tf.tensor_scatter_nd_update(table, ids[:, tf.newaxis], rows)
    return tf.raw_ops.InplaceUpdate(x=table, i=ids, v=rows)


def bitcast(x: tf.Tensor, dtype: tf.DType) -> tf.Tensor:
    """Reads the bits of `x` as another dtype of the same size."""
    return x if x.dtype == dtype else tf.bitcast(x, dtype)
