"""A table of classes as the exact functions read it: shard by shard, with its biases.

Shapes: `N` examples, `D` features, `V` classes, `T` labels an example, `R` rows of a
shard.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import tensorflow as tf

from tfsampled._core.embedding.table import Table


@dataclasses.dataclass(frozen=True)
class Part:
    """A shard: row `r` is class `first + stride * r`.

    Attributes:
      weights: `[R, D]`.
      biases: `[R]`, or `None` for no bias.
      first: class of the first row.
      stride: from the class of a row to that of the next.
    """

    weights: tf.Tensor
    biases: tf.Tensor | None
    first: Any
    stride: int

    @property
    def num_rows(self) -> int | tf.Tensor:
        """`R`: an `int` where the graph knows it, else an int32 scalar."""
        return _rows(self.weights)

    def row_of(self, classes: tf.Tensor) -> tf.Tensor:
        """The row of each class (int64), int32; -1 for a class of another part."""
        offset = classes - tf.cast(self.first, classes.dtype)
        row = offset // self.stride
        mine = (offset >= 0) & (row < tf.cast(self.num_rows, row.dtype))
        mine &= tf.equal(row * self.stride, offset)
        return tf.cast(tf.where(mine, row, -1), tf.int32)


def table_of(weights: Any) -> Table:
    """`weights` as a table: a `Table`, or a tensor or variable in one piece."""
    return weights if isinstance(weights, Table) else Table.of([weights], "div")


def parts_of(weights: Any, biases: Any) -> list[Part]:
    """The shards, each with the biases of its classes.

    Args:
      weights: a `Table` or a tensor, `[V, D]`.
      biases: likewise `[V]`, in any number of shards; or `None`.
    """
    table = table_of(weights)
    shards = [tf.convert_to_tensor(shard) for shard in table.shards]
    step = len(shards) if table.strategy == "mod" else 1
    firsts: list[Any] = [0]
    for shard in shards[:-1]:
        firsts.append(firsts[-1] + (1 if step > 1 else _rows(shard)))
    pieces = _biases(table, biases, firsts, step)
    return [
        Part(shard, piece, first, step)
        for shard, piece, first in zip(shards, pieces, firsts, strict=True)
    ]


def _rows(shard: tf.Tensor) -> int | tf.Tensor:
    known = tf.compat.dimension_value(shard.shape[0])
    return tf.shape(shard)[0] if known is None else known


def _biases(table: Table, biases: Any, firsts: list[Any], step: int) -> list[Any]:
    """The biases of each shard of `table`."""
    count = len(firsts)
    if biases is None:
        return [None] * count
    biases = table_of(biases)
    if len(biases.shards) == count and (
        count == 1 or (biases.strategy, biases.sizes) == (table.strategy, table.sizes)
    ):
        return [tf.convert_to_tensor(shard) for shard in biases.shards]
    if len(biases.shards) == 1:
        whole = tf.convert_to_tensor(biases.shards[0])
    else:  # cut in another way than the weights
        whole = biases.rows(tf.range(tf.cast(biases.num_rows(), tf.int64)))
    if step > 1:
        return [whole[first::step] for first in firsts]
    return [whole[a:b] for a, b in zip(firsts, [*firsts[1:], None], strict=True)]
