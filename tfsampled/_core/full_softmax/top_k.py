"""The greatest logits and their class ids, without a tensor of all the logits.

`tf.math.top_k` spends most of its time on classes far from the top. Here neighboring
classes of a chunk form groups, and only the groups whose maximum is among the `k`
greatest logits so far are searched.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from tfsampled._core.embedding.class_logits import class_logits
from tfsampled._core.embedding.sharded_table import Table
from tfsampled._core.full_softmax.class_chunks import (
    Carry,
    chunk_logits,
    chunk_size,
    first_chunk_size,
    scan_chunks,
)
from tfsampled._core.full_softmax.shards import Shard, shards_of
from tfsampled._core.static_ops import compute_dtype, minimum, num_columns, num_rows
from tfsampled._core.validation import in_range
from tfsampled._core.xla import can_branch_on_data, tracing_for_xla

CHUNK_BYTES = 32 << 20  # more than the loss's: each chunk costs two searches
MAX_GROUP = 32


def full_softmax_top_k(
    inputs: tf.Tensor,
    weights: Table,
    biases: Table | None,
    k: int,
    exclude: tf.Tensor | None = None,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Finds the `k` greatest logits of each example.

    Of equal logits the lower id comes first. NaN comes last, after minus infinity. The
    logits have gradients; that of a table is a `tf.IndexedSlices` of the classes found.

    Args:
        inputs: `[N, D]`, floating.
        weights: `V` rows `[D]`.
        biases: `V` rows `[]`, or None.
        k: At most `V`.
        exclude: int64 `[N, n]`, classes to leave out, -1 for none; or None.

    Returns:
        The logits `[N, k]` in descending order, float64 for inputs of float64 and else
        float32; and their ids, int64 `[N, k]`. Where classes run out, minus infinity
        and -1. Under XLA, NaN and -1 for an example with an id in `exclude` that is out
        of range.
    """
    num_found = k if exclude is None else k + num_columns(exclude)
    inputs = tf.cast(inputs, compute_dtype(inputs.dtype))
    tables = [  # with their variables read
        table._replace(shards=tuple(map(tf.convert_to_tensor, table.shards)))
        for table in (weights, biases)
        if table is not None
    ]
    candidates = [
        shard.run(_shard_top_k, tf.stop_gradient(inputs), shard, num_found)
        for shard in shards_of(tables[0], *tables[1:])
    ]
    if len(candidates) == 1:
        values, ids = candidates[0]
    else:
        values, ids = _merge(candidates, num_found)
    values = _restore_nan(values)
    if exclude is None:
        return _with_gradient(values, ids, inputs, tables), ids
    values, ids, is_class = _drop(values, ids, exclude, k)
    values = _with_gradient(values, ids, inputs, tables)
    values = tf.where(is_class, values, float("-inf"))
    ids = tf.where(is_class, ids, -1)
    if tracing_for_xla():  # which refuses no id
        known = tf.equal(exclude, -1) | in_range(exclude, weights.num_rows())
        known = tf.reduce_all(known, axis=1, keepdims=True)
        values, ids = tf.where(known, values, math.nan), tf.where(known, ids, -1)
    return values, ids


def merge_top_k(
    parts: Sequence[tuple[tf.Tensor, tf.Tensor]], k: int
) -> tuple[tf.Tensor, tf.Tensor]:
    """Merges results of `full_softmax_top_k` for parts of the classes."""
    values, ids = _merge([(_replace_nan(values), ids) for values, ids in parts], k)
    return _restore_nan(values), ids


def _drop(
    values: tf.Tensor, ids: tf.Tensor, exclude: tf.Tensor, k: int
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Moves excluded classes to the end, and takes the first `k`.

    By `tf.math.top_k` alone, which LiteRT has; it has no binary search.

    Returns:
        Values, ids and whether each is a class that is not excluded; `[N, k]`.
    """
    # ids = [[4, 7, 1]], exclude = [[7, -1]], k = 2
    # -> keys = [[15, 14, 8, 2, -1]], of which 14 follows 15: 7 is excluded
    # -> columns = [[3, 1, 0, 2, 4]], order = [[0, 2]], ids = [[4, 1]]
    num_found = num_columns(ids)
    keys = tf.concat([2 * ids, 2 * exclude + 1], axis=1)
    keys, columns = tf.math.top_k(keys, num_columns(keys))
    excluded = tf.equal(keys[:, 1:], keys[:, :-1] - 1)
    excluded = tf.pad(excluded, [[0, 0], [1, 0]]) | (columns >= num_found)
    left_out = tf.where(excluded, tf.int32.max // 2, 0)
    order = -tf.math.top_k(-(columns + left_out), k).values
    is_class = order < num_found
    order = tf.where(is_class, order, 0)
    values, ids = (tf.gather(x, order, batch_dims=1) for x in (values, ids))
    return values, ids, is_class


def _with_gradient(
    values: tf.Tensor, ids: tf.Tensor, inputs: tf.Tensor, tables: list[Table]
) -> tf.Tensor:
    """Returns `values` with the gradients of the logits of the classes `ids`.

    Without gradients if the tables lie on several devices: that would copy them.
    """
    if tables[0].devices is not None:
        return values

    @tf.custom_gradient
    def forward(inputs: tf.Tensor, *shards: tf.Tensor) -> Any:
        def backward(dy: tf.Tensor) -> list[Any]:
            with tf.GradientTape() as tape:
                tape.watch((inputs, shards))
                rest = iter(shards)
                operands = [
                    table._replace(shards=tuple(next(rest) for _ in table.shards))
                    for table in tables
                ]
                logits = class_logits(ids, inputs, *operands)
            return tape.gradient(logits, [inputs, *shards], dy)

        return tf.identity(values), backward

    return forward(inputs, *(shard for table in tables for shard in table.shards))


def _shard_top_k(
    inputs: tf.Tensor, shard: Shard, k: int | tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Finds the top `min(k, R)` rows of a shard: logits and class ids, `[N, ...]`."""
    size = chunk_size(inputs, CHUNK_BYTES, min_size=k)
    first_size = first_chunk_size(shard.num_rows, size, min_size=k)
    k = minimum(k, shard.num_rows)
    group = _group_size(size, k)

    def body(start: Any, size: Any, values: Any, rows: Any) -> Carry:
        logits = _replace_nan(chunk_logits(inputs, shard, start, size)[0])
        candidates, columns = _candidates(logits, size, values, k, group)
        values = tf.concat([values, candidates], axis=1)
        rows = tf.concat([rows, tf.cast(start, tf.int64) + columns], axis=1)
        return _top_k(values, rows, k)

    logits = _replace_nan(chunk_logits(inputs, shard, 0, first_size)[0])
    values, rows = tf.math.top_k(logits, k)
    carry = values, tf.cast(rows, tf.int64)
    values, rows = scan_chunks(shard, size, body, carry, first_size)
    return values, tf.cast(shard.first_class, tf.int64) + shard.stride * rows


def _replace_nan(logits: tf.Tensor) -> tf.Tensor:
    """Replaces NaN by minus infinity, and that by the lowest finite number.

    Searches differ in where they place NaN. Here it comes after minus infinity.
    """

    def replaced() -> tf.Tensor:
        minus_infinity = tf.constant(float("-inf"), logits.dtype)
        finite = tf.maximum(logits, logits.dtype.min)
        # XLA sorts -0 below 0.
        finite = tf.where(tf.equal(finite, 0), tf.zeros_like(finite), finite)
        return tf.where(tf.math.is_nan(logits), minus_infinity, finite)

    if not can_branch_on_data():
        return replaced()
    # A sum takes a tenth of the time, and is not finite where a logit is not.
    return tf.cond(
        tf.math.is_finite(tf.reduce_sum(logits)), lambda: tf.identity(logits), replaced
    )


def _restore_nan(values: tf.Tensor) -> tf.Tensor:
    """Undoes `_replace_nan`."""
    result = tf.where(values > values.dtype.min, values, float("-inf"))
    return tf.where(tf.equal(values, float("-inf")), values * 0, result)


def _group_size(size: int | tf.Tensor, k: int | tf.Tensor) -> int:
    """Chooses how many classes form a group: a power of 2; 1 for no groups.

    Few chunks have `k` groups with a logit above the `k` greatest so far, so a group
    may hold many classes. But `k` groups should be less than the chunk.
    """
    size, k = (x if isinstance(x, int) else 4096 for x in (size, k))
    group = 1
    while group < MAX_GROUP and 4 * group * k <= size:
        group *= 2
    return group


def _candidates(
    logits: tf.Tensor, size: Any, values: tf.Tensor, k: Any, group: int
) -> tuple[tf.Tensor, tf.Tensor]:
    """Finds the logits of a chunk that may be among the `k` greatest.

    Args:
        logits: `[N, size]`.
        values: `[N, k]`, the greatest logits of lower ids, in descending order.
        group: How many neighbors share a maximum.

    Returns:
        Logits and their columns, int64, `[N, C]`, in ascending order of columns. Some
        may lie past the end of the chunk, with a logit of minus infinity: `values`,
        which come first, win a tie with them.
    """
    # group 2, k 1, values = [[4]], logits = [[1, 2, 5, 3, 0]]
    # -> groups = [[[1, 2], [5, 3], [0, -inf]]], maxima = [[2, 5, 0]], num_groups 1
    # -> group_ids = [[1]], candidates = [[5, 3]], columns = [[2, 3]]
    if group == 1:
        columns = tf.cast(tf.range(size), tf.int64)
        return logits, tf.broadcast_to(columns, tf.shape(logits))
    logits = tf.pad(logits, [[0, 0], [0, -size % group]], constant_values=float("-inf"))
    count = (size + group - 1) // group
    groups = tf.reshape(logits, [-1, count, group])
    maxima = tf.reduce_max(groups, axis=2)
    num_groups = minimum(k, count)
    if can_branch_on_data():
        above = tf.cast(maxima > values[:, -1:], tf.int32)
        most_above = tf.reduce_max(tf.reduce_sum(above, axis=1))
        num_groups = tf.minimum(num_groups, tf.maximum(most_above, 0))  # if N is 0
    # top_k takes the groups of lower ids where maxima are equal
    group_ids = tf.cast(tf.math.top_k(maxima, num_groups).indices, tf.int64)
    # Ascending. LiteRT goes astray in tf.sort of int64 in a loop.
    group_ids = tf.math.top_k(group_ids, num_groups).values[:, ::-1]
    candidates = tf.gather(groups, group_ids, batch_dims=1)
    columns = tf.expand_dims(group_ids, 2) * group + tf.range(group, dtype=tf.int64)
    shape = [num_rows(logits), num_groups * group]  # of which any may be 0
    return tf.reshape(candidates, shape), tf.reshape(columns, shape)


def _merge(
    shards: list[tuple[tf.Tensor, tf.Tensor]], k: int | tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Merges the top classes of all shards."""
    values, ids = (tf.concat(pieces, axis=1) for pieces in zip(*shards, strict=True))
    k = minimum(k, num_columns(ids))
    order = tf.argsort(ids, axis=1)  # so that the lower id wins a tie
    values, ids = (tf.gather(x, order, batch_dims=1) for x in (values, ids))
    return _top_k(values, ids, k)


def _top_k(values: tf.Tensor, ids: tf.Tensor, k: Any) -> tuple[tf.Tensor, tf.Tensor]:
    """Finds the `k` greatest values `[N, C]` and their ids; the first wins a tie."""
    values, columns = tf.math.top_k(values, k)
    return values, tf.gather(ids, columns, batch_dims=1)
