"""Times two functions in turn, so that a busy machine slows both."""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf

# Pairs of calls are repeated until both limits are passed.
MIN_PAIRS = 50
MIN_SECONDS = 1.0
# Columns of a table of `Timing`.
COLUMNS = {
    "case": "{0.name}",
    "tfsampled, ms": "{0.tfsampled_ms:.3f}",
    "TensorFlow, ms": "{0.tensorflow_ms:.3f}",
    "ratio": "{0.ratio:.2f}",
    "first call, s": "{0.compile_s:.1f}",
    "pairs": "{0.pairs}",
}


@dataclasses.dataclass(frozen=True)
class Timing:
    """A row of a table; medians over the pairs.

    Attributes:
        name: The case.
        tfsampled_ms: Milliseconds of tfsampled.
        tensorflow_ms: Milliseconds of TensorFlow.
        ratio: tfsampled's time over TensorFlow's.
        compile_s: Seconds of tfsampled's first call, which traces and compiles.
        pairs: Number of pairs.
    """

    name: str
    tfsampled_ms: float
    tensorflow_ms: float
    ratio: float
    compile_s: float
    pairs: int


def plotter(title: str) -> Callable[[Sequence[Timing], Path], None]:
    """Returns a function that plots two bars for each row."""

    def plot(rows: Sequence[Timing], path: Path) -> None:
        from benchmarks.charts import plot_pairs

        plot_pairs(rows, path, title)

    return plot


def timed(function: Callable[[], Any]) -> float:
    """Returns the seconds until the result of a call is on the host."""
    start = time.perf_counter()
    for tensor in tf.nest.flatten(function()):
        tensor.numpy()
    return time.perf_counter() - start


def compare(
    name: str,
    tfsampled: Callable[[], Any],
    tensorflow: Callable[[], Any],
    min_pairs: int | None = None,
) -> Timing:
    """Times two functions in turn.

    Args:
        name: The case.
        tfsampled: Calls tfsampled.
        tensorflow: Does the same with TensorFlow.
        min_pairs: The least number of pairs; `MIN_PAIRS` by default.
    """
    compile_s = timed(tfsampled)
    timed(tensorflow)
    pairs: list[tuple[float, float]] = []
    start = time.perf_counter()
    min_pairs = MIN_PAIRS if min_pairs is None else min_pairs
    while len(pairs) < min_pairs or time.perf_counter() - start < MIN_SECONDS:
        pairs.append((timed(tfsampled), timed(tensorflow)))
    return Timing(
        name=name,
        tfsampled_ms=1e3 * statistics.median(a for a, _ in pairs),
        tensorflow_ms=1e3 * statistics.median(b for _, b in pairs),
        ratio=statistics.median(a / b for a, b in pairs),
        compile_s=compile_s,
        pairs=len(pairs),
    )
