"""The full softmax in chunks, beside the one that holds all logits: time and memory."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from benchmarks import fresh
from benchmarks.paired import Timing, compare, plotter
from tfsampled import nn
from tfsampled._core.embedding.sharded_table import Table
from tfsampled._core.full_softmax.ranks import full_softmax_ranks

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
# Of each task: classes, dimensions, batch. An evaluation is the loss and the ranks of
# the labels, where of each example some classes do not count.
TASKS = {
    "loss and gradients": (100_000, 128, 1024),
    "top 10": (100_000, 128, 1024),
    "top 100": (100_000, 128, 1024),
    "evaluation": (1_000_000, 64, 256),
}
EXCLUDED = 50
METHODS = ("tfsampled", "dense")
PAIRS = 15  # each takes half a second or more


@dataclasses.dataclass(frozen=True)
class ExactTiming(Timing):
    """A timing, and the peak memory of one step above its inputs, in MiB."""

    tfsampled_mib: float
    tensorflow_mib: float
    table_mib: float  # the size of the weights, and of their gradient


def timings() -> Iterator[ExactTiming]:
    """Yields a row for each task."""
    for task, size in TASKS.items():
        name = "{} of {:,} x {}, batch {:,}".format(task, *size)
        tfsampled, dense = (step(method, task, *size) for method in METHODS)
        timing = compare(name, tfsampled, dense, PAIRS)
        tfsampled_mib, tensorflow_mib = (
            fresh.step_peak_mib("benchmarks.exact:cold_step", method, task, *size)
            for method in METHODS
        )
        yield ExactTiming(
            **dataclasses.asdict(timing),
            tfsampled_mib=tfsampled_mib,
            tensorflow_mib=tensorflow_mib,
            table_mib=size[0] * size[1] * 4 / 2**20,
        )


plot = plotter(TITLE)


def step(
    method: str, task: str, num_classes: int, dim: int, batch: int
) -> Callable[[], Any]:
    """Returns a traced step.

    Args:
        method: "tfsampled", or "dense" for all logits at once.
        task: One of `TASKS`, or another "top k".
        num_classes: Rows of the table.
        dim: Columns of the table.
        batch: Number of examples.
    """
    rng = np.random.default_rng(num_classes)
    inputs = tf.constant(rng.standard_normal((batch, dim), np.float32))
    weights = tf.constant(rng.standard_normal((num_classes, dim), np.float32) / 8)
    biases = tf.constant(rng.standard_normal(num_classes, np.float32))
    labels = tf.constant(rng.integers(0, num_classes, (batch, 1)))
    exclude = tf.constant(rng.integers(0, num_classes, (batch, EXCLUDED)))
    softmax: Any = (_Chunked if method == "tfsampled" else _Dense)(labels, exclude)

    @tf.function(autograph=False)
    def call(*operands: tf.Tensor) -> Any:
        if task == "evaluation":
            return softmax.loss(*operands), softmax.ranks(*operands)
        if task.startswith("top"):
            return softmax.top_k(*operands, int(task.split()[1]))
        with tf.GradientTape() as tape:
            tape.watch(operands)
            losses = softmax.loss(*operands)
        return losses, tape.gradient(losses, operands)

    traced = call.get_concrete_function(inputs, weights, biases)
    return lambda: traced(inputs, weights, biases)


@dataclasses.dataclass
class _Chunked:
    """The functions of tfsampled."""

    labels: tf.Tensor
    exclude: tf.Tensor

    def loss(self, x: tf.Tensor, weights: tf.Tensor, biases: tf.Tensor) -> tf.Tensor:
        return nn.softmax_loss(weights, biases, self.labels, x)

    def top_k(self, x: tf.Tensor, weights: tf.Tensor, biases: tf.Tensor, k: int) -> Any:
        return nn.softmax_top_k(weights, biases, x, k)

    def ranks(self, x: tf.Tensor, weights: tf.Tensor, biases: tf.Tensor) -> tf.Tensor:
        tables = Table((weights,), "div"), Table((biases,), "div")
        return full_softmax_ranks(x, *tables, self.labels, self.exclude)


@dataclasses.dataclass
class _Dense:
    """The same with all logits at once."""

    labels: tf.Tensor
    exclude: tf.Tensor

    def loss(self, *operands: tf.Tensor) -> tf.Tensor:
        labels, logits = self.labels[:, 0], self._logits(*operands)
        return tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)

    def top_k(self, *operands: Any) -> Any:
        return tf.math.top_k(self._logits(*operands[:-1]), operands[-1])

    def ranks(self, *operands: tf.Tensor) -> tf.Tensor:
        logits = self._logits(*operands)
        label_logits = tf.gather(logits, self.labels, batch_dims=1)
        examples = tf.range(len(self.exclude), dtype=self.exclude.dtype)
        examples = tf.broadcast_to(examples[:, tf.newaxis], self.exclude.shape)
        logits = tf.tensor_scatter_nd_update(
            logits,
            tf.stack([examples, self.exclude], axis=-1),
            tf.fill(self.exclude.shape, logits.dtype.min),
        )
        above = tf.cast(logits > label_logits, tf.int32)
        return tf.reduce_sum(above, axis=1, keepdims=True)

    def _logits(self, x: tf.Tensor, weights: tf.Tensor, biases: tf.Tensor) -> tf.Tensor:
        return tf.matmul(x, weights, transpose_b=True) + biases


def cold_step(
    method: str, task: str, num_classes: int, dim: int, batch: int
) -> Callable[[], Any]:
    """Returns a `step` that has not run; only a small one has.

    TensorFlow keeps the memory it frees, so that a second run would seem to need none.
    """
    step(method, task, min(num_classes, 1000), dim, batch)()
    return step(method, task, num_classes, dim, batch)
