"""Accidental hits as positions, with static shapes: for XLA, and off it as well."""

from __future__ import annotations

import tensorflow as tf

from tfsampled._core.search import first_above


def positions(labels: tf.Tensor, sampled: tf.Tensor) -> tf.Tensor:
    """Where each label stands among the sampled classes.

    The sampled classes are sorted once and every label is found by binary search:
    nothing of the size `batch * num_true * num_sampled` is made. Of a class that was
    sampled more than once the last copy counts, as in TensorFlow.

    Args:
      labels: int64 `[batch, num_true]`, or any other shape.
      sampled: int64 `[num_sampled]`, a size known when traced.

    Returns:
      int32, shaped like `labels`: a position in `sampled`, or -1.
    """
    order = tf.argsort(sampled, stable=True)
    ascending = tf.gather(sampled, order)
    # The sort is stable: the last of equal ids is the last copy.
    place = first_above(ascending, labels) - 1
    nearest = tf.maximum(place, 0)
    hit = (place >= 0) & tf.equal(tf.gather(ascending, nearest), labels)
    return tf.where(hit, tf.gather(order, nearest), -1)
