"""Probabilities and expected counts, in float32 as TensorFlow's kernels round them.

Functions are evaluated in float64 and rounded where the kernel's float32 functions
round, so that what remains is at most the last bit of those functions.
"""

import math

import tensorflow as tf


def log_uniform_probability(ids, range_max):
    """`log((v + 2) / (v + 1)) / log(range_max + 1)`, rounded to float32."""
    v = tf.cast(ids, tf.float64)
    ratio = tf.math.log((v + 2.0) / (v + 1.0))
    return tf.cast(ratio / math.log1p(range_max), tf.float32)


def uniform_probability(ids, range_max):
    """`1 / range_max`, rounded to float32."""
    return tf.fill(tf.shape(ids), tf.constant(1.0 / range_max, tf.float32))


def gather(ids, table):
    """`table[ids]`, and a neighbour's entry for ids outside."""
    return tf.gather(table, tf.clip_by_value(ids, 0, table.shape[0] - 1))


def expected_count(probability, num_sampled, num_tries):
    """How often a class of this probability is expected among the samples.

    `p * num_sampled` where every try was kept, else `1 - (1 - p)**num_tries`.

    Args:
      probability: float32, any shape.
      num_sampled: Python int.
      num_tries: `[]` int32, or None where every try was kept by design.

    Returns:
      float32, shaped like `probability`.
    """
    every_try = probability * tf.constant(num_sampled, tf.float32)
    if num_tries is None:
        return every_try
    log1p = tf.cast(tf.math.log1p(-tf.cast(probability, tf.float64)), tf.float32)
    exponent = tf.cast(num_tries, tf.float32) * log1p
    repeated = -tf.cast(tf.math.expm1(tf.cast(exponent, tf.float64)), tf.float32)
    return tf.where(tf.equal(num_tries, num_sampled), every_try, repeated)


def nan_outside(count, ids, range_max):
    """`count`, and NaN where the class id does not exist."""
    inside = (ids >= 0) & (ids < range_max)
    return tf.where(inside, count, tf.constant(math.nan, tf.float32))
