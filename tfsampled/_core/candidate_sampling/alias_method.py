"""Walker's alias table of given weights, as TensorFlow's kernel builds it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from tfsampled._core.candidate_sampling.unique import expected_distinct

# TensorFlow's kernel ends the process after so many tries.
MAX_KERNEL_TRIES = 2**31 - 1


class AliasTable(NamedTuple):
    """A distribution over `[0, n)`: draw a column, keep it or take its alias.

    Attributes:
        threshold: `[n]` float32, the probability to keep a column.
        alias: `[n]` int32, the class to take otherwise.
        probability: `[n]` float32: the weight over the running sum of all weights.
    """

    threshold: np.ndarray
    alias: np.ndarray
    probability: np.ndarray


def read_weights(vocab_file: str, unigrams: Sequence[float]) -> Sequence[float]:
    """Returns the weights of one of the two sources.

    Args:
        vocab_file: A file; the weight is the last comma-separated field of each line.
        unigrams: The weights themselves.

    Raises:
        ValueError: If both are given, or neither, or the file cannot be read.
    """
    if bool(vocab_file) == (len(unigrams) > 0):
        raise ValueError(
            "Exactly one of `vocab_file` and `unigrams` must be given. Received: "
            f"vocab_file={vocab_file!r} and {len(unigrams)} unigrams."
        )
    if not vocab_file:
        return unigrams
    if not tf.io.gfile.exists(vocab_file):
        raise ValueError(
            f"`vocab_file` must be an existing file. Received: {vocab_file!r}."
        )
    weights = []
    with tf.io.gfile.GFile(vocab_file, "r") as lines:
        for number, line in enumerate(lines, start=1):
            line = line.rstrip("\r\n")
            if not line:
                continue
            try:
                weights.append(float(line.rsplit(",", 1)[-1]))
            except ValueError:
                raise ValueError(
                    "Each line of `vocab_file` must end in a number after the last "
                    f"comma. Received: line {number} of {vocab_file!r} is {line!r}."
                ) from None
    return weights


def class_weights(
    unigrams: Sequence[float] | np.ndarray,
    distortion: float,
    num_reserved_ids: int = 0,
    num_shards: int = 1,
    shard: int = 0,
) -> np.ndarray:
    """Computes a shard's weights: 0 for reserved ids, then `unigram**distortion`.

    As in TensorFlow, the first unigram has the id `k` if `k` reserved ids are in this
    shard, the next one `k + 1`, and so on. Id `c` is in shard `c % num_shards`.

    Returns:
        `[n]` float32.

    Raises:
        ValueError: If there is no such shard.

    Example:
        >>> class_weights([1.0, 2.0, 3.0], distortion=2.0, num_reserved_ids=1)
        array([0., 1., 4., 9.], dtype=float32)
    """
    if num_shards < 1 or not 0 <= shard < num_shards:
        raise ValueError(
            "`shard` must be at least 0 and below `num_shards`. "
            f"Received: shard={shard}, num_shards={num_shards}."
        )
    reserved = np.arange(num_reserved_ids) % num_shards == shard
    zeros = np.zeros(np.count_nonzero(reserved), np.float32)
    ids = np.arange(len(unigrams)) + len(zeros)
    weights = np.asarray(unigrams, np.float32)[ids % num_shards == shard]
    # One rounding of the float64 power is what a float32 power function gives.
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        power = np.power(weights.astype(np.float64), np.float64(np.float32(distortion)))
        return np.concatenate([zeros, power.astype(np.float32)])


def validate_weights(
    weights: np.ndarray, num_distinct: int, max_tries: int, name: str
) -> None:
    """Checks that the weights can be drawn from.

    Args:
        weights: `[n]` float32, from `class_weights`.
        max_tries: The number of tries in which they must be found, on average.
        name: The argument that the weights were computed from.

    Raises:
        ValueError: If a weight or their sum is no finite float32, a weight is negative,
            or too few classes would be found.
    """
    is_valid = np.isfinite(weights) & (weights >= 0)
    if not is_valid.all():
        index = int(np.argmin(is_valid))
        raise ValueError(
            f"`{name}` to the power of `distortion` must be finite float32 numbers, at "
            f"least 0. Received: {weights[index]} for class {index}."
        )
    probability = class_probabilities(weights).astype(np.float64)
    if not np.any(probability > 0):
        raise ValueError(
            f"`{name}` to the power of `distortion` must have a positive and finite "
            f"sum in float32. Received: {len(weights)} numbers whose sum is "
            f"{np.sum(weights, dtype=np.float64)}."
        )
    # A class of at least this probability is certain to be found.
    if np.count_nonzero(probability * max_tries >= 64) >= num_distinct:
        return
    mean, _ = expected_distinct(max_tries, probability, np.ones_like(probability))
    if mean < num_distinct:
        raise ValueError(
            f"`{name}` must let {num_distinct} classes be drawn in {max_tries} tries. "
            f"Received: {name} by which {mean:.0f} of {len(weights)} classes would be "
            "drawn. Sample fewer, or use a smaller distortion."
        )


def class_probabilities(weights: np.ndarray) -> np.ndarray:
    """Returns the probabilities that TensorFlow reports: float32, a float32 sum."""
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        return weights / np.add.accumulate(weights)[-1]


def alias_table(weights: np.ndarray) -> AliasTable:
    """Builds the table with last-in-first-out stacks, bit for bit as TensorFlow does.

    Args:
        weights: `[n]` float32, from `class_weights`.

    Example:
        >>> table = alias_table(np.array([1.0, 1.0, 4.0], np.float32))
        >>> table.threshold.tolist(), table.alias.tolist()
        ([0.5, 0.5, 1.0], [2, 2, 2])
    """
    total = np.add.accumulate(weights.astype(np.float64))[-1]
    # TensorFlow multiplies in float32 and divides in float64.
    shares = (weights * np.float32(len(weights))).astype(np.float64) / total
    threshold = np.ones_like(weights)
    alias = np.arange(len(weights), dtype=np.int32)

    # Each stack from its top. A large class fills up the small ones, until its own
    # share falls below 1 and the next large class fills it up.
    # shares = [0.5, 0.5, 2.0] -> small = [1, 0], large = [2]: 2 fills up 1, then 0.
    small = np.flatnonzero(shares < 1.0)[::-1]
    large = np.flatnonzero(shares >= 1.0)[::-1]
    if not len(large):
        return AliasTable(threshold, alias, class_probabilities(weights))
    surpluses = iter((shares[large] - 1.0).tolist())
    share = 1.0 + next(surpluses)
    first_filled = [0]  # by each large class, a position in `small`
    final_shares = []  # of the large classes that fell below 1
    num_filled = len(small)
    for position, deficit in enumerate(memoryview(1.0 - shares[small])):
        while share < 1.0 and (surplus := next(surpluses, None)) is not None:
            final_shares.append(share)
            first_filled.append(position)
            share += surplus
        if share < 1.0:
            num_filled = position
            break
        share -= deficit
    while share < 1.0 and (surplus := next(surpluses, None)) is not None:
        final_shares.append(share)
        first_filled.append(num_filled)
        share += surplus
    # What rounding leaves on either stack keeps its column.
    num_fell = len(final_shares)
    threshold[large[:num_fell]] = final_shares
    alias[large[:num_fell]] = large[1 : num_fell + 1]
    counts = np.diff([*first_filled, num_filled])
    filled = small[:num_filled]
    threshold[filled] = shares[filled]
    alias[filled] = np.repeat(large[: num_fell + 1], counts)
    return AliasTable(threshold, alias, class_probabilities(weights))
