"""Accidental hits: sampled classes that are a label of the example beside them."""

from __future__ import annotations

import tensorflow as tf

from tfsampled._core.accidental_hits import compute_accidental_hits
from tfsampled._core.batches import repeated_for


def mask(sampled_logits: tf.Tensor, labels: tf.Tensor, sampled: tf.Tensor) -> tf.Tensor:
    """`sampled_logits` with minus infinity where the sampled class is a label.

    Of a class that was sampled more than once TensorFlow masks the last copy only, and
    so does this.

    Args:
      sampled_logits: `[batch, num_sampled]`, floating.
      labels: `int64` `[batch, num_true]`, or `[1, num_true]` for every row.
      sampled: `int64` `[num_sampled]`.

    Returns:
      `[batch, num_sampled]`, the dtype of `sampled_logits`.
    """
    labels = repeated_for(labels, sampled_logits)
    rows, places, weights = compute_accidental_hits(labels, sampled, labels.shape[1])
    # Adding, not writing: the gradient then passes through untouched, and at minus
    # infinity there is none. Code made for XLA has a weight of 0 and a place past the
    # end where there is no hit, and may run off XLA after all.
    places = tf.minimum(places, tf.size(sampled, tf.int64) - 1)
    nothing = tf.constant(float("-inf"), sampled_logits.dtype)
    return tf.tensor_scatter_nd_add(
        sampled_logits,
        tf.stack([tf.cast(rows, tf.int64), places], axis=1),
        tf.where(weights < 0, nothing, tf.zeros([], sampled_logits.dtype)),
    )
