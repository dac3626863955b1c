"""The exact softmax in blocks beside the dense way: time in turn, memory by itself."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from benchmarks import fresh
from benchmarks.paired import Timing, compare
from tfsampled import nn

TITLE = (
    "exact softmax: tfsampled.nn in blocks beside tf.matmul and tf.nn or tf.math\n"
    "(memory: what one step needs above its inputs, in a fresh process)"
)
COLUMNS = {
    "case": "{0.name}",
    "ours, ms": "{0.ours_ms:,.0f}",
    "TensorFlow, ms": "{0.theirs_ms:,.0f}",
    "ratio": "{0.ratio:.2f}",
    "ours, MiB": "{0.ours_mib:,.0f}",
    "TensorFlow, MiB": "{0.theirs_mib:,.0f}",
    "tables, MiB": "{0.table_mib:,.0f}",
    "pairs": "{0.pairs}",
}
# Classes, dimensions, batch.
SIZES = [(100_000, 128, 1024)]
KS = (10, 100)
PAIRS = 15  # of half a second and more each


@dataclasses.dataclass(frozen=True)
class ExactTiming(Timing):
    """A timing with the peak memory of one step above its inputs, in MiB."""

    ours_mib: float
    theirs_mib: float
    table_mib: float  # of the weights: the gradient of the loss is as large


def timings() -> Iterator[ExactTiming]:
    for size in SIZES:
        for k in (0, *KS):
            what = f"top {k}" if k else "loss and gradients"
            name = "{} of {:,} x {}, batch {:,}".format(what, *size)
            ours, theirs = step("ours", *size, k), step("dense", *size, k)
            timing = compare(name, ours, theirs, PAIRS)
            ours_mib, theirs_mib = (
                fresh.step_peak_mib("benchmarks.exact:started_step", way, *size, k)
                for way in ("ours", "dense")
            )
            yield ExactTiming(
                **dataclasses.asdict(timing),
                ours_mib=ours_mib,
                theirs_mib=theirs_mib,
                table_mib=size[0] * size[1] * 4 / 2**20,
            )


def plot(rows: Sequence[ExactTiming], path: Path) -> None:
    """Two bars for each row."""
    from benchmarks.charts import bars

    bars(rows, path, TITLE)


def step(way: str, num_classes: int, dim: int, batch: int, k: int) -> Callable[[], Any]:
    """Loss and all gradients, or with `k` the best classes, in a `tf.function`."""
    rng = np.random.default_rng(num_classes)
    inputs = tf.constant(rng.standard_normal((batch, dim), np.float32))
    weights = tf.constant(rng.standard_normal((num_classes, dim), np.float32) / 8)
    biases = tf.constant(rng.standard_normal(num_classes, np.float32))
    labels = tf.constant(rng.integers(0, num_classes, (batch, 1)))

    def loss(inputs: tf.Tensor, weights: tf.Tensor, biases: tf.Tensor) -> tf.Tensor:
        if way == "ours":
            return nn.softmax_loss(weights, biases, labels, inputs)
        logits = tf.matmul(inputs, weights, transpose_b=True) + biases
        return tf.nn.sparse_softmax_cross_entropy_with_logits(labels[:, 0], logits)

    @tf.function(autograph=False)
    def call(*sources: tf.Tensor) -> Any:
        inputs, weights, biases = sources
        if k and way == "ours":
            return nn.softmax_top_k(weights, biases, inputs, k)
        if k:
            logits = tf.matmul(inputs, weights, transpose_b=True) + biases
            return tf.math.top_k(logits, k)
        with tf.GradientTape() as tape:
            tape.watch(sources)
            losses = loss(*sources)
        return losses, tape.gradient(losses, sources)

    traced = call.get_concrete_function(inputs, weights, biases)
    return lambda: traced(inputs, weights, biases)


def started_step(way: str, num_classes: int, dim: int, *rest: int) -> Callable[[], Any]:
    """`step`, which has not run yet, so that its own memory counts; a small one has.

    What TensorFlow frees stays resident: a step that has run would need nothing more.
    """
    step(way, min(num_classes, 1000), dim, *rest)()
    return step(way, num_classes, dim, *rest)
