"""Workers that train a table on parameter servers."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Iterator, Sequence

from benchmarks import fresh
from benchmarks.options import integer, integers

TITLE = (
    "a table on servers, all processes of this machine: 64 dimensions, 512 examples "
    "and 1,024 sampled classes of each step, Adagrad"
)
COLUMNS = {
    "classes": "{0.num_classes:,}",
    "workers": "{0.workers}",
    "servers": "{0.servers}",
    "ms a step": "{0.ms:.1f}",
    "kB a step": "{0.kilobytes:,.0f}",
    "MB of a server": "{0.server_megabytes:,.0f}",
    "kB of an exact loss": "{0.exact_kilobytes:,.0f}",
}
CLASSES = (10_000, 100_000, 1_000_000)
WORKERS, SERVERS = 2, 2
EPOCHS = 2  # of which the second is timed
OPTIONS = {
    "classes": integers("numbers of classes", CLASSES),
    "workers": integer("workers", WORKERS),
    "servers": integer("servers", SERVERS),
}


@dataclasses.dataclass(frozen=True)
class Servers:
    """The time of a step, which the workers share, and what all processes receive."""

    num_classes: int
    workers: int
    servers: int
    ms: float
    kilobytes: float
    server_megabytes: float
    exact_kilobytes: float


def timings(
    classes: Sequence[int] = CLASSES, workers: int = WORKERS, servers: int = SERVERS
) -> Iterator[Servers]:
    """Yields a row for each number of classes."""
    for num_classes in classes:
        with tempfile.TemporaryDirectory() as folder:
            measured = fresh.call(
                "examples.distributed.servers:main",
                *(num_classes, EPOCHS, folder, workers, servers),
            )
        yield Servers(num_classes, workers, servers, **measured)
