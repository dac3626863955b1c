"""python -m compat_checks: every case against TensorFlow and a float64 truth."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import tensorflow as tf
from rich.console import Console

import tfsampled
from compat_checks.cases import select
from compat_checks.judge.check import Checker, public_functions
from compat_checks.report import html, record, terminal


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m compat_checks",
        description=(
            "Checks on this machine that tfsampled gives TensorFlow's numbers. "
            "Exit code: 0 all equal, 1 a difference, 2 no such device or no such case."
        ),
    )
    parser.add_argument(
        "--device",
        default="CPU:0",
        choices=["CPU:0", "GPU:0", "all"],
        help="where to run (default: CPU:0); all: all that are present",
    )
    parser.add_argument(
        "--only", metavar="NAME", help="cases whose name contains NAME, such as seeds/"
    )
    parser.add_argument("--json", metavar="FILE", type=Path, help="write a record")
    parser.add_argument("--html", metavar="FILE", type=Path, help="write a report")
    return parser.parse_args(arguments)


def visible_devices() -> list[str]:
    """Lists which of CPU:0 and GPU:0 TensorFlow sees."""
    kinds = {device.device_type for device in tf.config.list_logical_devices()}
    return [f"{kind}:0" for kind in ("CPU", "GPU") if kind in kinds]


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    options = parse(arguments)
    console, errors = Console(), Console(stderr=True)
    present = visible_devices()
    devices = present if options.device == "all" else [options.device]
    if not set(devices) <= set(present):
        errors.print(f"No {options.device} here; there is {' and '.join(present)}.")
        return 2
    cases = select(options.only)
    if not cases:
        errors.print(
            f"No case has {options.only!r} in its name; families are such as "
            "basic/, shards/, seeds/, random/."
        )
        return 2
    tf.get_logger().setLevel("ERROR")
    runs = []
    for device in devices:
        checker = Checker(public_functions(tfsampled), device)
        results = terminal.run_with_progress(console, checker, cases)
        runs.append(record.Run(device, results))
        terminal.show(console, runs[-1])
    summary = record.as_dict(runs)
    if options.json:
        record.write(options.json, summary)
    if options.html:
        options.html.write_text(html.page(summary), encoding="utf-8")
    return 0 if all(result.passed for run in runs for result in run.results) else 1


if __name__ == "__main__":
    sys.exit(main())
