"""A table of classes as the full softmax reads it: shard by shard, with its biases.

Shapes: `N` examples, `D` features, `V` classes, `T` labels of an example, `R` rows of a
shard.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

import tensorflow as tf

from tfsampled._core.embedding.table import Table
from tfsampled._core.static_ops import num_rows


@dataclasses.dataclass(frozen=True)
class Shard:
    """Rows of a table: row `r` is class `first_class + stride * r`.

    Attributes:
        weights: `[R, D]`.
        biases: `[R]`, or None for no bias.
        first_class: Class of row 0.
        stride: Distance between the classes of neighboring rows.
        normalize: Whether weights are divided by their norm when a chunk is read.
    """

    weights: tf.Tensor
    biases: tf.Tensor | None
    first_class: Any
    stride: int
    normalize: bool = False

    @property
    def num_rows(self) -> int | tf.Tensor:
        """`R`: an int where the graph knows it, else an int32 scalar."""
        return num_rows(self.weights)

    @property
    def tables(self) -> list[tf.Tensor]:
        """The weights, and the biases if any."""
        return [self.weights] if self.biases is None else [self.weights, self.biases]

    def row_of(self, classes: tf.Tensor) -> tf.Tensor:
        """Computes the row of each class, int64; -1 for a class of another shard."""
        # first_class 1, stride 3, 2 rows: classes = [0, 1, 4, 7] -> [-1, 0, 1, -1]
        offset = tf.cast(classes, tf.int64) - tf.cast(self.first_class, tf.int64)
        row = offset // self.stride
        in_shard = (offset >= 0) & (row < tf.cast(self.num_rows, row.dtype))
        in_shard &= tf.equal(row * self.stride, offset)
        return tf.where(in_shard, row, -1)


def shards_of(table: Table, biases: Table | None = None) -> list[Shard]:
    """Pairs each shard of the weights with the biases of its classes.

    Args:
        table: Rows `[D]`.
        biases: Rows `[]`, in any number of shards; or None.
    """
    weights = [tf.convert_to_tensor(shard) for shard in table.shards]
    stride = len(weights) if table.strategy == "mod" else 1
    # 7 classes in 3 shards: "mod" -> 0, 1, 2 with stride 3; "div" -> 0, 3, 5
    first_classes: list[Any] = [0]
    for shard in weights[:-1]:
        step = 1 if stride > 1 else num_rows(shard)
        first_classes.append(first_classes[-1] + step)
    pieces = _shard_biases(biases, table, first_classes, stride)
    return [
        Shard(*shard, stride, table.normalize)
        for shard in zip(weights, pieces, first_classes, strict=True)
    ]


def replace_tables(shards: list[Shard], tables: Iterable[tf.Tensor]) -> list[Shard]:
    """Returns the shards with other tables, in the order of their `tables`."""
    tables = iter(tables)
    return [
        dataclasses.replace(
            shard,
            weights=next(tables),
            biases=None if shard.biases is None else next(tables),
        )
        for shard in shards
    ]


def _shard_biases(
    biases: Table | None, table: Table, first_classes: list[Any], stride: int
) -> list[Any]:
    """Cuts the biases as `table` is cut."""
    count = len(first_classes)
    if biases is None:
        return [None] * count
    same_cut = (biases.strategy, biases.sizes) == (table.strategy, table.sizes)
    if len(biases.shards) == count and (count == 1 or same_cut):
        return [tf.convert_to_tensor(shard) for shard in biases.shards]
    if len(biases.shards) == 1:
        joined = tf.convert_to_tensor(biases.shards[0])
    else:
        joined = biases.rows(tf.range(tf.cast(biases.num_rows(), tf.int64)))
    if stride > 1:
        return [joined[first::stride] for first in first_classes]
    ends = [*first_classes[1:], None]
    return [joined[a:b] for a, b in zip(first_classes, ends, strict=True)]
