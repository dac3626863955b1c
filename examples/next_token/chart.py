"""A chart of perplexity against seconds of training."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from examples.next_token.clock import Curve

COLOURS = "#1b6ca8", "#c8553d", "#e0a030"  # told apart by the colour-blind too


def save(
    path: pathlib.Path,
    curves: Sequence[Curve],
    title: str,
    unigram: float | None = None,
) -> None:
    """Draws each curve, and unigram perplexity as a level; PNG or SVG by the suffix."""
    figure = Figure(figsize=(8, 4.8), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.set_prop_cycle(color=COLOURS)
    for curve in curves:
        (line,) = axes.plot(
            curve.seconds,
            curve.perplexity,
            marker="o",
            markersize=4,
            linewidth=2,
            label=f"{curve.name}, {curve.steps:,} steps",
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
    if unigram is not None:
        axes.axhline(unigram, color="0.45", linestyle="--", linewidth=1.2)
        axes.annotate(
            f"unigram {unigram:,.0f}",
            (0, unigram),
            xycoords=("axes fraction", "data"),
            xytext=(6, 4),
            textcoords="offset points",
            color="0.35",
        )
    axes.set_yscale("log")
    axes.set_xlim(0, max(curve.seconds[-1] for curve in curves) * 1.12)
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("seconds of training (validation not counted)")
    axes.set_ylabel("exact validation perplexity")
    axes.set_title(title, loc="left")
    axes.grid(which="major", color="0.9")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="upper right", bbox_to_anchor=(1, 0.93))
    figure.savefig(path)
