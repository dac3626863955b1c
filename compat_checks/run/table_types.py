"""The types of table that a caller may pass: tensors, variables, shards of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf


class BoundTable(NamedTuple):
    """A table inside a call.

    Attributes:
        argument: What the loss gets.
        sources: What gradients are taken by; one for each shard.
    """

    argument: Any
    sources: list[Any]


class Table(NamedTuple):
    """A table outside a call.

    Attributes:
        arrays: What a function or a Session has to be fed; empty for variables.
        bind: Turns tensors of `arrays` into a `BoundTable`.
    """

    arrays: list[np.ndarray]
    bind: Callable[[Sequence[tf.Tensor]], BoundTable]


def make_table(
    table_type: str, shards: list[np.ndarray], as_list: bool, name: str
) -> Table:
    """Makes the table of `shards`.

    Args:
        table_type: "tensor", "variable", "keras", "sharded" or "partitioned".
        shards: The rows of each shard.
        as_list: Whether tensors and variables are passed in a list.
        name: Name of a PartitionedVariable.
    """

    def argument(parts: Sequence[Any]) -> Any:
        return list(parts) if as_list else parts[0]

    if table_type == "tensor":
        return Table(shards, lambda fed: BoundTable(argument(fed), list(fed)))
    if table_type == "partitioned":
        partitioned = _partitioned_variable(np.concatenate(shards), len(shards), name)
        return Table([], lambda fed: BoundTable(partitioned, list(partitioned)))
    if table_type == "keras":
        parts = [keras.Variable(shard, dtype=shard.dtype.name) for shard in shards]
        sources = [part.value for part in parts]
        return Table([], lambda fed: BoundTable(argument(parts), sources))
    variables = [tf.Variable(shard) for shard in shards]
    if table_type == "variable":
        return Table([], lambda fed: BoundTable(argument(variables), variables))
    if table_type == "sharded":
        sharded = _sharded_variable(variables)
        return Table([], lambda fed: BoundTable(sharded, variables))
    raise ValueError(f"Unknown table type. Received: table_type={table_type!r}.")


def _sharded_variable(variables: list[tf.Variable]) -> Any:
    """Returns a ShardedVariable, as a parameter server strategy makes them."""
    # Its class is exported by later versions of TensorFlow only.
    exported = getattr(tf.__internal__.distribute, "ShardedVariable", None)
    if exported is None:
        from tensorflow.python.distribute.sharded_variable import ShardedVariable

        exported = ShardedVariable
    return exported(variables)


def _partitioned_variable(table: np.ndarray, num_shards: int, name: str) -> Any:
    """Returns a v1 PartitionedVariable with the rows of `table`, in a v1 graph."""

    def rows(shape: list[int], dtype: tf.DType, partition_info: Any) -> np.ndarray:
        first = partition_info.var_offset[0]
        return table[first : first + shape[0]].astype(dtype.as_numpy_dtype)

    return tf.compat.v1.get_variable(
        name,
        table.shape,
        tf.as_dtype(table.dtype),
        rows,
        partitioner=tf.compat.v1.fixed_size_partitioner(num_shards),
        use_resource=True,
    )
