"""`python -m benchmarks`: tables of timings, ours beside TensorFlow's and Keras's."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from rich.console import Console
from rich.table import Table

from benchmarks import exact, fit, growth, loss, memory, samplers
from benchmarks.machine import machine

FAMILIES: dict[str, ModuleType] = {
    "samplers": samplers,
    "loss": loss,
    "memory": memory,
    "exact": exact,
    "fit": fit,
    "growth": growth,
}


def file_to_write(text: str) -> Path:
    """Told before hours of timings are lost, not after."""
    path = Path(text)
    if not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"there is no folder {path.parent}")
    return path


def chart(text: str) -> Path:
    path = file_to_write(text)
    if path.suffix not in (".png", ".svg"):
        raise argparse.ArgumentTypeError(f"{text} ends neither in .png nor in .svg")
    return path


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "--only", choices=sorted(FAMILIES), action="append", help="leave out the others"
    )
    parser.add_argument(
        "--json", type=file_to_write, metavar="FILE", help="write all rows there"
    )
    parser.add_argument(
        "--plot",
        type=chart,
        metavar="FILE",
        help="write a chart there, PNG or SVG; of several families each has its name "
        "in the file's",
    )
    for name, family in FAMILIES.items():
        group = parser.add_argument_group(name, family.TITLE)
        for option, settings in getattr(family, "OPTIONS", {}).items():
            group.add_argument(
                f"--{name}-{option}", default=argparse.SUPPRESS, **settings
            )
    return parser


def measured(name: str, options: dict[str, Any]) -> Iterator[Any]:
    """The rows of a family, each told on standard error as it comes."""
    console = Console(stderr=True)
    with console.status(name) as shown:
        for row in FAMILIES[name].timings(**options):
            line = f"{name}: {', '.join(cells(FAMILIES[name], row))}"
            if console.is_terminal:
                shown.update(line)
            else:
                print(line, file=sys.stderr, flush=True)
            yield row


def cells(family: ModuleType, row: Any) -> list[str]:
    return [form.format(row) for form in family.COLUMNS.values()]


def table(family: ModuleType, rows: list[Any]) -> Table:
    made = Table(title=family.TITLE)
    for index, heading in enumerate(family.COLUMNS):
        made.add_column(heading, justify="right" if index else "left")
    for row in rows:
        made.add_row(*cells(family, row))
    return made


def main(arguments: list[str] | None = None) -> int:
    options = vars(parser().parse_args(arguments))
    names = list(dict.fromkeys(options["only"] or FAMILIES))
    console = Console()
    if not console.is_terminal:
        console.width = 120  # a file has no edge
    where = machine()
    console.print(", ".join(f"{name} {value}" for name, value in where.items()))
    report: dict[str, Any] = {"machine": where}
    for name in names:
        family = FAMILIES[name]
        given = {
            option: options[f"{name}_{option}"]
            for option in getattr(family, "OPTIONS", {})
            if f"{name}_{option}" in options
        }
        rows, report[name] = [], []
        for row in measured(name, given):
            rows.append(row)
            report[name].append(
                {
                    key: None if value != value else value  # JSON has no NaN
                    for key, value in dataclasses.asdict(row).items()
                }
            )
            if options["json"]:  # what there is, should the rest never come
                options["json"].write_text(json.dumps(report, indent=2) + "\n")
        console.print(table(family, rows))
        if options["plot"] and hasattr(family, "plot"):
            path: Path = options["plot"]
            if len(names) > 1:
                path = path.with_stem(f"{path.stem}-{name}")
            family.plot(rows, path)
            console.print(f"chart saved to {path}", soft_wrap=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
