"""Proposals to sampled classes: the first distinct ones, and the tries they took."""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from tfsampled._core.candidate_sampling import philox
from tfsampled._core.static_ops import first_k_indices, first_occurrences


class Proposals(NamedTuple):
    """Ids that were drawn with replacement.

    Attributes:
        ids: `[count]` int64.
        valid: `[count]` bool, or None if all are valid. An id that is not valid was
            rejected, and counts as no try.
        next_offset: Where the next proposals start in the stream, in words.
    """

    ids: tf.Tensor
    valid: tf.Tensor | None
    next_offset: tf.Tensor | int


Propose = Callable[[philox.Stream, "int | tf.Tensor", int], Proposals]


def sample_unique(
    propose: Propose, stream: philox.Stream, num_sampled: int, num_proposals: int
) -> tuple[tf.Tensor, tf.Tensor]:
    """Draws until `num_sampled` distinct classes are found; not for XLA.

    One round of proposals nearly always suffices.

    Args:
        propose: Of a `distributions.Distribution`.
        num_proposals: How many proposals to make in a round, a multiple of four.

    Returns:
        A tuple `(ids, num_tries)`: int64 `[num_sampled]` in the order in which they
        were found, and how many valid proposals it took to find them, `[]` int32.
    """

    def draw_round(
        ids: tf.Tensor, num_tries: tf.Tensor, offset: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        # num_sampled = 3, ids = [], proposals = [5, 2, 5, 7, 1]
        # -> distinct = [5, 2, 7, 1], index = [0, 1, 0, 2, 3]: 4 tries until index 2
        proposals = propose(stream, offset, num_proposals)
        if proposals.valid is None:
            new = proposals.ids
        else:
            new = tf.cond(
                tf.reduce_all(proposals.valid),
                lambda: proposals.ids,
                lambda: tf.boolean_mask(proposals.ids, proposals.valid),
            )
        distinct, index = tf.unique(tf.concat([ids, new], axis=0))
        is_last = tf.equal(index, num_sampled - 1)
        tries = tf.where(
            tf.size(distinct) < num_sampled,
            tf.size(new),
            tf.argmax(is_last, output_type=tf.int32) + 1 - tf.size(ids),
        )
        next_offset = tf.cast(proposals.next_offset, tf.int64)
        return distinct, num_tries + tries, next_offset

    scalar = tf.TensorShape([])
    distinct, num_tries, _ = tf.while_loop(
        lambda ids, *_: tf.size(ids) < num_sampled,
        draw_round,
        (tf.zeros([0], tf.int64), tf.constant(0), tf.constant(0, tf.int64)),
        shape_invariants=(tf.TensorShape([None]), scalar, scalar),
    )
    return tf.slice(distinct, [0], [num_sampled]), num_tries


def sample_static(
    propose: Propose,
    stream: philox.Stream,
    num_sampled: int,
    unique: bool,
    range_max: int,
    num_proposals: int,
) -> tuple[tf.Tensor, tf.Tensor | None]:
    """Draws as `sample_unique`, with static shapes, or with replacement.

    Args:
        unique: Take each class once.
        range_max: The number of classes.

    Returns:
        As `sample_unique`; the number of tries is None if `unique` is False.
    """
    first = propose(stream, 0, num_proposals)
    if not unique and first.valid is None:
        return first.ids[:num_sampled], None

    def take_first(
        ids: tf.Tensor, valid: tf.Tensor | None
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Returns the first `num_sampled`, how many there are, and the last's index."""
        marks = first_occurrences(ids, valid, range_max) if unique else valid
        indices, num_found = first_k_indices(marks, num_sampled)
        last = indices[-1]
        return tf.gather(ids, tf.minimum(indices, ids.shape[0] - 1)), num_found, last

    def count_tries(valid: tf.Tensor | None, count: int, last: tf.Tensor) -> tf.Tensor:
        """Counts the valid proposals up to index `last`, which may be past the end."""
        if valid is None:
            return tf.minimum(last, count - 1) + 1
        return tf.reduce_sum(tf.cast(valid & (tf.range(count) <= last), tf.int32))

    def draw_more(
        ids: tf.Tensor, num_found: tf.Tensor, num_tries: tf.Tensor, offset: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
        # ids = [5, 2, .], num_found = 2, proposals = [2, 7]: the first distinct ones of
        # [5, 2, ., 2, 7] are at [0, 1, 4], the last of them after 4 - 3 + 1 = 2 tries.
        more = propose(stream, offset, num_proposals)
        valid = more.valid
        if valid is None:
            valid = tf.ones([num_proposals], tf.bool)
        ids, num_found, last = take_first(
            tf.concat([ids, more.ids], axis=0),
            tf.concat([tf.range(num_sampled) < num_found, valid], axis=0),
        )
        num_tries += count_tries(more.valid, num_proposals, last - num_sampled)
        return ids, num_found, num_tries, tf.cast(more.next_offset, tf.int64)

    ids, num_found, last = take_first(first.ids, first.valid)
    ids, _, num_tries, _ = tf.while_loop(
        lambda _, num_found, *__: num_found < num_sampled,
        draw_more,
        (
            ids,
            num_found,
            count_tries(first.valid, num_proposals, last),
            tf.cast(first.next_offset, tf.int64),
        ),
    )
    return ids, num_tries if unique else None


def initial_proposals(num_sampled: int, unique: bool, *groups: np.ndarray) -> int:
    """Returns how many proposals to make at once, so that more are rarely needed.

    Args:
        unique: Whether they must be distinct.
        *groups: The `probabilities` and `multiplicity` of groups of classes, as in
            `expected_distinct`; left out if they change from call to call.

    Returns:
        A multiple of four, at most about `4 * num_sampled`. If that does not suffice,
        another round is cheaper than a larger one.

    Example:
        >>> initial_proposals(100, unique=False)
        104
        >>> initial_proposals(100, True, np.array([1e-3]), np.array([1000.0]))
        156
    """
    if not unique:
        return _round_up_to_four(num_sampled + num_sampled // 64)
    if not groups:
        return _round_up_to_four(num_sampled + num_sampled // 4 + 64)

    def suffices(num_tries: int) -> bool:
        mean, deviation = expected_distinct(num_tries, *groups)
        return mean - 4 * deviation >= num_sampled

    numbers = range(4 * num_sampled + 64)
    number = bisect.bisect_left(numbers, True, lo=num_sampled, key=suffices)
    return _round_up_to_four(number)


def expected_distinct(
    num_tries: int, probabilities: np.ndarray, multiplicity: np.ndarray
) -> tuple[float, float]:
    """Returns the mean and a bound of the deviation of the distinct classes found.

    A class of probability `p` is found by `n` tries with probability `1 - (1 - p)**n`.

    Args:
        probabilities: `[m]`, probabilities of classes.
        multiplicity: `[m]` or `[1]` float64, how many classes have each.

    Example:
        >>> expected_distinct(2, np.array([0.5]), np.array([2.0]))[0]
        1.5
    """
    probabilities = np.minimum(np.asarray(probabilities, np.float64), 1 - 1e-16)
    found = -np.expm1(num_tries * np.log1p(-probabilities))
    variance = float(np.sum(multiplicity * found * (1 - found)))
    return float(np.sum(multiplicity * found)), math.sqrt(variance)


def log_uniform_groups(range_max: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns probabilities of groups of log-uniform classes, and their sizes.

    Each of the first 1024 classes is a group; the others are grouped in intervals,
    each as likely as its mean.

    Example:
        >>> probabilities, multiplicity = log_uniform_groups(10**6)
        >>> round(float(np.sum(probabilities * multiplicity)), 9)
        1.0
    """
    head = min(range_max, 1024)
    tail = np.geomspace(head, range_max, 1024).astype(np.int64)
    edges = np.unique(np.concatenate([np.arange(head), tail])).astype(np.float64)
    multiplicity = np.diff(edges)
    mass = np.diff(np.log1p(edges)) / math.log1p(range_max)
    return mass / multiplicity, multiplicity


def _round_up_to_four(number: int) -> int:
    return -(-number // 4) * 4
