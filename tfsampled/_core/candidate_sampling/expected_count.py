"""Expected counts, in float32 as TensorFlow's kernels round them."""

from __future__ import annotations

import tensorflow as tf


def gather_clipped(table: tf.Tensor, ids: tf.Tensor) -> tf.Tensor:
    """Returns `table[ids]`; an id out of range reads the entry at the near end."""
    return tf.gather(table, tf.clip_by_value(ids, 0, table.shape[0] - 1))


def expected_count(
    probability: tf.Tensor, num_sampled: int, num_tries: tf.Tensor | None
) -> tf.Tensor:
    """Computes how often a class of a probability is expected among the samples.

    The formula is `1 - (1 - p)**num_tries`, or `p * num_sampled` if every try was
    taken. It is evaluated in float64 and rounded where the kernel's float32 functions
    round, so that only the last bit of those functions may differ.

    Args:
        probability: float32, any shape.
        num_tries: `[]` int32, the tries that it took; None with replacement.

    Returns:
        float32, shaped like `probability`.
    """
    # probability = [0.5, 0.1], num_sampled = 2
    # num_tries = 2 -> [1.0, 0.2]; num_tries = 3 -> [0.875, 0.271]
    with_replacement = probability * float(num_sampled)
    if num_tries is None:
        return with_replacement
    log1p = tf.cast(tf.math.log1p(-tf.cast(probability, tf.float64)), tf.float32)
    exponent = tf.cast(num_tries, tf.float32) * log1p
    distinct = -tf.cast(tf.math.expm1(tf.cast(exponent, tf.float64)), tf.float32)
    return tf.where(tf.equal(num_tries, num_sampled), with_replacement, distinct)
