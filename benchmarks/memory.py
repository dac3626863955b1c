"""Time and memory of one step of the sampled softmax with many logits.

Each figure comes from a process of its own. TensorFlow needs 10 GB at the first shape
and more than 24 GB at the second, where it is not run.
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
    "tfsampled, s": "{0.tfsampled_s:.2f}",
    "TensorFlow, s": "{0.tensorflow_time}",
    "tfsampled, MiB": "{0.tfsampled_mib:,.0f}",
    "TensorFlow, MiB": "{0.tensorflow_peak}",
}
OPTIONS = {
    "shapes": {
        "nargs": "+",
        "metavar": "V,D,B,S",
        "type": lambda text: Shape(*map(int, text.split(","))),
        "help": "classes, dim, batch and sampled of each shape",
    },
}
SHAPES = (Shape(1_000_000, 64, 8192, 32_768), Shape(1_000_000, 64, 16_384, 131_072))
MAX_LOGITS = 1 << 29  # TensorFlow keeps ten copies
STEPS = 3


@dataclasses.dataclass(frozen=True)
class StepCost:
    """Median seconds of a step, and peak of the first; None where it was not run."""

    name: str
    tfsampled_s: float
    tensorflow_s: float | None
    tfsampled_mib: float
    tensorflow_mib: float | None

    @property
    def tensorflow_time(self) -> str:
        """The seconds as a cell of the table."""
        return "-" if self.tensorflow_s is None else f"{self.tensorflow_s:.2f}"

    @property
    def tensorflow_peak(self) -> str:
        """The MiB as a cell of the table."""
        return "-" if self.tensorflow_mib is None else f"{self.tensorflow_mib:,.0f}"


def timings(shapes: Sequence[Shape] = SHAPES) -> Iterator[StepCost]:
    """Yields a row for each shape."""
    for shape in shapes:
        modules = ["tfsampled"]
        if shape.batch * shape.sampled <= MAX_LOGITS:
            modules.append("tensorflow")
        seconds = {
            name: call("benchmarks.memory:seconds", name, *shape) for name in modules
        }
        peaks = {
            name: step_peak_mib("benchmarks.memory:cold_step", name, *shape)
            for name in modules
        }
        yield StepCost(
            name=", ".join(f"{size:,}" for size in shape),
            tfsampled_s=seconds["tfsampled"],
            tensorflow_s=seconds.get("tensorflow"),
            tfsampled_mib=peaks["tfsampled"],
            tensorflow_mib=peaks.get("tensorflow"),
        )


def cold_step(module: str, *shape: int) -> Callable[[], Any]:
    """Returns a step that has not run: its first call traces it."""
    modules = {"tfsampled": tfsampled, "tensorflow": tf}
    return step(modules[module], "sampled_softmax_loss", Shape(*shape))


def seconds(module: str, *shape: int) -> float:
    """Measures the median of a few steps, after one that traces."""
    call = cold_step(module, *shape)
    call()
    return statistics.median(timed(call) for _ in range(STEPS))
