"""Binary search by gathers.

`tf.searchsorted` compiles to a comparison of every number with every element.
"""

import tensorflow as tf


def first_above(ascending, numbers):
    """The first position whose element exceeds each number.

    Args:
      ascending: `[n]`, in ascending order.
      numbers: any shape, of the same dtype.

    Returns:
      int32 positions shaped like `numbers`; `n` where no element exceeds it.
    """
    known = tf.compat.dimension_value(ascending.shape[0])
    n = tf.size(ascending) if known is None else known
    low = tf.zeros(tf.shape(numbers), tf.int32)
    # The answer lies in [low, low + 2**bit) after each step.
    for bit in reversed(range(31 if known is None else known.bit_length())):
        middle = low + ((1 << bit) - 1)
        below = (middle < n) & (
            tf.gather(ascending, tf.minimum(middle, n - 1)) <= numbers
        )
        low = tf.where(below, middle + 1, low)
    return low
