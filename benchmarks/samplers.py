"""Each sampler, beside TensorFlow's operation in a `tf.function`.

The functions of `tfsampled.random` are compiled by XLA; without it they are that
operation. Those of a head, `tfsampled.samplers`, are not compiled: they own and save
their position, which the operation does not.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from benchmarks import paired
from benchmarks.paired import Timing, compare, plotter
from tfsampled import random, samplers

TITLE = (
    "candidate samplers beside TensorFlow's operation\n(goal: a ratio of at most 1.2)"
)
COLUMNS = paired.COLUMNS
# Classes and samples.
SIZES = [(100_000, 1024), (100_000, 8192), (10_000_000, 8192)]
BATCH = 256
SAMPLERS = {
    "log_uniform": (
        random.log_uniform_candidate_sampler,
        tf.random.log_uniform_candidate_sampler,
    ),
    "uniform": (random.uniform_candidate_sampler, tf.random.uniform_candidate_sampler),
    "learned_unigram": (
        random.learned_unigram_candidate_sampler,
        tf.random.learned_unigram_candidate_sampler,
    ),
    "fixed_unigram": (
        random.fixed_unigram_candidate_sampler,
        tf.random.fixed_unigram_candidate_sampler,
    ),
}
MAX_UNIGRAMS = 1_000_000  # TensorFlow takes minutes to read more
OF_HEADS = {"log_uniform": samplers.LogUniform, "uniform": samplers.Uniform}


def timings() -> Iterator[Timing]:
    """Yields a row for each sampler and size."""
    for sampler, functions in SAMPLERS.items():
        for range_max, num_sampled in SIZES:
            if sampler == "fixed_unigram" and range_max > MAX_UNIGRAMS:
                continue
            yield _measure(sampler, functions, range_max, num_sampled)
    for sampler in [name for name in SAMPLERS if name in OF_HEADS]:
        for range_max, num_sampled in SIZES:
            yield _measure_head(sampler, range_max, num_sampled)


plot = plotter(TITLE)


def _measure(
    sampler: str, functions: tuple[Any, Any], range_max: int, num_sampled: int
) -> Timing:
    labels = _labels(range_max)
    arguments: dict[str, Any] = {"seed": 1}
    if sampler == "fixed_unigram":
        arguments["unigrams"] = (1e6 / (1.0 + np.arange(range_max))).tolist()

    def call(function: Any, jit_compile: bool | None) -> Any:
        traced = tf.function(
            lambda x: function(x, 1, num_sampled, True, range_max, **arguments),
            jit_compile=jit_compile,
        )
        return lambda: traced(labels)

    name = f"{sampler} {num_sampled} of {range_max}"
    tfsampled, tensorflow = functions
    return compare(name, call(tfsampled, True), call(tensorflow, None))


def _measure_head(sampler: str, range_max: int, num_sampled: int) -> Timing:
    labels, own = _labels(range_max), OF_HEADS[sampler](seed=1)
    _, function = SAMPLERS[sampler]
    tfsampled = tf.function(lambda x: own.sample(x, range_max, num_sampled))
    tensorflow = tf.function(
        lambda x: function(x, 1, num_sampled, True, range_max, seed=1)
    )
    name = f"{sampler} {num_sampled} of {range_max}, of a head"
    return compare(name, lambda: tfsampled(labels), lambda: tensorflow(labels))


def _labels(range_max: int) -> tf.Tensor:
    rng = np.random.default_rng(range_max)
    return tf.constant(rng.integers(0, range_max, (BATCH, 1)))
