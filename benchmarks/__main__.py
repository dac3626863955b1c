"""`python -m benchmarks`: tables of timings, beside TensorFlow and Keras."""

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

from benchmarks import (
    exact,
    fit,
    growth,
    loss,
    memory,
    padding,
    replicas,
    samplers,
    servers,
    towers,
)
from benchmarks.machine import machine

FAMILIES: dict[str, ModuleType] = {
    "samplers": samplers,
    "loss": loss,
    "memory": memory,
    "exact": exact,
    "fit": fit,
    "growth": growth,
    "padding": padding,
    "towers": towers,
    "replicas": replicas,
    "servers": servers,
}


def output_path(text: str) -> Path:
    """Converts an argument to a path; fails fast if it cannot be written."""
    path = Path(text)
    if path.is_dir() or not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"{path} is no file in a folder that exists")
    return path


def chart_path(text: str) -> Path:
    """Converts an argument to the path of a chart."""
    path = output_path(text)
    if path.suffix not in (".png", ".svg"):
        raise argparse.ArgumentTypeError(f"{text} must end in .png or .svg")
    return path


def make_parser() -> argparse.ArgumentParser:
    """Returns the parser of the command's arguments."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "--only",
        choices=sorted(FAMILIES),
        action="append",
        help="run this family only; may be repeated",
    )
    parser.add_argument(
        "--json", type=output_path, metavar="FILE", help="write all rows to FILE"
    )
    parser.add_argument(
        "--plot",
        type=chart_path,
        metavar="FILE",
        help="write a chart, PNG or SVG, of exact, fit, loss, samplers or towers; of "
        "several one chart each, whose file name ends in the family's name",
    )
    for name, family in FAMILIES.items():
        group = parser.add_argument_group(name, family.TITLE)
        for option, settings in getattr(family, "OPTIONS", {}).items():
            group.add_argument(
                f"--{name}-{option}", default=argparse.SUPPRESS, **settings
            )
    return parser


def run_family(name: str, options: dict[str, Any]) -> Iterator[Any]:
    """Yields the rows of a family, and prints each on standard error."""
    console = Console(stderr=True)
    with console.status(name) as status:
        for row in FAMILIES[name].timings(**options):
            line = f"{name}: {', '.join(format_cells(FAMILIES[name], row))}"
            if console.is_terminal:
                status.update(line)
            else:
                print(line, file=sys.stderr, flush=True)
            yield row


def format_cells(family: ModuleType, row: Any) -> list[str]:
    """Formats a row for the table."""
    return [template.format(row) for template in family.COLUMNS.values()]


def make_table(family: ModuleType, rows: list[Any]) -> Table:
    """Returns the rows of a family as a table."""
    table = Table(title=family.TITLE)
    for index, heading in enumerate(family.COLUMNS):
        table.add_column(heading, justify="right" if index else "left")
    for row in rows:
        table.add_row(*format_cells(family, row))
    return table


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    options = vars(make_parser().parse_args(arguments))
    names = list(dict.fromkeys(options["only"] or FAMILIES))
    console = Console()
    if not console.is_terminal:
        console.width = 120  # of a file
    properties = machine()
    console.print(", ".join(f"{name} {value}" for name, value in properties.items()))
    report: dict[str, Any] = {"machine": properties}
    for name in names:
        family = FAMILIES[name]
        family_options = {
            option: options[f"{name}_{option}"]
            for option in getattr(family, "OPTIONS", {})
            if f"{name}_{option}" in options
        }
        rows, report[name] = [], []
        for row in run_family(name, family_options):
            rows.append(row)
            report[name].append(
                {
                    key: None if value != value else value  # JSON has no NaN
                    for key, value in dataclasses.asdict(row).items()
                }
            )
            if options["json"]:  # after each row, in case a later one fails
                options["json"].write_text(json.dumps(report, indent=2) + "\n")
        console.print(make_table(family, rows))
        if options["plot"] and hasattr(family, "plot"):
            path: Path = options["plot"]
            if len(names) > 1:
                path = path.with_stem(f"{path.stem}-{name}")
            family.plot(rows, path)
            console.print(f"chart saved to {path}", soft_wrap=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
