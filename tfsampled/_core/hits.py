"""Accidental hits: sampled classes that are a label of the example beside them."""

from __future__ import annotations

import tensorflow as tf


def mask(sampled_logits: tf.Tensor, labels: tf.Tensor, sampled: tf.Tensor) -> tf.Tensor:
    """`sampled_logits` with minus infinity where the sampled class is a label.

    Of a class that was sampled more than once TensorFlow masks the last copy only, and
    so does this.

    Args:
      sampled_logits: `[batch, num_sampled]`, floating.
      labels: `int64` `[batch, num_true]`, or `[1, num_true]` for every example.
      sampled: `int64` `[num_sampled]`.

    Returns:
      `[batch, num_sampled]`, the dtype of `sampled_logits`.
    """
    labels = tf.broadcast_to(labels, [tf.shape(sampled_logits)[0], labels.shape[1]])
    # TensorFlow takes a seed here, for an op that draws nothing. Taking it too keeps
    # whatever is seeded after this call in step with TensorFlow.
    seed, seed2 = tf.compat.v1.random.get_seed(None)
    hits = tf.raw_ops.ComputeAccidentalHits(
        true_classes=labels,
        sampled_candidates=sampled,
        num_true=labels.shape[1],
        seed=seed or 0,
        seed2=seed2 or 0,
    )
    places = tf.stack([tf.cast(hits.indices, tf.int64), hits.ids], axis=1)
    # Adding, not writing: the gradient then passes through untouched, and at minus
    # infinity there is none.
    unlike_any = tf.fill(
        tf.shape(hits.ids), tf.cast(-float("inf"), sampled_logits.dtype)
    )
    return tf.tensor_scatter_nd_add(sampled_logits, places, unlike_any)
