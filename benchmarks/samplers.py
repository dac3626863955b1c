"""Each sampler compiled by XLA, beside TensorFlow's operation in a `tf.function`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from benchmarks import paired
from benchmarks.paired import Timing, compare, plotter
from tfsampled import random

TITLE = (
    "candidate samplers: jit_compile=True beside TensorFlow's operation\n"
    "(goal: a ratio of at most 1.2)"
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


def timings() -> Iterator[Timing]:
    """Yields a row for each sampler and size."""
    for sampler, functions in SAMPLERS.items():
        for range_max, num_sampled in SIZES:
            if sampler == "fixed_unigram" and range_max > MAX_UNIGRAMS:
                continue
            yield _measure(sampler, functions, range_max, num_sampled)


plot = plotter(TITLE)


def _measure(
    sampler: str, functions: tuple[Any, Any], range_max: int, num_sampled: int
) -> Timing:
    rng = np.random.default_rng(range_max)
    labels = tf.constant(rng.integers(0, range_max, (BATCH, 1)))
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
