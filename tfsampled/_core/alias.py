"""Walker's alias table of a fixed distribution, as TensorFlow's kernel builds it."""

import hashlib
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from tfsampled._core import draws

_TABLES: dict[tuple[bytes, int], "AliasTable"] = {}
_TABLES_KEPT = 4


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


def read_vocabulary(vocab_file):
    """The last comma-separated field of each line, `[lines]` float32.

    Raises:
      ValueError: a field that is not a number.
    """
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
    key = (hashlib.blake2b(weights.tobytes()).digest(), len(weights))
    if key not in _TABLES:
        while len(_TABLES) >= _TABLES_KEPT:
            del _TABLES[next(iter(_TABLES))]
        _TABLES[key] = _build(weights)
    return _TABLES[key]


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
