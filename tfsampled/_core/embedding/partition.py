"""Where a row of a sharded table lives: the "mod" and "div" layouts, as arithmetic.

"mod" deals the ids out like cards: id `i` of `n` shards is row `i // n` of shard
`i % n`. "div" cuts the ids into contiguous runs of `total // n` rows, the first
`total % n` shards holding one row more.
"""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

STRATEGIES = ("mod", "div")


def locate(
    ids: tf.Tensor, num_shards: int, total_rows: int | tf.Tensor, strategy: str
) -> tuple[tf.Tensor, tf.Tensor]:
    """The shard and the row within it of every id.

    Args:
      ids: `int64`, any shape, values in `[0, total_rows)`.
      num_shards: number of shards.
      total_rows: rows of all shards together; "mod" does not read it.
      strategy: "mod" or "div".

    Returns:
      `(shard, row)`, both `int64` and shaped like `ids`.
    """
    if strategy == "mod":
        return ids % num_shards, ids // num_shards
    total = tf.cast(total_rows, ids.dtype)
    short, longer = total // num_shards, total % num_shards
    # A shard without rows owns no id; 1 only keeps the division defined.
    divisor = tf.maximum(short, 1)
    shard = tf.maximum(ids // (short + 1), (ids - longer) // divisor)
    row = tf.where(shard < longer, ids % (short + 1), (ids - longer) % divisor)
    return shard, row


def rows_needed(num_classes: int, sizes: Sequence[int], strategy: str) -> list[int]:
    """How many rows each shard must have so that every class finds its own.

    >>> rows_needed(20, [7, 7, 6], "div")
    [7, 7, 6]
    >>> rows_needed(20, [7, 7, 6], "mod")
    [7, 7, 6]
    >>> rows_needed(20, [12, 8], "div")
    [10, 10]
    """
    count = len(sizes)
    if strategy == "mod":
        return [max(0, -((shard - num_classes) // count)) for shard in range(count)]
    short, longer = divmod(sum(sizes), count)
    needed, left = [], num_classes
    for shard in range(count):
        held = min(left, short + (shard < longer))
        needed.append(held)
        left -= held
    return needed
