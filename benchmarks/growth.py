"""A step of `fit` at many classes beside one at few, in turn in one process.

In `fit` of one process each, runs of the same thing differ by more than this does.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

from benchmarks import fresh

FEW, MANY = 10_000, 4_000_000
TITLE = "a step at many classes beside one at few (goal: a ratio of at most 1.25)"
COLUMNS = {
    "what": "{0.name}",
    "jit": "{0.jit}",
    "few": "{0.few:,}",
    "many": "{0.many:,}",
    "few, ms": "{0.few_ms:.2f}",
    "many, ms": "{0.many_ms:.2f}",
    "ratio": "{0.ratio:.2f}",
}
OPTIMIZERS = (
    "keras SGD",
    "tfsampled Adagrad",
    "tfsampled RowWiseAdagrad",
    "tfsampled LazyAdam",
    "tfsampled LazyAdam, corrected",
)
SECONDS = 8.0
OPTIONS = {
    "few": {"type": int, "metavar": "N", "help": f"classes (default: {FEW})"},
    "many": {"type": int, "metavar": "N", "help": f"classes (default: {MANY})"},
    "seconds": {
        "type": float,
        "metavar": "X",
        "help": f"of steps, for each row of the table (default: {SECONDS:g})",
    },
}


@dataclasses.dataclass(frozen=True)
class Growth:
    """Median milliseconds with few classes and with many, and the ratio of the two."""

    name: str
    jit: bool
    few: int
    many: int
    few_ms: float
    many_ms: float
    ratio: float


def timings(
    optimizers: Sequence[str] = OPTIMIZERS,
    few: int = FEW,
    many: int = MANY,
    seconds: float = SECONDS,
) -> Iterator[Growth]:
    for name in (*optimizers, "rows"):
        for jit in (False,) if name == "rows" else (False, True):
            low, high = fresh.call(
                "benchmarks.growth_worker:measure", name, few, many, jit, seconds
            )
            label = "256-byte rows read and written" if name == "rows" else name
            yield Growth(label, jit, few, many, low, high, high / low)
