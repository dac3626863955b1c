"""`floor(exp(x))` of float64 numbers, the same on every device.

A log-uniform class id is the whole part of `exp(x)`. Devices differ in the last bits of
their exp, and next to an integer that is another class. So the device's exp is taken,
and where one of its values is too close to an integer to be sure, the batch is computed
again in integer arithmetic.
"""

from __future__ import annotations

import math

import tensorflow as tf

# Relative distance to an integer within which the device's exp is not relied on. It
# leaves room for an exp that is wrong by 100 ulp.
_AMBIGUITY = 2.0**-45
_FRACTION_BITS = 62
_TERMS = 20
_LN2, _LN2_LOW = 0xB17217F7D1CF79AB, 0xC9E3B398  # floor(ln 2 * 2**96), in two words


def floor_exp(x: tf.Tensor, limit: int) -> tf.Tensor:
    """Computes `int64(exp(x))`, with exp correctly rounded to float64.

    Args:
        x: `[n]` float64 in `[0, 43.7]`.
        limit: What `exp(x)` is below, except by rounding.

    Returns:
        `[n]` int64 in `[1, limit)`: an exp that rounds up to `limit` gives 1.
    """

    def exact() -> tf.Tensor:
        floor = floor_exp_exact(x)
        return tf.where(floor <= limit - 1, floor, 1)

    if limit * _AMBIGUITY >= 0.25:
        return exact()
    # x = [0.1, 1.4, log(3)]: exp = [1.105, 4.055, 3.0 or 2.999...96], is_ambiguous =
    # [False, False, True], so that the whole batch is computed exactly.
    exp = tf.exp(x)
    is_ambiguous = tf.abs(exp - tf.round(exp)) <= exp * _AMBIGUITY
    floor = tf.cast(exp, tf.int64)
    return tf.cond(tf.reduce_any(is_ambiguous), exact, lambda: floor)


def floor_exp_exact(x: tf.Tensor) -> tf.Tensor:
    """Computes `floor_exp` in fixed-point integers: products, shifts and sums.

    With `x = k * ln 2 + r`, `exp(x) = 2**k * exp(r)`; `exp(r)` is a Taylor sum with 62
    bits behind the point.

    Args:
        x: `[n]` float64 in `[0, 43.7]`.

    Returns:
        `[n]` int64.
    """
    half_word, mask = _u64(32), _u64(0xFFFFFFFF)
    shift_right = tf.bitwise.right_shift

    # x = 1.5 -> k = 2, r = 1.5 - 2 ln 2 = 0.1137. k is never too large: r would be
    # negative. Just above a multiple of ln 2 it may be one less, and exp(r) a little
    # above 2, which does no harm.
    k = tf.cast(x * ((1 - 2.0**-46) / math.log(2)), tf.uint64)
    # r with 64 bits behind the point. The products wrap modulo 2**64, their difference
    # does not. 57 bits of x lose nothing from 1/16 on; exp is 1.0... below that.
    fixed = tf.cast(x * 2.0**57, tf.uint64) * _u64(1 << (64 - 57))
    r = fixed - k * _u64(_LN2) - shift_right(k * _u64(_LN2_LOW), half_word)
    r_high, r_low = shift_right(r, half_word), tf.bitwise.bitwise_and(r, mask)
    one = _u64(1 << _FRACTION_BITS)

    def add_term(i: tf.Tensor, total: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns `1 + r * total / i`: the upper half of a 128-bit product, divided."""
        high = shift_right(total, half_word)
        low = tf.bitwise.bitwise_and(total, mask)
        middle = r_high * low + shift_right(r_low * low, half_word)
        lower = r_low * high + tf.bitwise.bitwise_and(middle, mask)
        carries = shift_right(middle, half_word) + shift_right(lower, half_word)
        product = r_high * high + carries
        return i - 1, one + product // tf.cast(i, tf.uint64)

    # A signed counter: XLA crashes on a loop with an unsigned one.
    _, total = tf.while_loop(
        lambda i, _: i > 0, add_term, (_TERMS, tf.fill(tf.shape(x), one))
    )
    # Round to the 53 bits of a float64, then drop what is behind the point.
    spare_bits = _FRACTION_BITS - 52
    mantissa = shift_right(total + _u64(1 << (spare_bits - 1)), _u64(spare_bits))
    point = _u64(52)
    whole = shift_right(mantissa, point - tf.minimum(k, point))
    return tf.bitcast(
        tf.bitwise.left_shift(whole, tf.maximum(k, point) - point), tf.int64
    )


def _u64(number: int) -> tf.Tensor:
    return tf.constant(number, tf.uint64)
