"""A batch of 1 that serves every row of another."""

from __future__ import annotations

import tensorflow as tf


def repeated_for(x: tf.Tensor, other: tf.Tensor) -> tf.Tensor:
    """`x`, its single row repeated for each row of `other` if it has a single one.

    >>> repeated_for(tf.constant([[1, 2]]), tf.zeros([3, 5])).shape
    TensorShape([3, 2])
    >>> repeated_for(tf.constant([[1], [2]]), tf.zeros([1, 5])).shape
    TensorShape([2, 1])
    """
    mine, its = (tf.compat.dimension_value(tensor.shape[0]) for tensor in (x, other))
    if its == 1 or mine not in (None, 1):
        return x
    rows = tf.broadcast_dynamic_shape(tf.shape(x)[:1], tf.shape(other)[:1])
    result = tf.broadcast_to(x, tf.concat([rows, tf.shape(x)[1:]], axis=0))
    result.set_shape(tf.TensorShape([its]).concatenate(x.shape[1:]))
    return result
