"""Time and memory of one step of the sampled softmax with many logits.

Each figure is of a process of its own. TensorFlow needs 10 GB at the first shape and
more than 24 at the second, where it is not asked.
"""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import tensorflow as tf

import tfsampled
from benchmarks.fresh import call, step_peak_mib
from benchmarks.loss import Shape, step
from benchmarks.paired import timed

TITLE = (
    "one step of the sampled softmax with many logits: seconds, and MiB above inputs"
)
COLUMNS = {
    "classes, dim, batch, sampled": "{0.name}",
    "ours, s": "{0.ours_s:.2f}",
    "TensorFlow, s": "{0.their_time}",
    "ours, MiB": "{0.ours_mib:,.0f}",
    "TensorFlow, MiB": "{0.their_peak}",
}
OPTIONS = {
    "shapes": {
        "nargs": "+",
        "metavar": "V,D,B,S",
        "type": lambda text: Shape(*map(int, text.split(","))),
        "help": "classes, dim, batch and sampled, of each shape",
    },
}
SHAPES = (Shape(1_000_000, 64, 8192, 32_768), Shape(1_000_000, 64, 16_384, 131_072))
MOST_LOGITS = 1 << 29  # of which TensorFlow keeps ten copies
STEPS = 3


@dataclasses.dataclass(frozen=True)
class StepCost:
    """Median seconds of a step, peaks of a first one; None where nobody was asked."""

    name: str
    ours_s: float
    theirs_s: float | None
    ours_mib: float
    theirs_mib: float | None

    @property
    def their_time(self) -> str:
        return "-" if self.theirs_s is None else f"{self.theirs_s:.2f}"

    @property
    def their_peak(self) -> str:
        return "-" if self.theirs_mib is None else f"{self.theirs_mib:,.0f}"


def timings(shapes: Sequence[Shape] = SHAPES) -> Iterator[StepCost]:
    for shape in shapes:
        asked = ["tfsampled"]
        if shape.batch * shape.sampled <= MOST_LOGITS:
            asked.append("tensorflow")
        seconds = {
            name: call("benchmarks.memory:seconds", name, *shape) for name in asked
        }
        peaks = {
            name: step_peak_mib("benchmarks.memory:traced", name, *shape)
            for name in asked
        }
        yield StepCost(
            name=", ".join(f"{size:,}" for size in shape),
            ours_s=seconds["tfsampled"],
            theirs_s=seconds.get("tensorflow"),
            ours_mib=peaks["tfsampled"],
            theirs_mib=peaks.get("tensorflow"),
        )


def traced(module: str, *shape: int) -> Callable[[], Any]:
    """A step, not yet run: its first call traces it."""
    modules = {"tfsampled": tfsampled, "tensorflow": tf}
    return step(modules[module], "sampled_softmax_loss", Shape(*shape))


def seconds(module: str, *shape: int) -> float:
    """The median of a few steps, after one that traces."""
    one = traced(module, *shape)
    one()
    return statistics.median(timed(one) for _ in range(STEPS))
