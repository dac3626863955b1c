"""Keras `fit` with tfsampled's optimizers and Keras's: time of a step, and memory."""

from __future__ import annotations

import dataclasses
import math
import statistics
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from benchmarks import fresh
from benchmarks.options import integer, integers

TITLE = (
    "fit, 64 dimensions, batches of 256, 1,024 sampled classes: tfsampled's "
    "optimizers beside Keras's"
)
COLUMNS = {
    "optimizer": "{0.optimizer}",
    "classes": "{0.num_classes:,}",
    "jit": "{0.jit}",
    "ms a step": "{0.ms:,.2f}",
    "Keras / optimizer": "{0.times_faster:,.2f}",
    "first step, s": "{0.first_s:.1f}",
    "peak memory, MiB": "{0.peak_mib:,.0f}",
    "runs": "{0.runs}",
}
CLASSES = (10_000, 100_000, 1_000_000, 4_000_000, 10_000_000)
ROUNDS = 3
JITS = {"both": (False, True), "off": (False,), "on": (True,)}
OPTIONS = {
    "classes": integers("numbers of classes", CLASSES),
    "rounds": integer("processes per optimizer", ROUNDS),
    "jit": {
        "choices": sorted(JITS),
        "help": "whether XLA compiles the steps (default: both)",
    },
}
# Which optimizer of Keras each optimizer is compared with.
BASELINES = {
    "keras SGD": "keras SGD",
    "keras Adagrad": "keras Adagrad",
    "tfsampled Adagrad": "keras Adagrad",
    "tfsampled RowWiseAdagrad": "keras Adagrad",
    "keras Adam": "keras Adam",
    "tfsampled LazyAdam": "keras Adam",
    "tfsampled LazyAdam, corrected": "keras Adam",
}
MEASUREMENTS = ("ms", "first_s", "peak_mib")  # of each process
SECONDS = 3.0  # of steps in each process


@dataclasses.dataclass(frozen=True)
class FitTiming:
    """Medians over `runs` processes; NaN if a process died, as for lack of memory."""

    optimizer: str
    num_classes: int
    jit: bool
    ms: float
    times_faster: float  # than its baseline
    first_s: float
    peak_mib: float  # the largest, of the whole process
    runs: int


def timings(
    classes: Sequence[int] = CLASSES,
    rounds: int = ROUNDS,
    jit: str = "both",
    optimizers: Sequence[str] = tuple(BASELINES),
) -> Iterator[FitTiming]:
    """Yields a row for each optimizer, number of classes and `jit_compile`."""
    for compiled in JITS[jit]:
        for num_classes in classes:
            yield from compare(optimizers, num_classes, compiled, rounds)


def compare(
    optimizers: Sequence[str], num_classes: int, jit: bool, rounds: int
) -> Iterator[FitTiming]:
    """Yields a row for each optimizer; their baselines must be among them."""
    runs: list[dict[str, dict[str, float]]] = []
    failed: dict[str, dict[str, float]] = {}
    for _ in range(rounds):
        run = dict(failed)
        for name in optimizers:
            if name not in failed:
                try:
                    run[name] = measure(name, num_classes, jit)
                except RuntimeError as error:
                    print(error, file=sys.stderr)
                    run[name] = failed[name] = dict.fromkeys(MEASUREMENTS, math.nan)
        runs.append(run)
    for name in optimizers:
        yield FitTiming(
            optimizer=name,
            num_classes=num_classes,
            jit=jit,
            ms=_or_nan(statistics.median, (run[name]["ms"] for run in runs)),
            times_faster=_or_nan(
                statistics.median,
                (run[BASELINES[name]]["ms"] / run[name]["ms"] for run in runs),
            ),
            first_s=_or_nan(statistics.median, (run[name]["first_s"] for run in runs)),
            peak_mib=_or_nan(max, (run[name]["peak_mib"] for run in runs)),
            runs=rounds,
        )


def _or_nan(reduce: Callable[[list[float]], float], values: Iterable[float]) -> float:
    """Reduces values; NaN if a run has died."""
    values = list(values)
    return math.nan if any(map(math.isnan, values)) else reduce(values)


def measure(
    optimizer: str, num_classes: int, jit: bool, seconds: float = SECONDS
) -> dict[str, float]:
    """Measures `fit` with an optimizer in a fresh process."""
    return fresh.call(
        "benchmarks.fit_worker:measure", optimizer, num_classes, seconds, jit
    )


def plot(rows: Iterable[FitTiming], path: Path) -> None:
    """Plots milliseconds over the number of classes; a panel for each `jit_compile`."""
    from benchmarks.charts import make_figure, set_log_scale

    rows = list(rows)
    jits = sorted({row.jit for row in rows})
    figure = make_figure(5.5 * len(jits), 4.6)
    panels = figure.subplots(1, len(jits), sharey=True, squeeze=False)[0]
    for axes, jit in zip(panels, jits, strict=True):
        for name, (classes, ms) in group_lines(
            [r for r in rows if r.jit == jit]
        ).items():
            is_tfsampled = name.startswith("tfsampled")
            axes.plot(
                classes,
                ms,
                marker="o",
                markersize=4,
                linewidth=2 if is_tfsampled else 1.4,
                linestyle="-" if is_tfsampled else "--",
                label=name,
            )
        set_log_scale(axes, "x")
        set_log_scale(axes, "y")
        axes.set_xlabel("classes")
        axes.set_title("jit_compile=True" if jit else "jit_compile=False", loc="left")
        axes.grid(which="major", color="0.9")
    panels[0].set_ylabel("milliseconds a step of fit")
    panels[0].legend(frameon=False, fontsize="small")
    figure.savefig(path)


def group_lines(rows: Iterable[FitTiming]) -> dict[str, tuple[list[int], list[float]]]:
    """Returns classes and milliseconds of each optimizer, in ascending order."""
    lines: dict[str, tuple[list[int], list[float]]] = {}
    for row in sorted(rows, key=lambda row: row.num_classes):
        classes, ms = lines.setdefault(row.optimizer, ([], []))
        classes.append(row.num_classes)
        ms.append(row.ms)
    return lines
