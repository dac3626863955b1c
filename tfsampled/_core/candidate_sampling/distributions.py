"""Random words -> tries, one function per distribution.

A distribution is asked for `count` tries from word `first` of a stream on. It
answers with ids in the order in which TensorFlow's kernel meets them, with a mask of
those that are tries at all (a rejected word is none), and with the word at which the
next try starts.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from tfsampled._core.candidate_sampling import philox
from tfsampled._core.candidate_sampling.floor_exp import whole_exp
from tfsampled._core.static_ops import places_of, searchsorted_right


class Tries(NamedTuple):
    """`ids` [n] int64; `valid` [n] bool or None for all; `next_word` [] int64."""

    ids: tf.Tensor
    valid: tf.Tensor | None
    next_word: tf.Tensor | int


# A learned unigram try finds a block of so many weights, then the class in it.
_WEIGHTS_PER_BLOCK = 16

Draw = Callable[[philox.Stream, "tf.Tensor | int", int], Tries]


def log_uniform(range_max):
    """Tries of `P(v) = log((v + 2) / (v + 1)) / log(range_max + 1)`."""
    log_range = math.log1p(range_max)

    def draw(source, first, count):
        upper, lower = philox.pairs(source, first, count)
        upper = tf.bitwise.bitwise_and(upper, tf.constant(0xFFFFF, tf.uint64))
        # 52 bits: exact in a float64, and so is the scaling by a power of two.
        bits = tf.cast(upper, tf.float64) * 2.0**32 + tf.cast(lower, tf.float64)
        ids = whole_exp(bits * (2.0**-52 * log_range), range_max + 1.0) - 1
        # exp may round up to range_max + 1, which TensorFlow takes for class 0.
        ids = tf.where(ids < range_max, ids, ids - range_max)
        return Tries(ids, None, first + 2 * count)

    return draw


def uniform(range_max):
    """Tries of `P(v) = 1 / range_max`."""

    def draw(source, first, count):
        lower, upper = philox.pairs(source, first, count)
        number = lower + upper * tf.constant(1 << 32, tf.uint64)
        ids, valid = _modulo(number, range_max, 64)
        return Tries(ids, valid, first + 2 * count)

    return draw


def learned_unigram(weights):
    """Tries of the first class whose running sum of weights exceeds a number.

    Args:
      weights: `[range_max]` int64.

    Returns:
      The distribution, and the sum of the weights, `[]` int32.
    """
    range_max = weights.shape[0]
    whole = range_max // _WEIGHTS_PER_BLOCK * _WEIGHTS_PER_BLOCK
    blocks = tf.reshape(tf.cast(weights[:whole], tf.int32), [-1, _WEIGHTS_PER_BLOCK])
    rest = tf.reduce_sum(tf.cast(weights[whole:], tf.int32))
    running = tf.cumsum(tf.concat([tf.reduce_sum(blocks, axis=1), [rest]], axis=0))
    total = running[-1]

    def draw(source, first, count):
        number = philox.words(source, first, count)
        wide_total = tf.cast(total, tf.uint64)
        rejected = _rejected_below(wide_total)
        position = tf.cast(number % wide_total, tf.int32)
        # The block first, then the class in it.
        block = tf.minimum(searchsorted_right(running, position), running.shape[0] - 1)
        before = tf.where(block > 0, tf.gather(running, tf.maximum(block - 1, 0)), 0)
        member = block[:, tf.newaxis] * _WEIGHTS_PER_BLOCK + tf.range(
            _WEIGHTS_PER_BLOCK
        )
        inside = tf.gather(weights, tf.minimum(member, range_max - 1))
        upto = tf.cumsum(tf.cast(inside, tf.int32), axis=1)
        passed = (upto <= (position - before)[:, tf.newaxis]) & (member < range_max)
        ids = block * _WEIGHTS_PER_BLOCK + tf.reduce_sum(
            tf.cast(passed, tf.int32), axis=1
        )
        return Tries(tf.cast(ids, tf.int64), number >= rejected, first + count)

    return draw, total


def fixed_unigram(keep, alias):
    """Tries from a Walker alias table: one word for a float, one for a column.

    Args:
      keep: `[range_max]` float32, the chance that a column stands for itself.
      alias: `[range_max]` int32, what it stands for otherwise.
    """
    range_max = keep.shape[0]

    def draw(source, first, count):
        if isinstance(first, int):
            floats, columns = philox.pairs(source, first, count)
        else:
            words = tf.reshape(philox.words(source, first, 2 * count), [count, 2])
            floats, columns = words[:, 0], words[:, 1]
        valid, used = None, 2 * count
        if range_max & (range_max - 1) != 0:
            rejected = tf.constant((2**32 - 1) % range_max + 1, tf.uint64)
            floats, columns, valid, used = tf.cond(
                tf.reduce_any(columns < rejected),
                lambda: _shifted(floats, columns, rejected),
                lambda: (
                    floats,
                    columns,
                    tf.ones([count], tf.bool),
                    tf.constant(2 * count, tf.int64),
                ),
            )
        column = tf.cast(columns % tf.constant(range_max, tf.uint64), tf.int32)
        chance = tf.cast(
            tf.bitwise.bitwise_and(floats, tf.constant(0x7FFFFF, tf.uint64)), tf.float32
        )
        own = chance * 2.0**-23 < tf.gather(keep, column)
        ids = tf.where(own, column, tf.gather(alias, column))
        return Tries(tf.cast(ids, tf.int64), valid, first + used)

    return draw


def _shifted(floats, columns, rejected):
    """The pairs where words were rejected as columns, which shifts all that follow.

    Returns:
      Floats and columns, `[count]` uint64, at the front those that make a try;
      which ones these are, `[count]` bool; how many words they took, `[]` int64.
    """
    count = floats.shape[0]
    number = tf.reshape(tf.stack([floats, columns], axis=1), [-1])
    is_float, at = _parts(number < rejected)
    is_try = (number >= rejected) & ~is_float
    places, found = places_of(is_try, count)
    places = tf.minimum(places, 2 * count - 1)
    valid = tf.range(count) < found
    used = tf.reduce_max(tf.where(valid, places + 1, 0))
    return (
        tf.gather(number, tf.gather(at, places)),
        tf.gather(number, places),
        valid,
        tf.cast(used, tf.int64),
    )


def _modulo(number, range_max, bits):
    """`number` (uint64 of so many bits) brought into the range, and what is kept."""
    limit = tf.constant(range_max, tf.uint64)
    if range_max & (range_max - 1) == 0:
        mask = tf.constant(range_max - 1, tf.uint64)
        return tf.bitcast(tf.bitwise.bitwise_and(number, mask), tf.int64), None
    rejected = (2**bits - 1) % range_max + 1
    ids = tf.bitcast(number % limit, tf.int64)
    return ids, number >= tf.constant(rejected, tf.uint64)


def _rejected_below(total):
    """How many of the smallest words would favour small numbers; none for 2**b."""
    power_of_two = tf.equal(tf.bitwise.bitwise_and(total, total - 1), 0)
    rest = tf.constant(0xFFFFFFFF, tf.uint64) % total + 1
    return tf.where(power_of_two, tf.constant(0, tf.uint64), rest)


def _parts(rejecting):
    """Which words are floats, and for each word where the latest float stands.

    After a float comes a column, after a column that is kept a float, and after one
    that is rejected another column. So the latest rejecting word in a column's place
    would settle the parts - and so does the latest rejecting word in any place: read
    as a float it is followed by a column as well.

    Args:
      rejecting: `[n]` bool: words that would be rejected as a column.

    Returns:
      `[n]` bool, and `[n]` int32 positions.
    """
    n = rejecting.shape[0]
    position = tf.range(n)
    # The last rejecting word strictly before; -2 stands for the start of the stream,
    # which a float follows.
    latest = _running_max(tf.where(rejecting, position, -2))
    before = tf.concat([[-2], latest[:-1]], axis=0)
    is_float = tf.equal((position - before) % 2, 0)
    return is_float, _running_max(tf.where(is_float, position, 0))


def _running_max(x):
    n = x.shape[0]
    shift = 1
    while shift < n:
        x = tf.maximum(x, tf.concat([x[:shift], x[:-shift]], axis=0))
        shift *= 2
    return x


def expected_distinct(tries, chances, copies):
    """Mean and deviation of how many distinct classes so many tries find.

    Args:
      tries: Python int.
      chances: `[m]` NumPy float64, probabilities of classes.
      copies: `[m]` NumPy float64, how many classes have each.
    """
    seen = -np.expm1(tries * np.log1p(-np.minimum(chances, 1 - 1e-16)))
    return float(np.sum(copies * seen)), math.sqrt(
        float(np.sum(copies * seen * (1 - seen)))
    )


def log_uniform_chances(range_max):
    """Probabilities and multiplicities that stand for the log-uniform classes."""
    edges = np.unique(
        np.concatenate(
            [
                np.arange(min(range_max, 1024)),
                np.geomspace(min(range_max, 1024), range_max, 1024).astype(np.int64),
            ]
        )
    ).astype(np.float64)
    copies = np.diff(edges)
    return np.diff(np.log1p(edges)) / copies / math.log1p(range_max), copies


def first_tries(num_sampled, unique, chances=None, copies=None):
    """How many tries to make at once, so that more are rarely needed.

    Args:
      num_sampled: Python int.
      unique: Python bool.
      chances: `[m]` NumPy float64, probabilities of classes; None where they change.
      copies: `[m]` NumPy float64, how many classes have each.

    Returns:
      A multiple of four, never much more than `4 * num_sampled`: where that does not
      suffice, the loop that draws more is the cheaper way.
    """
    if not unique:
        return _multiple_of_four(num_sampled + num_sampled // 64)
    if chances is None:
        return _multiple_of_four(num_sampled + num_sampled // 4 + 64)
    low, high = num_sampled, 4 * num_sampled + 64
    while low < high:
        middle = (low + high) // 2
        mean, deviation = expected_distinct(middle, chances, copies)
        if mean - 4 * deviation >= num_sampled:
            high = middle
        else:
            low = middle + 1
    return _multiple_of_four(low)


def _multiple_of_four(number):
    return -(-number // 4) * 4
