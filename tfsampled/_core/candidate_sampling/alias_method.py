"""Walker's alias table of a fixed distribution, as TensorFlow's kernel builds it."""

import functools
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from tfsampled._core.candidate_sampling import distributions as draws


class AliasTable(NamedTuple):
    """A distribution over `[0, n)`.

    Attributes:
      keep: `[n]` float32, the chance that a column of the table stands for itself.
      alias: `[n]` int32, what it stands for otherwise.
      probability: `[n]` float32: the weight over the running sum of all weights.
    """

    keep: np.ndarray
    alias: np.ndarray
    probability: np.ndarray


def given_weights(vocab_file, unigrams):
    """The weights as they were given, in a file or as numbers.

    Raises:
      ValueError: both were given, or neither, or a file that cannot be read.
    """
    if bool(vocab_file) == (len(unigrams) > 0):
        raise ValueError(
            "a fixed unigram sampler takes its weights from vocab_file or from "
            f"unigrams, but {'both' if vocab_file else 'neither'} were given."
        )
    return read_vocabulary(vocab_file) if vocab_file else unigrams


def check_weights(weights, range_max, at_least):
    """Raises `ValueError` where these weights cannot be drawn from.

    Args:
      weights: `[n]` float32, those of reserved ids included.
      range_max: Python int, the classes that there should be.
      at_least: Python int, how many different classes have to be found.
    """
    if len(weights) != range_max:
        raise ValueError(
            f"range_max is {range_max}, but {len(weights)} classes have a weight "
            "(reserved ids included): they must be as many."
        )
    if not np.all((weights >= 0) & np.isfinite(weights)):
        bad = int(np.flatnonzero(~((weights >= 0) & np.isfinite(weights)))[0])
        raise ValueError(
            f"the weight of class {bad} is {weights[bad]}; weights must be finite "
            "and not negative."
        )
    if (positive := np.count_nonzero(weights)) < at_least:
        raise ValueError(
            f"{positive} classes have a weight above 0, but {at_least} different ones "
            "are to be drawn: draw fewer, or pass unique=False."
        )


def read_vocabulary(vocab_file):
    """The last comma-separated field of each line, `[lines]` float32.

    Raises:
      ValueError: a field that is not a number.
    """
    if not tf.io.gfile.exists(vocab_file):
        raise ValueError(f"vocab_file {vocab_file!r} does not exist.")
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
                    f"vocab_file {vocab_file!r}, line {number}: {line!r} does not end "
                    "in a number; each line must be comma-separated with the weight "
                    "of its class last."
                ) from None
    return np.asarray(weights, np.float32)


def class_weights(unigrams, distortion, num_reserved_ids, num_shards, shard):
    """The weights of this shard's classes, `[n]` float32: zeros, then `w**distortion`.

    The ids are counted as TensorFlow counts them: the first weight has the number of
    reserved ids that fell into this shard.
    """
    if num_shards < 1 or not 0 <= shard < num_shards:
        raise ValueError(
            f"shard is {shard} of num_shards {num_shards}; it must be at least 0 and "
            "below num_shards."
        )
    reserved = np.arange(num_reserved_ids) % num_shards == shard
    zeros = np.zeros(np.count_nonzero(reserved), np.float32)
    ids = np.arange(len(unigrams)) + len(zeros)
    mine = np.asarray(unigrams, np.float32)[ids % num_shards == shard]
    # One rounding of the float64 power is what a float32 power function gives.
    distorted = np.power(mine.astype(np.float64), np.float64(np.float32(distortion)))
    return np.concatenate([zeros, distorted.astype(np.float32)])


def alias_table(weights):
    """The table for these weights; the last few are remembered.

    Args:
      weights: `[n]` float32.

    Returns:
      An `AliasTable`.
    """
    return _remembered_table(weights.tobytes())


@functools.lru_cache(maxsize=4)
def _remembered_table(weights):
    return _build(np.frombuffer(weights, np.float32))


def first_tries(table, num_sampled, unique):
    """How many tries to draw at once from this table."""
    chances = table.probability.astype(np.float64)
    return draws.first_tries(num_sampled, unique, chances, np.ones_like(chances))


def _build(weights):
    n = len(weights)
    total = np.add.accumulate(weights.astype(np.float64))[-1]
    # TensorFlow multiplies in float32 and divides in float64.
    shares = (weights * np.float32(n)).astype(np.float64) / total
    below = shares < 1.0
    low = np.flatnonzero(below).tolist()
    high = np.flatnonzero(~below).tolist()
    share = shares.tolist()
    alias = np.arange(n, dtype=np.int32)
    while high and low:
        poor, rich = low.pop(), high.pop()
        alias[poor] = rich
        share[rich] -= 1.0 - share[poor]
        (low if share[rich] < 1.0 else high).append(rich)
    # What rounding left over on either stack stands for itself.
    left = high + low
    keep = np.asarray(share, np.float64).astype(np.float32)
    keep[left] = 1.0
    alias[left] = left
    return AliasTable(keep, alias, weights / np.add.accumulate(weights)[-1])
