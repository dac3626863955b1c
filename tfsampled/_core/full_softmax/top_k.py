"""The best classes: the greatest logits and their class ids.

Most of the time of `tf.math.top_k` goes into classes that are far from the best. Here
the neighbours among a block's classes form groups, and only the groups whose maximum
is among the best so far are looked into.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import tensorflow as tf

from tfsampled._core.embedding.class_logits import logits_of_classes
from tfsampled._core.embedding.table import Table
from tfsampled._core.full_softmax.chunks import (
    State,
    block_logits,
    compute_dtype,
    sweep,
    width_of,
)
from tfsampled._core.full_softmax.shards import Part, parts_of, table_of
from tfsampled._core.xla import tracing_for_xla

BLOCK_BYTES = 32 << 20  # wider than the loss's: each block costs two searches
MAX_GROUP = 32


def top_k(
    inputs: tf.Tensor, weights: Any, biases: Any, k: int
) -> tuple[tf.Tensor, tf.Tensor]:
    """The `k` best logits `[N, k]` in falling order, and their ids, int32.

    Of equal logits the lower id comes first. The logits have gradients; a table's is a
    `tf.IndexedSlices` of the best classes.

    Args:
      inputs: `[N, D]`, floating.
      weights: `[V, D]`, a tensor or a `Table`.
      biases: `[V]`, likewise, or `None`.
      k: at most `V`.

    Returns:
      float64 for inputs of float64, else float32; and int32.
    """
    inputs = tf.cast(inputs, compute_dtype(inputs.dtype))
    tables = [_read(weights)] + ([] if biases is None else [_read(biases)])
    parts = parts_of(tables[0], tables[1] if len(tables) > 1 else None)
    found = [_of_part(tf.stop_gradient(inputs), part, k) for part in parts]
    values, ids = found[0] if len(found) == 1 else _merged(found, k)
    return _differentiable(values, ids, inputs, tables), ids


def _read(params: Any) -> Table:
    """The table with its variables read."""
    table = table_of(params)
    shards = tuple(tf.convert_to_tensor(shard) for shard in table.shards)
    return dataclasses.replace(table, shards=shards)


def _differentiable(
    values: tf.Tensor, ids: tf.Tensor, inputs: tf.Tensor, tables: list[Table]
) -> tf.Tensor:
    """`values`, with the gradients of the logits of the classes `ids`."""
    cuts = [len(table.shards) for table in tables]

    @tf.custom_gradient
    def with_gradient(inputs: tf.Tensor, *shards: tf.Tensor) -> Any:
        def gradient(upstream: tf.Tensor) -> list[Any]:
            with tf.GradientTape() as tape:
                tape.watch((inputs, shards))
                whole = [
                    dataclasses.replace(tables[0], shards=shards[: cuts[0]]),
                    dataclasses.replace(tables[-1], shards=shards[cuts[0] :]),
                ]
                logits = logits_of_classes(
                    inputs, whole[0], whole[1] if len(cuts) > 1 else None, ids
                )
            return tape.gradient(logits, [inputs, *shards], upstream)

        return tf.identity(values), gradient

    return with_gradient(inputs, *(shard for table in tables for shard in table.shards))


def _of_part(inputs: tf.Tensor, part: Part, k: int) -> tuple[tf.Tensor, tf.Tensor]:
    """The best rows of a shard, `[N, min(k, R)]`, and their class ids."""
    rows = part.num_rows
    width = width_of(inputs, BLOCK_BYTES, at_least=k)
    both = isinstance(width, int) and isinstance(rows, int)
    first = min(width, rows) if both else tf.minimum(width, rows)
    # A shard of fewer than k rows is a single block.
    columns = min(k, first) if isinstance(first, int) else tf.minimum(k, first)
    group = _group(width, k)

    def visit(start: Any, size: Any, values: Any, best: Any) -> State:
        logits, _ = block_logits(inputs, part, start, size)
        near, where = _candidates(logits, size, values, k, group)
        values = tf.concat([values, near], axis=1)
        best = tf.concat([best, start + where], axis=1)
        return _best(values, best, columns)

    logits, _ = block_logits(inputs, part, 0, first)
    values, best = tf.math.top_k(logits, columns)
    values, best = sweep(part, width, visit, (values, best), first)
    return values, part.first + part.stride * best


def _group(width: int | tf.Tensor, k: int) -> int:
    """How many classes form a group: a power of 2, 1 for no groups.

    Few blocks have `k` groups that are above the best so far, so a group may hold many
    classes; but all `k` together are to be less than the block.
    """
    width = width if isinstance(width, int) else 4096
    group = 1
    while group < MAX_GROUP and 4 * group * k <= width:
        group *= 2
    return group


def _candidates(
    logits: tf.Tensor, size: Any, values: tf.Tensor, k: int, group: int
) -> tuple[tf.Tensor, tf.Tensor]:
    """All of a block that can be better than the best of the blocks before it.

    Args:
      logits: `[N, size]`.
      values: `[N, k]`, the best of lower ids, in falling order.
      group: how many neighbours share a maximum.

    Returns:
      Logits and columns, both `[N, C]`, in rising order of the columns. Among them may
      be columns of no class, with a logit of minus infinity: as ties go to what stands
      first, `values` are better.
    """
    if group == 1:
        return logits, tf.broadcast_to(tf.range(size), tf.shape(logits))
    nothing = tf.constant(float("-inf"), logits.dtype)
    logits = tf.pad(logits, [[0, 0], [0, -size % group]], constant_values=nothing)
    count = (size + group - 1) // group
    groups = tf.reshape(logits, [-1, count, group])
    maxima = tf.reduce_max(groups, axis=2)
    few = min(k, count) if isinstance(count, int) else tf.minimum(k, count)
    if not tracing_for_xla():  # whose shapes are static
        above = tf.cast(maxima > values[:, -1:], tf.int32)
        few = tf.minimum(few, tf.reduce_max(tf.reduce_sum(above, axis=1)))
        few = tf.maximum(few, 0)  # in an empty batch
    # Of groups that are alike, those of lower ids.
    places = tf.sort(tf.math.top_k(maxima, few).indices, axis=1)
    near = tf.gather(groups, places, batch_dims=1)
    columns = places[:, :, tf.newaxis] * group + tf.range(group)
    shape = [tf.shape(logits)[0], few * group]  # of which any may be 0
    return tf.reshape(near, shape), tf.reshape(columns, shape)


def _merged(
    found: list[tuple[tf.Tensor, tf.Tensor]], k: int
) -> tuple[tf.Tensor, tf.Tensor]:
    values, ids = (tf.concat(pieces, axis=1) for pieces in zip(*found, strict=True))
    order = tf.argsort(ids, axis=1)  # so that ties go to the lower id
    values, ids = (tf.gather(x, order, batch_dims=1) for x in (values, ids))
    return _best(values, ids, k)


def _best(values: tf.Tensor, ids: tf.Tensor, k: Any) -> tuple[tf.Tensor, tf.Tensor]:
    values, where = tf.math.top_k(values, k)
    return values, tf.gather(ids, where, batch_dims=1)
