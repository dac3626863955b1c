"""Keras `fit` with our optimizers and Keras's: milliseconds a step, and memory.

python -m benchmarks.optimizers --sizes 10000 1000000 --plot fit.png
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from benchmarks.paired import Timing

TITLE = "fit, D=64, 256 examples, 1024 sampled: our optimizers beside Keras's"
SIZES = (10_000, 100_000, 1_000_000, 4_000_000, 10_000_000)
PAIRS = (
    ("tfsampled LazyAdam", "keras Adam"),
    ("tfsampled LazyAdam, corrected", "keras Adam"),
    ("tfsampled Adagrad", "keras Adagrad"),
    ("tfsampled RowWiseAdagrad", "keras SGD"),
)
STEPS = {"tfsampled": 100, "keras": 15}  # Keras's may take seconds each
ROUNDS = 3


@dataclasses.dataclass(frozen=True)
class FitTiming(Timing):
    """Medians over `pairs` processes of each, run in turn; most memory of a process."""

    num_classes: int
    jit: bool
    ours: str
    theirs: str
    ours_peak_mb: float
    theirs_peak_mb: float


def timings(
    sizes: Sequence[int] = SIZES,
    rounds: int = ROUNDS,
    jits: Sequence[bool] = (False, True),
) -> Iterator[FitTiming]:
    for jit in jits:
        for num_classes in sizes:
            for ours, theirs in PAIRS:
                yield compare(ours, theirs, num_classes, jit, rounds)


def compare(
    ours: str, theirs: str, num_classes: int, jit: bool, rounds: int
) -> FitTiming:
    runs = [
        (measured(ours, num_classes, jit), measured(theirs, num_classes, jit))
        for _ in range(rounds)
    ]
    return FitTiming(
        name=f"{ours} / {theirs}, {num_classes:,} classes{', jit' if jit else ''}",
        ours_ms=statistics.median(one["ms"] for one, _ in runs),
        theirs_ms=statistics.median(other["ms"] for _, other in runs),
        ratio=statistics.median(one["ms"] / other["ms"] for one, other in runs),
        compile_s=statistics.median(one["first_s"] for one, _ in runs),
        pairs=rounds,
        num_classes=num_classes,
        jit=jit,
        ours=ours,
        theirs=theirs,
        ours_peak_mb=max(one["peak_mb"] for one, _ in runs),
        theirs_peak_mb=max(other["peak_mb"] for _, other in runs),
    )


def measured(optimizer: str, num_classes: int, jit: bool) -> dict[str, float]:
    """What a fresh process says of `fit` with this optimizer.

    Raises:
        RuntimeError: The process died, of too little memory perhaps.
    """
    steps = STEPS[optimizer.split()[0]]
    command = [sys.executable, "-m", "benchmarks.optimizers_worker"]
    arguments = [optimizer, str(num_classes), str(steps), *(["jit"] if jit else [])]
    done = subprocess.run(
        command + arguments, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(
            f"fit with {optimizer} over {num_classes:,} classes ended with exit code "
            f"{done.returncode} (-9: killed for its memory): pass smaller --sizes.\n"
            + done.stderr[-1000:]
        )
    return json.loads(done.stdout.splitlines()[-1])


def plot(rows: Iterable[FitTiming], path: Path) -> None:
    """Milliseconds a step over the number of classes; a panel with jit, one without."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = list(rows)
    jits = sorted({row.jit for row in rows})
    figure = Figure(figsize=(5.5 * len(jits), 4.6), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(jits), sharey=True, squeeze=False)[0]
    for axes, jit in zip(panels, jits, strict=True):
        for name, points in lines([row for row in rows if row.jit == jit]).items():
            ours = name.startswith("tfsampled")
            axes.plot(
                [num_classes for num_classes, _ in points],
                [ms for _, ms in points],
                marker="o",
                markersize=4,
                linewidth=2 if ours else 1.4,
                linestyle="-" if ours else "--",
                label=name,
            )
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlabel("classes")
        axes.set_title("jit_compile=True" if jit else "jit_compile=False", loc="left")
        axes.grid(which="major", color="0.9")
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("milliseconds a step of fit")
    panels[0].legend(frameon=False, fontsize="small")
    figure.savefig(path)


def lines(rows: Iterable[FitTiming]) -> dict[str, list[tuple[int, float]]]:
    """(classes, milliseconds) of each optimizer, the median where it ran repeatedly."""
    seen: dict[str, dict[int, list[float]]] = {}
    for row in rows:
        for name, ms in ((row.ours, row.ours_ms), (row.theirs, row.theirs_ms)):
            seen.setdefault(name, {}).setdefault(row.num_classes, []).append(ms)
    return {
        name: [(size, statistics.median(ms)) for size, ms in sorted(sizes.items())]
        for name, sizes in seen.items()
    }


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.optimizers",
        description=__doc__.partition("\n")[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, metavar="N")
    parser.add_argument("--rounds", type=int, default=ROUNDS, metavar="N", help=" ")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write rows there")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="write a chart there")
    options = parser.parse_args(arguments)
    rows = []
    for row in timings(options.sizes, options.rounds):
        rows.append(row)
        print(
            f"{row.name}: {row.ours_ms:.2f} / {row.theirs_ms:.2f} ms = {row.ratio:.4f};"
            f" {row.ours_peak_mb:,.0f} / {row.theirs_peak_mb:,.0f} MiB",
            flush=True,
        )
    if options.json:
        made = [dataclasses.asdict(row) for row in rows]
        options.json.write_text(json.dumps(made, indent=2) + "\n")
    if options.plot:
        plot(rows, options.plot)
    return 0


if __name__ == "__main__":
    sys.exit(main())
