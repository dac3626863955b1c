"""A sampled loss over padded sequences, beside the same without padding."""

from __future__ import annotations

import dataclasses
import functools
import statistics
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from benchmarks.paired import timed
from tfsampled.layers import SampledSoftmax

TITLE = (
    "padded sequences: loss and gradients of the head (goal: at most 0.25 of the time "
    "where 15 % of the positions have a label)"
)
COLUMNS = {
    "labelled": "{0.share:.0%}",
    "jit": "{0.jit}",
    "ms": "{0.ms:.1f}",
    "of the time of all": "{0.ratio:.2f}",
}
CLASSES, DIM, BATCH, TIME, SAMPLED = 100_000, 64, 64, 200, 1024
SHARES = (1.0, 0.5, 0.15)
ROUNDS = 20


@dataclasses.dataclass(frozen=True)
class Padding:
    """Median milliseconds, and the median ratio to the step of labels everywhere."""

    share: float
    jit: bool
    ms: float
    ratio: float


def timings() -> Iterator[Padding]:
    """Yields a row for each share of labelled positions, without jit and with it."""
    rng = np.random.default_rng(0)
    features = tf.constant(rng.standard_normal((BATCH, TIME, DIM), np.float32))
    labels = []
    for share in SHARES:
        ids = rng.integers(0, CLASSES, (BATCH, TIME))
        ids[rng.uniform(size=ids.shape) >= share] = -1
        labels.append(tf.constant(ids))
    for jit in (False, True):
        step = _step(jit)
        step(features, labels[0])
        rounds = np.array(
            [
                [timed(functools.partial(step, features, ids)) for ids in labels]
                for _ in range(ROUNDS)
            ]
        )
        for share, seconds in zip(SHARES, rounds.T, strict=True):
            ratio = float(np.median(seconds / rounds[:, 0]))
            yield Padding(share, jit, 1e3 * statistics.median(seconds), ratio)


def _step(jit: bool) -> Callable[..., Any]:
    head = SampledSoftmax(CLASSES, SAMPLED, "uniform", ignore_class=-1)
    head.build((None, None, DIM))

    @tf.function(
        input_signature=[
            tf.TensorSpec([None, TIME, DIM]),
            tf.TensorSpec([None, TIME], tf.int64),
        ],
        autograph=False,
        jit_compile=jit,
    )
    def step(features: tf.Tensor, labels: tf.Tensor) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(features)
            loss = tf.reduce_mean(head.sampled_loss(features, labels))
        sources = [features, head.kernel.value, head.bias.value]
        gradients = tape.gradient(loss, sources)
        return loss, tf.nest.flatten(gradients, expand_composites=True)

    return step
