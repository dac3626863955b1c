"""Tables of class embeddings, looked up by row, in one piece or in shards."""

from __future__ import annotations

from typing import Any, NamedTuple

import tensorflow as tf

from tfsampled._core import replicas
from tfsampled._core.embedding import partition
from tfsampled._core.static_ops import compute_dtype
from tfsampled._core.xla import on_host, tracing_for_xla


class Table(NamedTuple):
    """`[num_rows, ...]` in one piece or in shards, read by row.

    A row read from a variable is read sparsely: its gradient is an `IndexedSlices` that
    holds only the rows asked for, and the variable is never copied.

    Attributes:
        shards: Tensors or variables that differ in their first dimension only.
        strategy: "mod" or "div", see `partition`.
        normalize: Whether rows are divided by their Euclidean norm when they are read;
            they are then in the dtype of logits.
        divisor: What rows are divided by when they are read.
        devices: The device of each shard. Operations that read all rows of a shard run
            there and have no gradient. None leaves the placement to TensorFlow.
    """

    shards: tuple[Any, ...]
    strategy: str
    normalize: bool = False
    divisor: float = 1.0
    devices: tuple[str, ...] | None = None

    @classmethod
    def from_params(cls, params: Any, strategy: str) -> Table:
        """Makes a table from whatever TensorFlow's lookups take as `params`."""
        is_list = isinstance(params, (list, tuple))
        only = params[0] if is_list and len(params) == 1 else params
        is_partitioned = only is not params and _is_partitioned(only)
        if is_partitioned or (tf.executing_eagerly() and _is_sharded(only)):
            strategy = "div"  # TensorFlow ignores the argument there
        return cls(tuple(_as_tensor(shard) for shard in _shards_of(params)), strategy)

    @property
    def dtype(self) -> tf.DType:
        """The dtype of the rows."""
        return tf.as_dtype(self.shards[0].dtype).base_dtype

    @property
    def sizes(self) -> list[Any]:
        """The number of rows of each shard, None where the graph does not know it."""
        return [tf.compat.dimension_value(shard.shape[0]) for shard in self.shards]

    @property
    def static_rows(self) -> int | None:
        """The number of rows of all shards, None where the graph does not know it."""
        return None if None in self.sizes else sum(self.sizes)

    def num_rows(self) -> int | tf.Tensor:
        """Returns the number of rows of all shards: an int, or int64 `[]`."""
        if self.static_rows is not None:
            return self.static_rows
        return tf.add_n([tf.shape(shard, tf.int64)[0] for shard in self.shards])

    def rows(self, ids: tf.Tensor) -> tf.Tensor:
        """Looks up rows: `[n, ...]` for int64 ids `[n]`."""
        rows = self._stored_rows(ids)
        if self.normalize:
            rows = unit_rows(rows)
        return rows if self.divisor == 1 else rows / self.divisor

    def all_rows(self) -> tf.Tensor:
        """Returns all rows as they are stored, but divided, in the order of ids."""
        rows = partition.join(self.shards, self.strategy)
        return rows if self.divisor == 1 else rows / self.divisor

    def _stored_rows(self, ids: tf.Tensor) -> tf.Tensor:
        count = len(self.shards)
        if count == 1:
            return tf.gather(self.shards[0], ids)
        num_rows = self.num_rows()
        with on_host():  # where the sizes of the parts are needed
            shard, row = partition.locate(ids, count, num_rows, self.strategy)
        lookup = _lookup_static if tracing_for_xla() else _lookup
        rows = lookup(self.shards, shard, row)
        rows.set_shape(ids.shape.concatenate(self.shards[0].shape[1:]))
        return rows


def unit_rows(rows: tf.Tensor) -> tf.Tensor:
    """Divides rows by their norm, or 1e-6 if that is larger; in the dtype of logits."""
    return tf.math.l2_normalize(tf.cast(rows, compute_dtype(rows.dtype)), axis=-1)


def unit_rows_gradient(rows: tf.Tensor, cotangent: tf.Tensor) -> tf.Tensor:
    """Computes the gradient of rows from that of their `unit_rows`."""
    with tf.GradientTape() as tape:
        tape.watch(rows)
        units = unit_rows(rows)
    return tape.gradient(units, rows, output_gradients=cotangent)


def _lookup(shards: tuple[Any, ...], shard: tf.Tensor, row: tf.Tensor) -> tf.Tensor:
    """Reads from each shard the rows that it holds, and puts them in order."""
    with on_host():
        rows, positions = partition.divide(shard, row, len(shards))
    values = [tf.gather(*pair) for pair in zip(shards, rows, strict=True)]
    return tf.dynamic_stitch(positions, values)


def _lookup_static(
    shards: tuple[Any, ...], shard: tf.Tensor, row: tf.Tensor
) -> tf.Tensor:
    """Reads from each shard as many rows as there are ids, and selects.

    For XLA, whose shapes are static. For an id that a shard does not hold it reads a
    row that another id reads, so that the gradient names no other rows; row 0 if the
    shard holds none of the ids.
    """
    result = None
    for index, params in enumerate(shards):
        in_shard = tf.equal(shard, index)
        # row = [4, 2], in_shard = [False, True] -> reads rows [2, 2]
        rows_in_shard = tf.where(in_shard, row, 0)
        another = tf.reduce_max(rows_in_shard)
        rows = tf.gather(params, tf.where(in_shard, rows_in_shard, another))
        shape = tf.concat([[-1], tf.ones_like(tf.shape(rows)[1:])], 0)
        in_shard = tf.reshape(in_shard, shape)
        result = rows if result is None else tf.where(in_shard, rows, result)
    return result


def _shards_of(params: Any) -> list[Any]:
    """Lists the shards of `params`, in order."""
    if isinstance(params, (list, tuple)):
        return [shard for param in params for shard in _shards_of(param)]
    if _is_sharded(params):
        return list(params.variables)
    return list(params) if _is_partitioned(params) else [params]


def _is_partitioned(params: Any) -> bool:
    """Tells whether `params` is a PartitionedVariable of a v1 graph."""
    return not tf.is_tensor(params) and hasattr(params, "as_tensor")


def _is_sharded(params: Any) -> bool:
    """Tells whether `params` is a ShardedVariable, a class without a public name."""
    return not tf.is_tensor(params) and all(
        hasattr(params, name) for name in ("variables", "sparse_read")
    )


def _as_tensor(shard: Any) -> Any:
    """Returns a tensor, or the `tf.Variable` that `shard` is or holds.

    Rows are read from a `tf.Variable` sparsely; the tensor that a Keras variable
    converts to is a copy.
    """
    shard = replicas.own_copy(_stored_value(shard))
    return shard if tf.is_tensor(shard) else tf.convert_to_tensor(shard)


def _stored_value(shard: Any) -> Any:
    """Returns the `tf.Variable` of a Keras variable, and anything else as it is.

    Inside of a layer with a mixed policy, `value` would be all rows, cast.
    """
    if not hasattr(shard, "_autocast"):
        return shard
    if not shard._autocast:
        return shard.value
    shard._autocast = False
    try:
        return shard.value
    finally:
        shard._autocast = True
