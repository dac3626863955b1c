"""Steps of `fit` with many classes and with few, in turn in one process.

Two processes that run the same differ by more than what is measured here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

from benchmarks import fresh
from benchmarks.options import integer

FEW, MANY = 10_000, 4_000_000
TITLE = "a step with many classes beside one with few (goal: a ratio of at most 1.25)"
COLUMNS = {
    "step": "{0.name}",
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
    "few": integer("classes", FEW),
    "many": integer("classes", MANY),
    "seconds": {
        "type": float,
        "metavar": "X",
        "help": f"seconds of steps for each row (default: {SECONDS:g})",
    },
}


@dataclasses.dataclass(frozen=True)
class Growth:
    """Median milliseconds with few classes and with many, and their ratio."""

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
    """Yields a row for each optimizer, also with two replicas, and for rows alone."""
    own = [name for name in optimizers if name.startswith("tfsampled")]
    steps = [(name, jit, 1) for name in optimizers for jit in (False, True)]
    steps += [(name, False, 2) for name in own] + [("rows", False, 1)]
    for name, jit, replicas in steps:
        low, high = fresh.call(
            "benchmarks.growth_worker:measure", name, few, many, jit, seconds, replicas
        )
        label = "256-byte rows read and written" if name == "rows" else name
        label += ", 2 replicas" if replicas == 2 else ""
        yield Growth(label, jit, few, many, low, high, high / low)
