"""A plot of perplexity over seconds of training."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from examples.next_token.train import Curve

COLORS = "#c8553d", "#e0a030", "#1b6ca8"  # distinct to the color-blind too


def save(path: pathlib.Path, curves: Sequence[Curve], title: str) -> None:
    """Draws the curves to a PNG or SVG file, by the path's suffix."""
    figure = Figure(figsize=(8, 4.8), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.set_prop_cycle(color=COLORS)
    for curve in curves:
        label = f"{curve.name}: {curve.ms_per_step:,.0f} ms per step"
        (line,) = axes.plot(
            curve.seconds, curve.perplexity, marker="o", markersize=4, label=label
        )
        axes.annotate(
            f"{curve.perplexity[-1]:,.0f}",
            (curve.seconds[-1], curve.perplexity[-1]),
            xytext=(8, 0),
            textcoords="offset points",
            verticalalignment="center",
            color=line.get_color(),
            fontweight="bold",
        )
    axes.set_yscale("log")
    axes.set_xlim(0, max(curve.seconds[-1] for curve in curves) * 1.1)
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("seconds of training (validation not counted)")
    axes.set_ylabel("exact validation perplexity")
    axes.set_title(title, loc="left")
    axes.grid(which="major", color="0.9")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    figure.savefig(path)
