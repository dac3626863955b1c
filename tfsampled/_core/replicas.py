"""Replicas of tf.distribute: a variable's own copy; sums and means over the replicas.

With one replica, and outside of replicas, values stay as they are. Values that are the
same object in all replicas would count as one: hence each `tf.identity`.
"""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Iterator, Sequence
from typing import Any

import tensorflow as tf

_ALONE = contextvars.ContextVar("alone", default=False)


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Runs code as if this replica were the only one."""
    token = _ALONE.set(True)
    try:
        yield
    finally:
        _ALONE.reset(token)


def num_replicas() -> int:
    """Returns the number of replicas that run this code."""
    context = tf.distribute.get_replica_context()
    return 1 if context is None or _ALONE.get() else context.num_replicas_in_sync


def replica_id() -> tf.Tensor:
    """Returns the number of the replica that runs this code, from 0; int64."""
    context = tf.distribute.get_replica_context()
    if context is None or _ALONE.get():
        return tf.constant(0, tf.int64)
    return tf.cast(context.replica_id_in_sync_group, tf.int64)


def own_copy(variable: Any) -> Any:
    """Returns the copy of a mirrored variable that the current replica has.

    A lookup of rows in the mirrored variable itself reads all of them.
    """
    context = tf.distribute.get_replica_context()
    if context is None or not isinstance(variable, tf.distribute.DistributedValues):
        return variable
    copies = context.strategy.experimental_local_results(variable)
    replica = tf.get_static_value(context.replica_id_in_sync_group)
    if replica is None:  # on a TPU
        return variable
    return copies[replica % len(copies)]  # of this worker's replicas


def mean(x: tf.Tensor) -> tf.Tensor:
    """Returns the mean of a tensor over the replicas."""
    if num_replicas() == 1:
        return x
    context = tf.distribute.get_replica_context()
    return context.all_reduce(tf.distribute.ReduceOp.MEAN, tf.identity(x))


def all_gather(*tensors: tf.Tensor | None) -> list[Any]:
    """Joins the rows that each replica has of several tensors; None stays None."""
    if num_replicas() == 1:
        return list(tensors)
    # Workers exchange neither bool nor bfloat16.
    sent = {tf.bool: tf.int32, tf.bfloat16: tf.float32}
    present = [
        tf.identity(tf.cast(x, sent.get(x.dtype, x.dtype)))
        for x in tensors
        if x is not None
    ]
    context = tf.distribute.get_replica_context()
    joined = iter(context.all_gather(present, axis=0) if present else [])
    return [None if x is None else _like(next(joined), x) for x in tensors]


def _like(joined: tf.Tensor, x: tf.Tensor) -> tf.Tensor:
    """Returns joined rows with what is known of those of one replica."""
    joined = tf.cast(joined, x.dtype)
    if x.shape.rank is not None:
        joined.set_shape([None, *x.shape[1:]])
    return joined


def sum_gradients(gradients: Sequence[Any]) -> list[Any]:
    """Sums gradients over the replicas: row-sparse ones by joining their rows.

    Args:
        gradients: Tensors, `tf.IndexedSlices` and None.
    """
    if num_replicas() == 1:
        return list(gradients)
    sparse = [g for g in gradients if isinstance(g, tf.IndexedSlices)]
    parts = iter(all_gather(*(part for g in sparse for part in (g.values, g.indices))))
    dense = [tf.identity(g) for g in gradients if isinstance(g, tf.Tensor)]
    if dense:
        context = tf.distribute.get_replica_context()
        dense = context.all_reduce(tf.distribute.ReduceOp.SUM, dense)
    sums = iter(dense)
    return [
        None
        if g is None
        else tf.IndexedSlices(next(parts), next(parts), g.dense_shape)
        if isinstance(g, tf.IndexedSlices)
        else next(sums)
        for g in gradients
    ]


def all_finished(operations: Sequence[Any]) -> list[Any]:
    """Returns operations that finish once those of every replica have."""
    if not operations or num_replicas() == 1:
        return list(operations)
    with tf.control_dependencies(operations):
        return [mean(tf.zeros([]))]
