"""What the charts have in common, and bars for things timed in pairs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from benchmarks.paired import Timing


def figure_of(width: float, height: float) -> Figure:
    """An empty figure of so many inches, to be saved as PNG or SVG."""
    # Axes take these up when they are made, and an SVG its ids when it is written.
    matplotlib.rcParams.update(
        {
            "axes.axisbelow": True,
            "axes.spines.right": False,
            "axes.spines.top": False,
            "svg.hashsalt": "tfsampled",
        }
    )
    figure = Figure(figsize=(width, height), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def logarithmic(axes: Axes, name: Literal["x", "y"]) -> None:
    """Ticks at 1, 2 and 5, written out: 10,000 and not a power of ten."""
    axes.set(**{f"{name}scale": "log"})
    axis = axes.xaxis if name == "x" else axes.yaxis
    low, high = sorted(axis.get_data_interval())
    many = high > 1000 * low
    axis.set_major_locator(LogLocator(subs=(1,) if many else (1, 2, 5)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.6g}"))
    axis.set_minor_formatter(NullFormatter())


def bars(rows: Sequence[Timing], path: Path, title: str) -> None:
    """Ours and TensorFlow's milliseconds, a pair of bars for each row."""
    figure = figure_of(7, 1.2 + 0.5 * len(rows))
    axes = figure.add_subplot()
    places = range(len(rows))
    axes.barh([p - 0.2 for p in places], [r.ours_ms for r in rows], 0.4, label="ours")
    axes.barh(
        [p + 0.2 for p in places],
        [r.theirs_ms for r in rows],
        0.4,
        label="TensorFlow's",
        color="0.7",
    )
    axes.set_yticks(places, [row.name for row in rows])
    axes.invert_yaxis()
    axes.set_xlabel("milliseconds")
    axes.set_title(title, loc="left", fontsize="medium")
    axes.grid(axis="x", color="0.9")
    axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    figure.savefig(path)
