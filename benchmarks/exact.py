"""The full softmax in chunks, beside the one that holds all logits: time and memory."""

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
    "full softmax: tfsampled.nn in chunks, beside tf.matmul and tf.nn or tf.math\n"
    "(memory: what one step needs above its inputs, in a fresh process)"
)
COLUMNS = {
    "case": "{0.name}",
    "tfsampled, ms": "{0.tfsampled_ms:,.0f}",
    "TensorFlow, ms": "{0.tensorflow_ms:,.0f}",
    "ratio": "{0.ratio:.2f}",
    "tfsampled, MiB": "{0.tfsampled_mib:,.0f}",
    "TensorFlow, MiB": "{0.tensorflow_mib:,.0f}",
    "tables, MiB": "{0.table_mib:,.0f}",
    "pairs": "{0.pairs}",
}
# Classes, dimensions, batch.
SIZES = [(100_000, 128, 1024)]
KS = (10, 100)
METHODS = ("tfsampled", "dense")
PAIRS = 15  # each takes half a second or more


@dataclasses.dataclass(frozen=True)
class ExactTiming(Timing):
    """A timing, and the peak memory of one step above its inputs, in MiB."""

    tfsampled_mib: float
    tensorflow_mib: float
    table_mib: float  # the size of the weights, and of their gradient


def timings() -> Iterator[ExactTiming]:
    """Yields a row for the loss and for each top k."""
    for size in SIZES:
        for k in (0, *KS):
            task = f"top {k}" if k else "loss and gradients"
            name = "{} of {:,} x {}, batch {:,}".format(task, *size)
            tfsampled, dense = (step(method, *size, k) for method in METHODS)
            timing = compare(name, tfsampled, dense, PAIRS)
            tfsampled_mib, tensorflow_mib = (
                fresh.step_peak_mib("benchmarks.exact:cold_step", method, *size, k)
                for method in METHODS
            )
            yield ExactTiming(
                **dataclasses.asdict(timing),
                tfsampled_mib=tfsampled_mib,
                tensorflow_mib=tensorflow_mib,
                table_mib=size[0] * size[1] * 4 / 2**20,
            )


def plot(rows: Sequence[ExactTiming], path: Path) -> None:
    """Plots two bars for each row."""
    from benchmarks.charts import plot_pairs

    plot_pairs(rows, path, TITLE)


def step(
    method: str, num_classes: int, dim: int, batch: int, k: int
) -> Callable[[], Any]:
    """Returns a traced step.

    Args:
        method: "tfsampled", or "dense" for all logits at once.
        num_classes: Rows of the table.
        dim: Columns of the table.
        batch: Number of examples.
        k: Find the top k; 0 for the loss and all gradients.
    """
    rng = np.random.default_rng(num_classes)
    inputs = tf.constant(rng.standard_normal((batch, dim), np.float32))
    weights = tf.constant(rng.standard_normal((num_classes, dim), np.float32) / 8)
    biases = tf.constant(rng.standard_normal(num_classes, np.float32))
    labels = tf.constant(rng.integers(0, num_classes, (batch, 1)))

    def loss(inputs: tf.Tensor, weights: tf.Tensor, biases: tf.Tensor) -> tf.Tensor:
        if method == "tfsampled":
            return nn.softmax_loss(weights, biases, labels, inputs)
        logits = tf.matmul(inputs, weights, transpose_b=True) + biases
        return tf.nn.sparse_softmax_cross_entropy_with_logits(labels[:, 0], logits)

    @tf.function(autograph=False)
    def call(*operands: tf.Tensor) -> Any:
        inputs, weights, biases = operands
        if k and method == "tfsampled":
            return nn.softmax_top_k(weights, biases, inputs, k)
        if k:
            logits = tf.matmul(inputs, weights, transpose_b=True) + biases
            return tf.math.top_k(logits, k)
        with tf.GradientTape() as tape:
            tape.watch(operands)
            losses = loss(*operands)
        return losses, tape.gradient(losses, operands)

    traced = call.get_concrete_function(inputs, weights, biases)
    return lambda: traced(inputs, weights, biases)


def cold_step(
    method: str, num_classes: int, dim: int, batch: int, k: int
) -> Callable[[], Any]:
    """Returns a `step` that has not run; only a small one has.

    TensorFlow keeps the memory it frees, so that a second run would seem to need none.
    """
    step(method, min(num_classes, 1000), dim, batch, k)()
    return step(method, num_classes, dim, batch, k)
