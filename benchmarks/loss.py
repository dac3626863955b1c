"""The sampled losses and all their gradients, beside TensorFlow and the bare products.

The limit of a step is three products of matrices: `[B, D] x [D, S]` for the logits, and
two more for the gradients of the inputs and of the sampled rows. Everything else - the
draw, the lookup, the accidental hits, the softmax - comes on top.
"""

from __future__ import annotations

import dataclasses
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
    "TensorFlow": "{0.theirs_ms:.1f}",
    "ours": "{0.ours_ms:.1f}",
    "bfloat16": "{0.bfloat16_ms:.1f}",
    "jit": "{0.jit_ms:.1f}",
    "bare products": "{0.bare_ms:.1f}",
    "TensorFlow / ours": "{0.gain:.2f} ({0.gain_low:.2f} to {0.gain_high:.2f})",
    "TensorFlow / bfloat16": "{0.bfloat16_gain:.2f}",
    "jit / ours": "{0.jit_ratio:.2f}",
    "ours / bare": "{0.bare_ratio:.2f}",
}
OPTIONS = {
    "seconds": {"type": float, "metavar": "S", "help": "of each shape, default 5"},
    "shapes": {
        "nargs": "+",
        "metavar": "V,D,B,S",
        "type": lambda text: Shape(*map(int, text.split(","))),
        "help": "classes, dim, batch and sampled, of each shape",
    },
}
MIN_ROUNDS = 9
LOSSES = ("sampled_softmax_loss", "nce_loss")


class Shape(NamedTuple):
    """Sizes of one step."""

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


@dataclasses.dataclass(frozen=True)
class LossTiming:
    """Medians over rounds in which every way is taken once; milliseconds, ratios.

    `gain_low` and `gain_high` are the quartiles of TensorFlow's time over ours. The
    last row of each loss holds the geometric means of the ratios.
    """

    name: str
    theirs_ms: float
    ours_ms: float
    bfloat16_ms: float
    jit_ms: float
    bare_ms: float
    gain: float
    gain_low: float
    gain_high: float
    bfloat16_gain: float
    jit_ratio: float
    bare_ratio: float


def timings(
    shapes: Sequence[Shape] = SHAPES, seconds: float = 5.0
) -> Iterator[LossTiming]:
    for loss in LOSSES:
        rows = []
        for shape in shapes:
            rows.append(measured(loss, shape, seconds))
            yield rows[-1]
        yield _means(f"{loss}, geometric mean", rows)


def plot(rows: Sequence[LossTiming], path: Path) -> None:
    """Bars of each shape: TensorFlow, ours in three ways, and the limit."""
    from benchmarks.charts import figure_of

    ways = {
        "TensorFlow": ("theirs_ms", "0.7"),
        "ours": ("ours_ms", "tab:blue"),
        "ours, jit_compile=True": ("jit_ms", "tab:cyan"),
        "ours, bfloat16": ("bfloat16_ms", "tab:green"),
        "the three bare products": ("bare_ms", "0.3"),
    }
    rows = [row for row in rows if "mean" not in row.name]
    figure = figure_of(9, 1.2 + 0.75 * len(rows))
    axes = figure.add_subplot()
    height = 0.8 / len(ways)
    for index, (label, (field, color)) in enumerate(ways.items()):
        places = [row + (index - 2) * height for row in range(len(rows))]
        lengths = [getattr(row, field) / row.bare_ms for row in rows]
        axes.barh(places, lengths, height, label=label, color=color)
    axes.set_yticks(range(len(rows)), [row.name for row in rows])
    axes.invert_yaxis()
    axes.set_xlabel("time of loss and gradients, in times of the three bare products")
    axes.grid(axis="x", color="0.9")
    axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    figure.savefig(path)


def measured(loss: str, shape: Shape, seconds: float) -> LossTiming:
    ways = {
        "theirs": step(tf, loss, shape),
        "ours": step(tfsampled, loss, shape),
        "bfloat16": step(tfsampled, loss, shape, dtype="bfloat16"),
        "jit": step(tfsampled, loss, shape, jit_compile=True),
        "bare": products(shape),
    }
    for way in ways.values():  # traced and compiled, and warm
        timed(way)
        timed(way)
    taken: dict[str, list[float]] = {name: [] for name in ways}
    start = time.perf_counter()
    while len(taken["ours"]) < MIN_ROUNDS or time.perf_counter() - start < seconds:
        for name, way in ways.items():
            taken[name].append(timed(way))

    def ratios(one: str, other: str) -> list[float]:
        return [a / b for a, b in zip(taken[one], taken[other], strict=True)]

    low, gain, high = statistics.quantiles(ratios("theirs", "ours"), n=4)
    return LossTiming(
        name=f"{loss} {', '.join(f'{size:,}' for size in shape)}",
        **{f"{name}_ms": 1e3 * statistics.median(taken[name]) for name in ways},
        gain=gain,
        gain_low=low,
        gain_high=high,
        bfloat16_gain=statistics.median(ratios("theirs", "bfloat16")),
        jit_ratio=statistics.median(ratios("jit", "ours")),
        bare_ratio=statistics.median(ratios("ours", "bare")),
    )


def step(
    module: Any,
    loss: str,
    shape: Shape,
    dtype: str = "float32",
    jit_compile: bool | None = None,
    look: Callable[[Any], Any] | None = None,
) -> Callable[[], Any]:
    """Loss and gradients of `module.nn`: losses, gradient rows of tables, of inputs.

    What a call returns has been through `look`; by default it only waits for the
    results, as to copy them takes its own time.
    """
    look = look or _wait
    function = getattr(module.nn, loss)
    weights = tf.Variable(tf.zeros([shape.classes, shape.dim], dtype))
    biases = tf.Variable(tf.zeros([shape.classes], dtype))
    inputs = tf.cast(
        tf.random.stateless_normal([shape.batch, shape.dim], [1, 2]), dtype
    )
    # As the sampler expects them: class c about 1 / c times.
    uniform = tf.random.stateless_uniform([shape.batch, 1], [3, 4], dtype=tf.float64)
    classes = tf.cast(shape.classes, tf.float64)
    labels = tf.cast(tf.exp(uniform * tf.math.log(classes)), tf.int64) - 1

    @tf.function(jit_compile=jit_compile, autograph=False)
    def whole() -> Any:
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            value = function(
                weights, biases, labels, inputs, shape.sampled, shape.classes
            )
        by = tape.gradient(
            value, [weights, biases, inputs], tf.ones_like(value) / shape.batch
        )
        return value, by[0].values, by[1].values, by[2]

    return lambda: look(whole())


def products(shape: Shape) -> Callable[[], Any]:
    """The three products that no implementation can do without."""
    inputs = tf.random.stateless_normal([shape.batch, shape.dim], [1, 2])
    rows = tf.random.stateless_normal([shape.sampled, shape.dim], [3, 4])

    @tf.function(autograph=False)
    def three() -> Any:
        logits = tf.matmul(inputs, rows, transpose_b=True)
        return tf.matmul(logits, inputs, transpose_a=True), tf.matmul(logits, rows)

    return lambda: _wait(three())


def _wait(_: Any) -> list[tf.Tensor]:
    tf.test.experimental.sync_devices()
    return []


def _means(name: str, rows: Sequence[LossTiming]) -> LossTiming:
    def mean(field: str) -> float:
        return statistics.geometric_mean(getattr(row, field) for row in rows)

    fields = [field.name for field in dataclasses.fields(LossTiming)][1:]
    return LossTiming(name, **{field: mean(field) for field in fields})
