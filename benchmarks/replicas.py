"""Processes that train one table together: copied to each of them, or in parts."""

from __future__ import annotations

import dataclasses
import json
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.options import integer, integers
from examples.distributed.workers import run_workers

TITLE = (
    "a table that processes of this CPU train, by MultiWorkerMirroredStrategy: 64 "
    "dimensions, 512 examples and 1,024 sampled classes of each process, LazyAdam"
)
COLUMNS = {
    "the table is": "{0.kind}",
    "classes": "{0.num_classes:,}",
    "processes": "{0.processes}",
    "ms a step": "{0.ms:.1f}",
    "kB received by each": "{0.kilobytes:,.0f}",
}
KINDS = ("copied", "in parts")
CLASSES, PROCESSES, STEPS = (10_000, 1_000_000), (2, 4), 100
OPTIONS = {
    "classes": integers("numbers of classes", CLASSES),
    "processes": integers("numbers of processes", PROCESSES),
    "steps": integer("steps to measure", STEPS),
}


@dataclasses.dataclass(frozen=True)
class Replicas:
    """The median time of a step, and what it receives."""

    kind: str
    num_classes: int
    processes: int
    ms: float
    kilobytes: float  # that each process receives in a step; 0 off Linux


def timings(
    classes: Sequence[int] = CLASSES,
    processes: Sequence[int] = PROCESSES,
    steps: int = STEPS,
) -> Iterator[Replicas]:
    """Yields a row for each way, number of processes and number of classes."""
    for kind in KINDS:
        for count in processes:
            for num_classes in classes:
                with tempfile.TemporaryDirectory() as folder:
                    path = Path(folder) / "measured.json"
                    arguments = [kind, str(num_classes), str(steps), str(path)]
                    command = ["-m", "benchmarks.replicas_worker", *arguments]
                    run_workers([command] * count)
                    measured = json.loads(path.read_text())
                yield Replicas(kind, num_classes, count, **measured)
