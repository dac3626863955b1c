"""Layouts of a table that is cut into shards: the arithmetic of "mod" and "div".

"mod" deals rows out in turn: row `i` of `n` shards is row `i // n` of shard `i % n`.
"div" cuts contiguous runs of `total // n` rows; the first `total % n` shards hold one
row more.

    # 7 rows in 3 shards
    # "mod": [0, 3, 6], [1, 4], [2, 5]
    # "div": [0, 1, 2], [3, 4], [5, 6]
"""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

STRATEGIES = ("mod", "div")


def validate_strategy(strategy: str) -> None:
    """Raises `ValueError` if `strategy` is neither "mod" nor "div"."""
    if strategy not in STRATEGIES:
        raise ValueError(
            '`partition_strategy` must be "mod" or "div". '
            f"Received: partition_strategy={strategy!r}."
        )


def locate(
    ids: tf.Tensor, num_shards: int, total_rows: int | tf.Tensor, strategy: str
) -> tuple[tf.Tensor, tf.Tensor]:
    """Finds the shard of every id, and the row within it.

    Args:
        ids: int64, any shape, values in `[0, total_rows)`.
        total_rows: Rows of all shards together; "mod" does not read it.

    Returns:
        `(shard, row)`, int32 and int64, shaped like `ids`.
    """
    if strategy == "mod":
        return tf.cast(ids % num_shards, tf.int32), ids // num_shards
    total = tf.cast(total_rows, ids.dtype)
    size, num_larger = total // num_shards, total % num_shards
    divisor = tf.maximum(size, 1)  # shards without rows hold no id
    # 7 rows in 3 shards: size = 2, num_larger = 1
    # ids           = [0, 1, 2, 3, 4, 5, 6]
    # ids // 3      = [0, 0, 0, 1, 1, 1, 2]  right in the larger shards
    # (ids - 1) // 2 = [-1, 0, 0, 1, 1, 2, 2]  right in the others
    # shard         = [0, 0, 0, 1, 1, 2, 2]
    shard = tf.maximum(ids // (size + 1), (ids - num_larger) // divisor)
    row = tf.where(shard < num_larger, ids % (size + 1), (ids - num_larger) % divisor)
    return tf.cast(shard, tf.int32), row


def divide(
    shard: tf.Tensor, row: tf.Tensor, num_shards: int
) -> tuple[list[tf.Tensor], list[tf.Tensor]]:
    """Returns the rows of each shard, and their positions in `row`.

    Args:
        shard: int32 `[n]`, the shard of each row.
    """
    # shard = [1, 0, 1], row = [4, 2, 0] -> [[2], [4, 0]], [[1], [0, 2]]
    positions = tf.range(tf.size(shard))
    return (
        tf.dynamic_partition(row, shard, num_shards),
        tf.dynamic_partition(positions, shard, num_shards),
    )


def shard_sizes(num_rows: int, num_shards: int) -> list[int]:
    """Returns how many rows each shard has, in both layouts.

    >>> shard_sizes(20, 3)
    [7, 7, 6]
    """
    size, num_larger = divmod(num_rows, num_shards)
    return [size + (shard < num_larger) for shard in range(num_shards)]


def rows_needed(num_classes: int, sizes: Sequence[int], strategy: str) -> list[int]:
    """Returns how many rows each shard needs to hold the first `num_classes` classes.

    >>> rows_needed(20, [7, 7, 6], "div")
    [7, 7, 6]
    >>> rows_needed(20, [7, 7, 6], "mod")
    [7, 7, 6]
    >>> rows_needed(20, [12, 8], "div")
    [10, 10]
    """
    count = len(sizes)
    if strategy == "mod":
        return shard_sizes(num_classes, count)
    needed, missing = [], num_classes
    for size in shard_sizes(sum(sizes), count):
        needed.append(min(missing, size))
        missing -= needed[-1]
    return needed


def split(table: tf.Tensor, num_shards: int, strategy: str) -> list[tf.Tensor]:
    """Cuts a table `[num_rows, ...]` into shards."""
    if strategy == "mod":
        return [table[shard::num_shards] for shard in range(num_shards)]
    return tf.split(table, shard_sizes(table.shape[0], num_shards))


def join(shards: Sequence[tf.Tensor], strategy: str) -> tf.Tensor:
    """Puts the rows of all shards in the order of their ids."""
    if len(shards) == 1:
        return tf.convert_to_tensor(shards[0])
    if strategy == "div":
        return tf.concat(shards, axis=0)
    total = sum(shard.shape[0] for shard in shards)
    positions = split(tf.range(total), len(shards), strategy)
    return tf.dynamic_stitch(positions, shards)
