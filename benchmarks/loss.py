"""The sampled losses and all gradients, beside TensorFlow and the matrix products.

Every implementation needs three matrix products: `[B, D] x [D, S]` for the logits, and
two for the gradients of the inputs and of the sampled rows. The draw, the lookup, the
accidental hits and the softmax come on top.
"""

from __future__ import annotations

import dataclasses
import functools
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import tensorflow as tf

import tfsampled
from benchmarks.paired import timed

TITLE = (
    "loss and all gradients, default sampler, tf.function, ms: classes, dim, batch, "
    "sampled"
)
COLUMNS = {
    "loss": "{0.name}",
    "TensorFlow": "{0.tensorflow_ms:.1f}",
    "tfsampled": "{0.tfsampled_ms:.1f}",
    "bfloat16": "{0.bfloat16_ms:.1f}",
    "jit": "{0.jit_ms:.1f}",
    "matmul": "{0.matmul_ms:.1f}",
    "TensorFlow / tfsampled": "{0.gain:.2f} ({0.gain_low:.2f} to {0.gain_high:.2f})",
    "TensorFlow / bfloat16": "{0.bfloat16_gain:.2f}",
    "jit / tfsampled": "{0.jit_ratio:.2f}",
    "tfsampled / matmul": "{0.matmul_ratio:.2f}",
}
OPTIONS = {
    "seconds": {
        "type": float,
        "metavar": "S",
        "help": "seconds for each shape (default: 5)",
    },
    "shapes": {
        "nargs": "+",
        "metavar": "V,D,B,S",
        "type": lambda text: Shape(*map(int, text.split(","))),
        "help": "classes, dim, batch and sampled of each shape (default: the five of "
        "the docs)",
    },
    "grid": {
        "action": "store_true",
        "help": "twelve shapes, from 1000,8,8,16 up",
    },
    "unknown": {
        "action": "store_true",
        "help": "trace with an unknown batch size, as the last batch of an epoch makes "
        "Keras do",
    },
}
MIN_ROUNDS = 9
LOSSES = ("sampled_softmax_loss", "nce_loss")


class Shape(NamedTuple):
    """The sizes of a step."""

    classes: int
    dim: int
    batch: int
    sampled: int


SHAPES = (
    Shape(100_000, 128, 1024, 8192),
    Shape(100_000, 64, 256, 1024),
    Shape(1_000_000, 128, 1024, 4096),
    Shape(100_000, 512, 512, 4096),
    Shape(1_000_000, 64, 4096, 1024),
)
SMALL_SHAPES = (
    Shape(1_000, 8, 8, 16),
    Shape(1_000, 16, 32, 16),
    Shape(10_000, 32, 8, 64),
    Shape(10_000, 32, 32, 64),
    Shape(10_000, 64, 32, 256),
    Shape(10_000, 64, 128, 256),
    Shape(100_000, 64, 128, 1024),
)


@dataclasses.dataclass(frozen=True)
class LossTiming:
    """Medians over rounds that run each step once; milliseconds and ratios.

    `gain`, `gain_low` and `gain_high` are the median and the quartiles of TensorFlow's
    time over tfsampled's. The last row of each loss holds geometric means.
    """

    name: str
    tensorflow_ms: float
    tfsampled_ms: float
    bfloat16_ms: float
    jit_ms: float
    matmul_ms: float
    gain: float
    gain_low: float
    gain_high: float
    bfloat16_gain: float
    jit_ratio: float
    matmul_ratio: float


def timings(
    shapes: Sequence[Shape] = SHAPES,
    seconds: float = 5.0,
    grid: bool = False,
    unknown: bool = False,
) -> Iterator[LossTiming]:
    """Yields a row for each loss and shape, then the means of each loss."""
    if grid:
        shapes = SMALL_SHAPES + SHAPES
    for loss in LOSSES:
        rows = []
        for shape in shapes:
            rows.append(measure(loss, shape, seconds, unknown))
            yield rows[-1]
        yield _means(f"{loss}, geometric mean", rows)


def plot(rows: Sequence[LossTiming], path: Path) -> None:
    """Plots the time of each step over that of the matrix products."""
    from benchmarks.charts import make_figure

    series = {
        "TensorFlow": ("tensorflow_ms", "0.7"),
        "tfsampled": ("tfsampled_ms", "tab:blue"),
        "tfsampled, jit_compile=True": ("jit_ms", "tab:cyan"),
        "tfsampled, bfloat16": ("bfloat16_ms", "tab:green"),
        "the three matrix products alone": ("matmul_ms", "0.3"),
    }
    rows = [row for row in rows if "mean" not in row.name]
    figure = make_figure(9, 1.2 + 0.75 * len(rows))
    axes = figure.add_subplot()
    height = 0.8 / len(series)
    for index, (label, (field, color)) in enumerate(series.items()):
        positions = [row + (index - 2) * height for row in range(len(rows))]
        lengths = [getattr(row, field) / row.matmul_ms for row in rows]
        axes.barh(positions, lengths, height, label=label, color=color)
    axes.set_yticks(range(len(rows)), [row.name for row in rows])
    axes.invert_yaxis()
    axes.set_xlabel("time of loss and gradients / time of the three matrix products")
    axes.grid(axis="x", color="0.9")
    axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    figure.savefig(path)


def measure(
    loss: str, shape: Shape, seconds: float, unknown: bool = False
) -> LossTiming:
    """Times all steps in turn, `MIN_ROUNDS` rounds at least."""
    make_step = functools.partial(step, loss=loss, shape=shape, unknown=unknown)
    steps = {
        "tensorflow": make_step(tf),
        "tfsampled": make_step(tfsampled),
        "bfloat16": make_step(tfsampled, dtype="bfloat16"),
        "jit": make_step(tfsampled, jit_compile=True),
        "matmul": matmul_step(shape),
    }
    for call in steps.values():  # trace, compile, warm up
        timed(call)
        timed(call)
    times: dict[str, list[float]] = {name: [] for name in steps}
    start = time.perf_counter()
    while len(times["tfsampled"]) < MIN_ROUNDS or time.perf_counter() - start < seconds:
        for name, call in steps.items():
            times[name].append(timed(call))

    def ratios(name: str, other: str) -> list[float]:
        return [a / b for a, b in zip(times[name], times[other], strict=True)]

    low, gain, high = statistics.quantiles(ratios("tensorflow", "tfsampled"), n=4)
    return LossTiming(
        name=f"{loss} {', '.join(f'{size:,}' for size in shape)}",
        **{f"{name}_ms": 1e3 * statistics.median(times[name]) for name in steps},
        gain=gain,
        gain_low=low,
        gain_high=high,
        bfloat16_gain=statistics.median(ratios("tensorflow", "bfloat16")),
        jit_ratio=statistics.median(ratios("jit", "tfsampled")),
        matmul_ratio=statistics.median(ratios("tfsampled", "matmul")),
    )


def step(
    module: Any,
    loss: str,
    shape: Shape,
    dtype: str = "float32",
    jit_compile: bool | None = None,
    unknown: bool = False,
    read: Callable[[Any], Any] | None = None,
) -> Callable[[], Any]:
    """Returns a step that computes losses and all gradients.

    Args:
        module: `tfsampled` or `tf`.
        loss: The name of a function in `module.nn`.
        shape: The sizes.
        dtype: Of inputs and tables.
        jit_compile: Whether XLA compiles the step.
        unknown: Whether the batch size is unknown while the step is traced.
        read: Called with losses and gradients; its result is the step's. By default it
            waits for them and copies nothing.
    """
    read = read or _wait
    function = getattr(module.nn, loss)
    weights = tf.Variable(tf.zeros([shape.classes, shape.dim], dtype))
    biases = tf.Variable(tf.zeros([shape.classes], dtype))
    inputs = tf.cast(
        tf.random.stateless_normal([shape.batch, shape.dim], [1, 2]), dtype
    )
    # Frequencies as the sampler expects them: class c about 1 / c times.
    uniform = tf.random.stateless_uniform([shape.batch, 1], [3, 4], dtype=tf.float64)
    classes = tf.cast(shape.classes, tf.float64)
    labels = tf.cast(tf.exp(uniform * tf.math.log(classes)), tf.int64) - 1

    batch = None if unknown else shape.batch
    specs = [
        tf.TensorSpec([batch, 1], labels.dtype),
        tf.TensorSpec([batch, shape.dim], dtype),
    ]

    @tf.function(jit_compile=jit_compile, autograph=False, input_signature=specs)
    def call(labels: tf.Tensor, inputs: tf.Tensor) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            losses = function(
                weights, biases, labels, inputs, shape.sampled, shape.classes
            )
        d_weights, d_biases, d_inputs = tape.gradient(
            losses, [weights, biases, inputs], tf.ones_like(losses) / shape.batch
        )
        return losses, d_weights.values, d_biases.values, d_inputs

    return lambda: read(call(labels, inputs))


def matmul_step(shape: Shape) -> Callable[[], Any]:
    """Returns a step of the three matrix products that every implementation needs."""
    inputs = tf.random.stateless_normal([shape.batch, shape.dim], [1, 2])
    rows = tf.random.stateless_normal([shape.sampled, shape.dim], [3, 4])

    @tf.function(autograph=False)
    def call() -> Any:
        logits = tf.matmul(inputs, rows, transpose_b=True)
        return tf.matmul(logits, inputs, transpose_a=True), tf.matmul(logits, rows)

    return lambda: _wait(call())


def _wait(_: Any) -> list[tf.Tensor]:
    tf.test.experimental.sync_devices()
    return []


def _means(name: str, rows: Sequence[LossTiming]) -> LossTiming:
    def mean(field: str) -> float:
        return statistics.geometric_mean(getattr(row, field) for row in rows)

    fields = [field.name for field in dataclasses.fields(LossTiming)][1:]
    return LossTiming(name, **{field: mean(field) for field in fields})
