"""Two ways to do one thing, timed in turn so that a busy machine slows both."""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable
from typing import Any

import tensorflow as tf

# A pair of calls is repeated until both limits are passed.
MIN_PAIRS = 50
MIN_SECONDS = 1.0
# The columns of a table of `Timing`.
COLUMNS = {
    "case": "{0.name}",
    "ours, ms": "{0.ours_ms:.3f}",
    "TensorFlow, ms": "{0.theirs_ms:.3f}",
    "ratio": "{0.ratio:.2f}",
    "first call, s": "{0.compile_s:.1f}",
    "pairs": "{0.pairs}",
}


@dataclasses.dataclass(frozen=True)
class Timing:
    """One row of a table; times in milliseconds, medians over the pairs."""

    name: str
    ours_ms: float
    theirs_ms: float
    ratio: float
    compile_s: float
    pairs: int


def timed(function: Callable[[], Any]) -> float:
    """Seconds until the result of a call is there."""
    start = time.perf_counter()
    for tensor in tf.nest.flatten(function()):
        tensor.numpy()
    return time.perf_counter() - start


def compare(
    name: str,
    ours: Callable[[], Any],
    theirs: Callable[[], Any],
    min_pairs: int | None = None,
) -> Timing:
    """Times both in turn, `MIN_PAIRS` times at least unless `min_pairs` is given.

    `compile_s` is our first call, tracing and compiling included; `ratio` the median
    over the pairs of ours / theirs.
    """
    compile_s = timed(ours)
    timed(theirs)
    pairs: list[tuple[float, float]] = []
    start = time.perf_counter()
    least = MIN_PAIRS if min_pairs is None else min_pairs
    while len(pairs) < least or time.perf_counter() - start < MIN_SECONDS:
        pairs.append((timed(ours), timed(theirs)))
    return Timing(
        name=name,
        ours_ms=1e3 * statistics.median(a for a, _ in pairs),
        theirs_ms=1e3 * statistics.median(b for _, b in pairs),
        ratio=statistics.median(a / b for a, b in pairs),
        compile_s=compile_s,
        pairs=len(pairs),
    )
