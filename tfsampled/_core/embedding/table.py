"""Rows of a table that is one tensor or variable, or is cut into shards."""

from __future__ import annotations

import dataclasses
from typing import Any

import tensorflow as tf

from tfsampled._core.embedding import partition
from tfsampled._core.xla import tracing_for_xla


@dataclasses.dataclass(frozen=True)
class Table:
    """`[num_rows, ...]` in one piece or in shards, read by row.

    A row read from a variable is read sparsely: its gradient is an `IndexedSlices`
    that holds only the rows asked for, and the variable is never copied.

    Attributes:
      shards: tensors or variables that differ in their first dimension only.
      strategy: "mod" or "div", see `partition`.
    """

    shards: tuple[Any, ...]
    strategy: str

    @classmethod
    def of(cls, params: Any, strategy: str) -> Table:
        """A table from whatever TensorFlow's lookups take as `params`."""
        if tf.executing_eagerly() and _is_sharded(params):
            # There TensorFlow reads a ShardedVariable as it was cut, whatever is asked.
            strategy = "div"
        return cls(tuple(_as_tensor(shard) for shard in _pieces(params)), strategy)

    @property
    def dtype(self) -> tf.DType:
        return tf.as_dtype(self.shards[0].dtype).base_dtype

    @property
    def sizes(self) -> list[int | None]:
        """Rows of each shard, `None` where the graph does not know it."""
        return [tf.compat.dimension_value(shard.shape[0]) for shard in self.shards]

    @property
    def static_rows(self) -> int | None:
        """Rows of all shards together, where the graph knows them."""
        known = [size for size in self.sizes if size is not None]
        return sum(known) if len(known) == len(self.shards) else None

    def num_rows(self) -> int | tf.Tensor:
        """Rows of all shards together: an `int`, or an `int64` scalar."""
        if self.static_rows is not None:
            return self.static_rows
        return tf.add_n([tf.shape(shard, tf.int64)[0] for shard in self.shards])

    def rows(self, ids: tf.Tensor) -> tf.Tensor:
        """The rows of `ids` (`int64`, `[n]`), as `[n, ...]` in the order of `ids`."""
        count = len(self.shards)
        if count == 1:
            return tf.gather(self.shards[0], ids)
        shard, row = partition.locate(ids, count, self.num_rows(), self.strategy)
        gathered = _select if tracing_for_xla() else _stitch
        rows = gathered(self.shards, tf.cast(shard, tf.int32), row)
        rows.set_shape(ids.shape.concatenate(self.shards[0].shape[1:]))
        return rows


def _stitch(shards: tuple[Any, ...], shard: tf.Tensor, row: tf.Tensor) -> tf.Tensor:
    """Asks each shard for its own rows only, and puts the answers in order."""
    wanted = tf.dynamic_partition(row, shard, len(shards))
    places = tf.dynamic_partition(tf.range(tf.size(shard)), shard, len(shards))
    found = [tf.gather(piece, rows) for piece, rows in zip(shards, wanted, strict=True)]
    return tf.dynamic_stitch(places, found)


def _select(shards: tuple[Any, ...], shard: tf.Tensor, row: tf.Tensor) -> tf.Tensor:
    """Asks each shard for as many rows as there are ids, and keeps those it owns.

    For XLA, whose shapes are static. A shard's gradient holds a zero for row 0 in the
    place of every id that is not its own.
    """
    rows = None
    for index, piece in enumerate(shards):
        own = tf.equal(shard, index)
        found = tf.gather(piece, tf.where(own, row, 0))
        own = tf.reshape(own, tf.concat([[-1], tf.ones_like(tf.shape(found)[1:])], 0))
        rows = found if rows is None else tf.where(own, found, rows)
    return rows


def _pieces(params: Any) -> list[Any]:
    """The shards that `params` holds, in order."""
    if isinstance(params, (list, tuple)):
        return [piece for shard in params for piece in _container(shard)]
    return _container(params)


def _container(params: Any) -> list[Any]:
    """The variables of a sharded or partitioned variable; else `params` alone."""
    if _is_sharded(params):
        return list(params.variables)
    if not tf.is_tensor(params) and hasattr(params, "as_tensor"):
        return list(params)  # PartitionedVariable of a v1 graph
    return [params]


def _is_sharded(params: Any) -> bool:
    """Whether `params` is a ShardedVariable, a class that has no public name."""
    return not tf.is_tensor(params) and all(
        hasattr(params, name) for name in ("variables", "sparse_read")
    )


def _as_tensor(shard: Any) -> Any:
    """`shard` as a tensor, or as the variable that it is or holds.

    A Keras variable holds a `tf.Variable` as its `value`. Reading rows from that
    variable instead of from the tensor that it converts to keeps the read sparse.
    """
    held = getattr(shard, "value", None)
    shard = held if tf.is_tensor(held) else shard
    return shard if tf.is_tensor(shard) else tf.convert_to_tensor(shard)
