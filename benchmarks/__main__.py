"""`python -m benchmarks`: tables of timings, ours beside TensorFlow's."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import platform
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import tensorflow as tf
from rich.console import Console
from rich.table import Table

from benchmarks import samplers

# name -> module with a TITLE and `timings()`, which yields one `Timing` a row.
FAMILIES = {"samplers": samplers}


def machine() -> dict[str, object]:
    return {
        "tensorflow": tf.__version__,
        "python": platform.python_version(),
        "processor": platform.processor() or platform.machine(),
        "cpus": os.cpu_count(),
        "devices": [d.device_type for d in tf.config.list_physical_devices()],
    }


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "--only", choices=sorted(FAMILIES), action="append", help="leave out the others"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write them there")
    options = parser.parse_args(arguments)

    console = Console()
    where = machine()
    console.print(", ".join(f"{name} {value}" for name, value in where.items()))
    report: dict[str, object] = {"machine": where}
    for name in options.only or FAMILIES:
        family = FAMILIES[name]
        table = Table("case", title=family.TITLE)
        for title in ("ours, ms", "TensorFlow, ms", "ratio", "first call, s", "pairs"):
            table.add_column(title, justify="right")
        rows = []
        with console.status(name):
            for row in family.timings():
                rows.append(dataclasses.asdict(row))
                table.add_row(
                    row.name,
                    f"{row.ours_ms:.3f}",
                    f"{row.theirs_ms:.3f}",
                    f"{row.ratio:.2f}",
                    f"{row.compile_s:.1f}",
                    str(row.pairs),
                )
        console.print(table)
        report[name] = rows
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
