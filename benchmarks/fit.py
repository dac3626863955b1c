"""Keras `fit` with our optimizers and Keras's: milliseconds a step, and memory."""

from __future__ import annotations

import dataclasses
import math
import statistics
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from benchmarks import fresh

TITLE = (
    "fit, 64 dimensions, batches of 256, 1,024 sampled classes: our optimizers "
    "beside Keras's"
)
COLUMNS = {
    "optimizer": "{0.optimizer}",
    "classes": "{0.num_classes:,}",
    "jit": "{0.jit}",
    "ms a step": "{0.ms:,.2f}",
    "Keras's / ours": "{0.times_faster:,.2f}",
    "first step, s": "{0.first_s:.1f}",
    "peak memory, MiB": "{0.peak_mib:,.0f}",
    "runs": "{0.runs}",
}
CLASSES = (10_000, 100_000, 1_000_000, 4_000_000, 10_000_000)
ROUNDS = 3
JITS = {"both": (False, True), "off": (False,), "on": (True,)}
OPTIONS = {
    "classes": {
        "type": int,
        "nargs": "+",
        "metavar": "N",
        "help": f"numbers of classes (default: {' '.join(map(str, CLASSES))})",
    },
    "rounds": {
        "type": int,
        "metavar": "N",
        "help": f"how often each is run, in turn (default: {ROUNDS})",
    },
    "jit": {
        "choices": sorted(JITS),
        "help": "steps compiled by XLA, or not (default: both)",
    },
}
# Each of ours follows the one of Keras's that it is measured against.
COUNTERPARTS = {
    "keras SGD": "keras SGD",
    "keras Adagrad": "keras Adagrad",
    "tfsampled Adagrad": "keras Adagrad",
    "tfsampled RowWiseAdagrad": "keras Adagrad",
    "keras Adam": "keras Adam",
    "tfsampled LazyAdam": "keras Adam",
    "tfsampled LazyAdam, corrected": "keras Adam",
}
FIGURES = ("ms", "first_s", "peak_mib")  # of each process
SECONDS = 3.0  # of steps in each run, after which no other step begins


@dataclasses.dataclass(frozen=True)
class FitTiming:
    """Medians over `runs` processes, each in turn with those of other optimizers.

    NaN where a process died, of too little memory.
    """

    optimizer: str
    num_classes: int
    jit: bool
    ms: float
    times_faster: float  # than its counterpart
    first_s: float
    peak_mib: float  # of the whole process; the largest
    runs: int


def timings(
    classes: Sequence[int] = CLASSES,
    rounds: int = ROUNDS,
    jit: str = "both",
    optimizers: Sequence[str] = tuple(COUNTERPARTS),
) -> Iterator[FitTiming]:
    for compiled in JITS[jit]:
        for num_classes in classes:
            yield from compare(optimizers, num_classes, compiled, rounds)


def compare(
    optimizers: Sequence[str], num_classes: int, jit: bool, rounds: int
) -> Iterator[FitTiming]:
    """A row for each optimizer; the counterparts must be among them."""
    runs: list[dict[str, dict[str, float]]] = []
    died: dict[str, dict[str, float]] = {}
    for _ in range(rounds):
        run = dict(died)
        for name in optimizers:
            if name not in died:
                try:
                    run[name] = measured(name, num_classes, jit)
                except RuntimeError as error:
                    print(error, file=sys.stderr)
                    run[name] = died[name] = dict.fromkeys(FIGURES, math.nan)
        runs.append(run)
    for name in optimizers:
        yield FitTiming(
            optimizer=name,
            num_classes=num_classes,
            jit=jit,
            ms=statistics.median(run[name]["ms"] for run in runs),
            times_faster=statistics.median(
                run[COUNTERPARTS[name]]["ms"] / run[name]["ms"] for run in runs
            ),
            first_s=statistics.median(run[name]["first_s"] for run in runs),
            peak_mib=max(run[name]["peak_mib"] for run in runs),
            runs=rounds,
        )


def measured(
    optimizer: str, num_classes: int, jit: bool, seconds: float = SECONDS
) -> dict[str, float]:
    """What a fresh process says of `fit` with this optimizer."""
    return fresh.call(
        "benchmarks.fit_worker:measure", optimizer, num_classes, seconds, jit
    )


def plot(rows: Iterable[FitTiming], path: Path) -> None:
    """Milliseconds a step over the number of classes; a panel with jit, one without."""
    from benchmarks.charts import figure_of, logarithmic

    rows = list(rows)
    jits = sorted({row.jit for row in rows})
    figure = figure_of(5.5 * len(jits), 4.6)
    panels = figure.subplots(1, len(jits), sharey=True, squeeze=False)[0]
    for axes, jit in zip(panels, jits, strict=True):
        for name, (classes, ms) in lines([r for r in rows if r.jit == jit]).items():
            ours = name.startswith("tfsampled")
            axes.plot(
                classes,
                ms,
                marker="o",
                markersize=4,
                linewidth=2 if ours else 1.4,
                linestyle="-" if ours else "--",
                label=name,
            )
        logarithmic(axes, "x")
        logarithmic(axes, "y")
        axes.set_xlabel("classes")
        axes.set_title("jit_compile=True" if jit else "jit_compile=False", loc="left")
        axes.grid(which="major", color="0.9")
    panels[0].set_ylabel("milliseconds a step of fit")
    panels[0].legend(frameon=False, fontsize="small")
    figure.savefig(path)


def lines(rows: Iterable[FitTiming]) -> dict[str, tuple[list[int], list[float]]]:
    """Classes and milliseconds of each optimizer, by rising numbers of classes."""
    made: dict[str, tuple[list[int], list[float]]] = {}
    for row in sorted(rows, key=lambda row: row.num_classes):
        classes, ms = made.setdefault(row.optimizer, ([], []))
        classes.append(row.num_classes)
        ms.append(row.ms)
    return made
