"""Helpers for charts, and a bar chart of timings taken in pairs."""

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


def make_figure(width: float, height: float) -> Figure:
    """Returns an empty figure, to be saved as PNG or SVG; sizes in inches."""
    # read when axes are made and when an SVG is written
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


def set_log_scale(axes: Axes, name: Literal["x", "y"]) -> None:
    """Sets a logarithmic scale with ticks like 10,000, not powers of ten."""
    axes.set(**{f"{name}scale": "log"})
    axis = axes.xaxis if name == "x" else axes.yaxis
    low, high = sorted(axis.get_data_interval())
    wide = high > 1000 * low
    axis.set_major_locator(LogLocator(subs=(1,) if wide else (1, 2, 5)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.6g}"))
    axis.set_minor_formatter(NullFormatter())


def plot_pairs(rows: Sequence[Timing], path: Path, title: str) -> None:
    """Plots milliseconds of tfsampled and TensorFlow, two bars for each row."""
    figure = make_figure(7, 1.2 + 0.5 * len(rows))
    axes = figure.add_subplot()
    positions = range(len(rows))
    axes.barh(
        [p - 0.2 for p in positions],
        [r.tfsampled_ms for r in rows],
        0.4,
        label="tfsampled",
    )
    axes.barh(
        [p + 0.2 for p in positions],
        [r.tensorflow_ms for r in rows],
        0.4,
        label="TensorFlow",
        color="0.7",
    )
    axes.set_yticks(positions, [row.name for row in rows])
    axes.invert_yaxis()
    axes.set_xlabel("milliseconds")
    axes.set_title(title, loc="left", fontsize="medium")
    axes.grid(axis="x", color="0.9")
    axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    figure.savefig(path)
