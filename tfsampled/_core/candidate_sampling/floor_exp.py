"""exp to the last bit of a float64, whatever the device's exp does.

A log-uniform try is the whole part of `exp(x)`. Devices differ in the last bits of
their exp, and near a whole number that is another class. So the device's exp is
taken, and where any of its values lies suspiciously near a whole number the batch is
computed again with integers alone.
"""

import math
from fractions import Fraction

import tensorflow as tf

# Relative distance to a whole number below which the device's exp is not believed.
# It leaves room for an exp wrong by 100 ulp and for `x` rounded differently.
_DOUBT = 2.0**-45
_FRACTION_BITS = 62
_LOW_BITS = 32
_TERMS = 20


def _ln2(bits):
    """floor(ln 2 * 2**bits), from ln 2 = sum of 1 / (k * 2**k)."""
    total = sum(Fraction(1, k * 2**k) for k in range(1, bits + 20))
    return math.floor(total * 2**bits)


_LN2_LONG = _ln2(_FRACTION_BITS + _LOW_BITS)
_LN2, _LN2_LOW = divmod(_LN2_LONG, 1 << _LOW_BITS)


def whole_exp(x, largest):
    """`int64(exp(x))` with exp correctly rounded to float64.

    Args:
      x: `[n]` float64 in `[0, 43.7]`.
      largest: Python float, a bound of `exp(x)`.

    Returns:
      `[n]` int64.
    """
    if largest * _DOUBT >= 0.25:
        return exact_whole_exp(x)
    fast = tf.exp(x)
    whole = tf.cast(fast, tf.int64)
    doubtful = tf.abs(fast - tf.round(fast)) <= fast * _DOUBT
    return tf.cond(
        # Below e**0.5 the whole part is 1; the doubt at x = 0 is no doubt.
        tf.reduce_any(doubtful & (fast > 1.5)),
        lambda: exact_whole_exp(x),
        lambda: tf.maximum(whole, 1),
    )


def exact_whole_exp(x):
    """`whole_exp` in fixed-point integers: multiplications, shifts and additions.

    `x = k ln 2 + r`, and `exp(r)` is a Taylor sum with 62 bits behind the point.

    Args:
      x: `[n]` float64 in `[0, 43.7]`.

    Returns:
      `[n]` int64.
    """
    # 57 bits behind the point lose nothing from 1/16 on; exp is 1.0... below that.
    fixed = tf.cast(x * 2.0**57, tf.uint64) * _u64(1 << (_FRACTION_BITS - 57))
    k = tf.cast(x * (1 / math.log(2)), tf.int64)
    ku = tf.cast(k, tf.uint64)
    # Modulo 2**64 the products may wrap: the difference does not.
    rest = tf.bitcast(
        fixed - ku * _u64(_LN2) - _shift_right(ku * _u64(_LN2_LOW), _LOW_BITS),
        tf.int64,
    )
    step = tf.cast(rest >= _LN2, tf.int64) - tf.cast(rest < 0, tf.int64)
    k, rest = k + step, rest - step * _LN2
    scaled = tf.cast(rest, tf.uint64) * _u64(1 << (64 - _FRACTION_BITS))
    one = _u64(1 << _FRACTION_BITS)

    def add_term(i, total):
        return i - 1, one + _multiply_high(scaled, total) // tf.cast(i, tf.uint64)

    start = (tf.constant(_TERMS, tf.int64), tf.fill(tf.shape(x), one))
    total = tf.while_loop(lambda i, _: i >= 1, add_term, start)[1]
    # Round to the 53 bits of a float64, then cut off what is behind the point.
    spare = _FRACTION_BITS - 52
    rounded = _shift_right(total + _u64(1 << (spare - 1)), spare)
    k = tf.cast(k, tf.uint64)
    fifty_two = tf.fill(tf.shape(k), _u64(52))
    down = tf.bitwise.right_shift(rounded, fifty_two - tf.minimum(k, fifty_two))
    up = tf.bitwise.left_shift(rounded, tf.maximum(k, fifty_two) - fifty_two)
    return tf.bitcast(tf.where(k < fifty_two, down, up), tf.int64)


def _u64(number):
    return tf.constant(number, tf.uint64)


def _shift_right(x, bits):
    return tf.bitwise.right_shift(x, tf.fill(tf.shape(x), _u64(bits)))


def _multiply_high(a, b):
    """The upper 64 of the 128 bits of a product of uint64."""
    mask = _u64(0xFFFFFFFF)
    a1, a0 = _shift_right(a, 32), tf.bitwise.bitwise_and(a, mask)
    b1, b0 = _shift_right(b, 32), tf.bitwise.bitwise_and(b, mask)
    middle = a1 * b0 + _shift_right(a0 * b0, 32)
    lower = a0 * b1 + tf.bitwise.bitwise_and(middle, mask)
    return a1 * b1 + _shift_right(middle, 32) + _shift_right(lower, 32)
