"""A table of classes as the full softmax reads it: shard by shard, with its biases.

Shapes: `N` examples, `D` features, `V` classes, `T` labels of an example, `R` rows of a
shard.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import tensorflow as tf

from tfsampled._core.embedding.sharded_table import Table
from tfsampled._core.static_ops import num_rows
from tfsampled._core.xla import refuse_xla


class Shard(NamedTuple):
    """Rows of a table: row `r` is class `first_class + stride * r`.

    Attributes:
        weights: `[R, D]`.
        biases: `[R]`, or None for no bias.
        first_class: Class of row 0.
        stride: Distance between the classes of neighboring rows.
        normalize: Whether weights are divided by their norm when a chunk is read.
        device: The device on which operations that read the rows run, so that the rows
            are not copied. None leaves the placement to TensorFlow.
    """

    weights: tf.Tensor
    biases: tf.Tensor | None
    first_class: Any
    stride: int
    normalize: bool = False
    device: str | None = None

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

    def run(self, function: Callable[..., Any], *args: Any) -> Any:
        """Calls a function on the shard's device."""
        if self.device is None:
            return function(*args)
        refuse_xla()
        with tf.device(self.device):
            if tf.executing_eagerly():
                return function(*args)
            # Inlined, the table would be sent to the caller and back in every turn of a
            # loop.
            whole = {"_noinline": True}
            call = functools.partial(function, *args)
            return tf.function(call, autograph=False, experimental_attributes=whole)()


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
    devices = table.devices or [None] * len(weights)
    divisor = 1 if biases is None else biases.divisor
    return [
        _prepared(Shard(rows, piece, first, stride, table.normalize, device), divisor)
        for rows, piece, first, device in zip(
            weights, pieces, first_classes, devices, strict=True
        )
    ]


def _prepared(shard: Shard, divisor: float) -> Shard:
    """Divides the biases; stops the gradients of a shard on a device of its own."""
    weights, biases = shard.weights, shard.biases
    with tf.device(shard.device) if shard.device else contextlib.nullcontext():
        if biases is not None and divisor != 1:
            biases = biases / divisor
        if shard.device is not None:
            weights = tf.stop_gradient(weights)
            biases = None if biases is None else tf.stop_gradient(biases)
    return shard._replace(weights=weights, biases=biases)


def replace_tables(shards: list[Shard], tables: Iterable[tf.Tensor]) -> list[Shard]:
    """Returns the shards with other tables, in the order of their `tables`."""
    tables = iter(tables)
    return [
        shard._replace(
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
        undivided = biases._replace(divisor=1.0)
        joined = undivided.rows(tf.range(tf.cast(biases.num_rows(), tf.int64)))
    if stride > 1:
        return [joined[first::stride] for first in first_classes]
    ends = [*first_classes[1:], None]
    return [joined[a:b] for a, b in zip(first_classes, ends, strict=True)]
