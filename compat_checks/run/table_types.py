"""The forms in which a table of rows may be handed to the losses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf


class Held:
    """A table as the caller holds it.

    Attributes:
      fed: arrays that have to be fed to a function or a Session (tensors only).
      bind: tensors for `fed` -> (what is handed to the loss, one source of
        gradients per shard).
    """

    def __init__(
        self,
        fed: Sequence[np.ndarray],
        bind: Callable[[Sequence[tf.Tensor]], tuple[Any, list[Any]]],
    ):
        self.fed = list(fed)
        self.bind = bind


def hold(kind: str, shards: list[np.ndarray], count: int, name: str) -> Held:
    """Builds the table `shards` as `kind`; `count` is 0 for one bare tensor."""

    def listed(parts: Sequence[Any]) -> Any:
        return list(parts) if count else parts[0]

    if kind == "tensor":
        return Held(shards, lambda fed: (listed(fed), list(fed)))
    if kind == "partitioned":
        variable = partitioned_variable(np.concatenate(shards), max(count, 1), name)
        return Held([], lambda fed: (variable, list(variable)))
    if kind == "keras":
        held = [keras.Variable(shard, dtype=shard.dtype.name) for shard in shards]
        return Held([], lambda fed: (listed(held), [part.value for part in held]))
    variables = [tf.Variable(shard) for shard in shards]
    if kind == "variable":
        return Held([], lambda fed: (listed(variables), variables))
    if kind == "sharded":
        sharded = sharded_variable(variables)
        return Held([], lambda fed: (sharded, variables))
    raise ValueError(f"unknown holder {kind!r}")


def sharded_variable(variables: list[tf.Variable]) -> Any:
    """A v2 ShardedVariable of `variables`.

    TensorFlow makes them only inside a parameter server strategy; its class stands
    under tf.__internal__, and before that in the module named below.
    """
    exported = getattr(tf.__internal__.distribute, "ShardedVariable", None)
    if exported is None:
        from tensorflow.python.distribute.sharded_variable import ShardedVariable

        exported = ShardedVariable
    return exported(variables)


def partitioned_variable(table: np.ndarray, count: int, name: str) -> Any:
    """A v1 PartitionedVariable with the rows of `table`; only inside a v1 graph."""

    def rows(shape: list[int], dtype: tf.DType, partition_info: Any) -> np.ndarray:
        first = partition_info.var_offset[0]
        return table[first : first + shape[0]].astype(dtype.as_numpy_dtype)

    return tf.compat.v1.get_variable(
        name,
        table.shape,
        tf.as_dtype(table.dtype),
        rows,
        partitioner=tf.compat.v1.fixed_size_partitioner(count),
        use_resource=True,
    )
