"""Tables in shards: how many rows each has, and how a whole table is cut and joined.

"mod": class `c` of `n` shards is row `c // n` of shard `c % n`. "div": contiguous runs,
the first `num_classes % n` shards one row longer.
"""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from tfsampled._core.embedding import partition


def check(num_shards: int, num_classes: int, strategy: str) -> None:
    """Refuses more shards than classes, and unknown strategies.

    Raises:
        ValueError: The table cannot be cut like that.
    """
    if strategy not in partition.STRATEGIES:
        raise ValueError(
            f"partition_strategy is {strategy!r}; it must be one of "
            f"{sorted(partition.STRATEGIES)}."
        )
    if num_shards > num_classes:
        raise ValueError(
            f"num_shards is {num_shards}, but there are only {num_classes} classes: "
            "pass at most num_classes."
        )


def cut(whole: tf.Tensor, num_shards: int, strategy: str) -> list[tf.Tensor]:
    """The shards of a table `[num_classes, dim]`."""
    if strategy == "mod":
        return [whole[index::num_shards] for index in range(num_shards)]
    short, longer = divmod(int(whole.shape[0]), num_shards)
    sizes = [short + (index < longer) for index in range(num_shards)]
    return tf.split(whole, sizes)


def join(shards: Sequence[tf.Tensor], strategy: str) -> tf.Tensor:
    """The table `[num_classes, dim]` of shards, a copy where there are several."""
    if len(shards) == 1:
        return tf.convert_to_tensor(shards[0])
    whole = tf.concat([tf.convert_to_tensor(shard) for shard in shards], axis=0)
    if strategy == "div":
        return whole
    total = tf.range(whole.shape[0])
    order = tf.concat(cut(total, len(shards), "mod"), axis=0)
    return tf.gather(whole, tf.argsort(order))
