"""The distributions of the candidate samplers: random words to proposed class ids.

A distribution proposes ids in the order in which TensorFlow's kernel meets them, and
knows the probability of each class.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from tfsampled._core.candidate_sampling import philox, unique
from tfsampled._core.candidate_sampling.alias_method import AliasTable
from tfsampled._core.candidate_sampling.expected_count import gather_clipped
from tfsampled._core.candidate_sampling.floor_exp import floor_exp
from tfsampled._core.candidate_sampling.unique import Proposals
from tfsampled._core.static_ops import Size, first_k_indices, searchsorted_right
from tfsampled._core.xla import constant_reader

# The learned unigram finds a block of this many weights, then the class in the block.
_WEIGHTS_PER_BLOCK = 16


class Distribution(NamedTuple):
    """A distribution over the classes `[0, range_max)`.

    Attributes:
        propose: `(stream, offset, count) -> Proposals`: `count` proposals from word
            `offset` of a `philox.Stream` on.
        probability: int64 ids of any shape to float32 probabilities of this shape, or
            to the one number `[]` that all have in common.
        initial_proposals: `(num_sampled, unique) -> int`: how many to make at once.
    """

    propose: Callable[[philox.Stream, int | tf.Tensor, int], Proposals]
    probability: Callable[[tf.Tensor], tf.Tensor]
    initial_proposals: Callable[[int, bool], int]


@functools.lru_cache(maxsize=64)
def log_uniform(range_max: int) -> Distribution:
    """Returns `P(v) = log((v + 2) / (v + 1)) / log(range_max + 1)`."""
    log_range = math.log1p(range_max)

    def propose(stream: philox.Stream, offset: Size, count: int) -> Proposals:
        pair = philox.pairs(stream, offset, count)
        # 52 bits of the two words are a multiple of 2**-52 in [0, 1): the upper 20 are
        # those of the first word.
        # words = [0x1234_5678, 0x9abc_def0] -> 0x4_5678_9abc_def0 * 2**-52 = 0.271...
        swapped = pair * tf.constant(1 << 32, tf.uint64)
        swapped += tf.bitwise.right_shift(pair, tf.constant(32, tf.uint64))
        bits = tf.bitwise.bitwise_and(swapped, tf.constant(2**52 - 1, tf.uint64))
        x = tf.cast(bits, tf.float64) * (log_range * 2.0**-52)
        # exp may round up to range_max + 1, which TensorFlow takes for class 0.
        ids = floor_exp(x, range_max + 1) - 1
        return Proposals(ids, None, offset + 2 * count)

    def probability(ids: tf.Tensor) -> tf.Tensor:
        v = tf.cast(ids, tf.float64)
        ratio = tf.math.log((v + 2.0) / (v + 1.0))
        return tf.cast(ratio / log_range, tf.float32)

    groups = unique.log_uniform_groups(range_max)
    return Distribution(propose, probability, _proposal_counts(*groups))


@functools.lru_cache(maxsize=64)
def uniform(range_max: int) -> Distribution:
    """Returns `P(v) = 1 / range_max`."""
    # 2**64 = 3 * 6148914691236517205 + 1: with range_max = 3 the number 0 is rejected,
    # which would make class 0 likelier. For a power of two none is.
    rejected = 2**64 % range_max

    def propose(stream: philox.Stream, offset: Size, count: int) -> Proposals:
        number = philox.pairs(stream, offset, count)
        ids = tf.bitcast(number % tf.constant(range_max, tf.uint64), tf.int64)
        valid = number >= tf.constant(rejected, tf.uint64) if rejected else None
        return Proposals(ids, valid, offset + 2 * count)

    def probability(ids: tf.Tensor) -> tf.Tensor:
        del ids
        return tf.constant(1.0 / range_max, tf.float32)

    groups = np.array([1.0 / range_max]), np.array([float(range_max)])
    return Distribution(propose, probability, _proposal_counts(*groups))


def learned_unigram(weights: tf.Tensor) -> tuple[Distribution, tf.Tensor]:
    """Returns `P(v) = weights[v] / sum(weights)`, and the sum as `[]` int32.

    A proposal is the first class whose running sum of weights exceeds a random number.

    Args:
        weights: `[range_max]` int64.
    """
    range_max = weights.shape[0]
    # With blocks of 2, weights = [1, 2, 4, 1, 3] -> running = [3, 8, 11].
    in_blocks = range_max // _WEIGHTS_PER_BLOCK * _WEIGHTS_PER_BLOCK
    blocks = tf.reshape(weights[:in_blocks], [-1, _WEIGHTS_PER_BLOCK])
    remainder = tf.reduce_sum(weights[in_blocks:])
    sums = tf.concat([tf.reduce_sum(blocks, axis=1), [remainder]], axis=0)
    sums = tf.cast(sums, tf.int32)  # not the weights, which takes longer
    running = tf.cumsum(sums)
    total = running[-1]

    def propose(stream: philox.Stream, offset: Size, count: int) -> Proposals:
        number = philox.words(stream, offset, count)
        range_size = tf.cast(total, tf.uint64)
        valid = number >= tf.constant(1 << 32, tf.uint64) % range_size
        position = tf.cast(number % range_size, tf.int32)
        # position = 7 -> block = 1, which starts at 3: weights 4 and 1 in it sum up to
        # [4, 5]; one of them is at most 7 - 3, so the class is 2 + 1 = 3.
        block = tf.minimum(searchsorted_right(running, position), running.shape[0] - 1)
        start = tf.gather(running - sums, block)
        member = block[:, tf.newaxis] * _WEIGHTS_PER_BLOCK
        member += tf.range(_WEIGHTS_PER_BLOCK)
        inside = tf.gather(weights, tf.minimum(member, range_max - 1))
        upto = tf.cumsum(tf.cast(inside, tf.int32), axis=1)
        passed = (upto <= (position - start)[:, tf.newaxis]) & (member < range_max)
        ids = member[:, 0] + tf.reduce_sum(tf.cast(passed, tf.int32), axis=1)
        return Proposals(tf.cast(ids, tf.int64), valid, offset + count)

    def probability(ids: tf.Tensor) -> tf.Tensor:
        weight = tf.cast(gather_clipped(weights, ids), tf.float32)
        return weight / tf.cast(total, tf.float32)

    return Distribution(propose, probability, unique.initial_proposals), total


def fixed_unigram(table: AliasTable) -> Distribution:
    """Returns the distribution of a table made by `alias_method.alias_table`.

    A proposal takes one word for a float and one for a column of the table.
    """
    threshold, alias, probabilities = map(constant_reader, table)
    range_max = len(table.probability)

    def propose(stream: philox.Stream, offset: Size, count: int) -> Proposals:
        if isinstance(offset, int):
            floats, columns = philox.halves(philox.pairs(stream, offset, count))
        else:
            words = tf.reshape(philox.words(stream, offset, 2 * count), [count, 2])
            floats, columns = words[:, 0], words[:, 1]
        valid, used = None, 2 * count
        if 2**32 % range_max:
            rejected = tf.constant(2**32 % range_max, tf.uint64)
            all_valid = tf.ones([count], tf.bool), tf.constant(used, tf.int64)
            floats, columns, valid, used = tf.cond(
                tf.reduce_any(columns < rejected),
                lambda: _resync_after_rejection(floats, columns, rejected),
                lambda: (floats, columns, *all_valid),
            )
        column = tf.cast(columns % tf.constant(range_max, tf.uint64), tf.int32)
        # 23 bits of the word are a float32 in [0, 1).
        mantissa = tf.bitwise.bitwise_and(floats, tf.constant(0x7FFFFF, tf.uint64))
        number = tf.cast(mantissa, tf.float32) * 2.0**-23
        keep = number < tf.gather(threshold(), column)
        ids = tf.where(keep, column, tf.gather(alias(), column))
        return Proposals(tf.cast(ids, tf.int64), valid, offset + used)

    return Distribution(
        propose,
        lambda ids: gather_clipped(probabilities(), ids),
        _proposal_counts(table.probability, np.ones(1)),
    )


def _proposal_counts(*groups: np.ndarray) -> Callable[[int, bool], int]:
    """Returns `initial_proposals` of these groups, each number computed once."""
    return functools.cache(lambda *args: unique.initial_proposals(*args, *groups))


def _resync_after_rejection(
    floats: tf.Tensor, columns: tf.Tensor, rejected: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
    """Pairs the words again where some were rejected as columns, which shifts the rest.

    Args:
        floats: `[count]` uint64, every other word.
        columns: `[count]` uint64, the words between.
        rejected: `[]` uint64, the words below it are no columns.

    Returns:
        Floats and columns, `[count]` uint64, the valid ones first; which are valid,
        `[count]` bool; how many words they took, `[]` int64.
    """
    # words = [9, 0, 7, 8, 6, 5], rejected = 1: 9 is a float, 0 no column, but 7 is one;
    # 8 is the next float, 6 its column, 5 has none.
    # -> floats = [9, 8, .], columns = [7, 6, .], valid = [1, 1, 0], used = 5
    count = floats.shape[0]
    words = tf.reshape(tf.stack([floats, columns], axis=1), [-1])
    is_float, float_position = _word_roles(words < rejected)
    is_column = (words >= rejected) & ~is_float
    position, num_found = first_k_indices(is_column, count)
    position = tf.minimum(position, 2 * count - 1)
    valid = tf.range(count) < num_found
    used = tf.reduce_max(tf.where(valid, position + 1, 0))
    floats = tf.gather(words, tf.gather(float_position, position))
    return floats, tf.gather(words, position), valid, tf.cast(used, tf.int64)


def _word_roles(rejecting: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Tells which words are floats, and where the latest float of each word is.

    After a float comes a column, after a column that is accepted a float, and after one
    that is rejected another column. So the latest rejecting word in a column's place
    settles the roles of the words after it, and so does the latest rejecting word in
    any place: read as a float it is followed by a column as well.

    Args:
        rejecting: `[n]` bool, the words that would be rejected as a column.

    Returns:
        `[n]` bool, and `[n]` int32 positions.
    """
    # rejecting      = [ 0, 1, 0, 0, 0, 0]
    # before         = [-2,-2, 1, 1, 1, 1]   the last rejecting word before each
    # is_float       = [ 1, 0, 0, 1, 0, 1]   an even distance
    # float_position = [ 0, 0, 0, 3, 3, 5]
    n = rejecting.shape[0]
    before = tf.concat([[-2], _latest(rejecting)[:-1]], axis=0)
    is_float = tf.equal((tf.range(n) - before) % 2, 0)
    return is_float, _latest(is_float)


def _latest(marks: tf.Tensor) -> tf.Tensor:
    """Returns the position of the latest mark up to each position, -2 if there is none.

    Args:
        marks: `[n]` bool.

    Returns:
        `[n]` int32.
    """
    # marks = [0, 1, 0, 1] -> positions = [1, 3, ..], rank = [0, 1, 1, 2]
    # -> [-2, 1, 1, 3]
    positions, _ = first_k_indices(marks, marks.shape[0])
    rank = tf.cumsum(tf.cast(marks, tf.int32))
    return tf.gather(tf.concat([[-2], positions], axis=0), rank)
