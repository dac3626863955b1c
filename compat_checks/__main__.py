"""python -m compat_checks: every case against TensorFlow and a float64 truth."""

from __future__ import annotations

import argparse
import os
import sys
import time
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")  # for several processes

import tensorflow as tf

try:
    from rich.console import Console
except ImportError as error:
    raise ImportError(
        "`rich` must be installed: pip install 'tfsampled[report]'."
    ) from error

from compat_checks.cases import select
from compat_checks.report import changes, html, record, terminal


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m compat_checks",
        description=(
            "Checks on this machine that tfsampled gives TensorFlow's numbers. "
            "Exit code: 0 all equal, 1 a difference, 2 no such device or no such case, "
            "or a process died."
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
    parser.add_argument(
        "--jobs", metavar="N", type=int, default=1, help="processes (default: 1)"
    )
    parser.add_argument(
        "--tf32",
        action="store_true",
        help="let a GPU use TF32, to see its effect on the errors",
    )
    parser.add_argument("--json", metavar="FILE", type=Path, help="write a record")
    parser.add_argument("--html", metavar="FILE", type=Path, help="write a report")
    commands = parser.add_subparsers(dest="command", metavar="compare|kernels")
    kernels = commands.add_parser(
        "kernels",
        help="what a GPU would run, found without one",
        description=(
            "Lists the operations without a GPU kernel and what is copied to and from "
            "the host, of every function. Needs TensorFlow built with CUDA, no GPU. "
            "Exit code: 0; 2 if TensorFlow has no CUDA or no function matches."
        ),
    )
    kernels.add_argument(
        "--only",
        metavar="NAME",
        default=argparse.SUPPRESS,
        help="functions whose name contains NAME, such as top_k",
    )
    compare = commands.add_parser(
        "compare",
        help="what changed from one record to another",
        description=(
            "Compares two records. Exit code: 0 nothing is worse, 1 a case no longer "
            "passes, is no longer checked, is new and fails, or an error grew, 2 a "
            "file is no record."
        ),
    )
    compare.add_argument("old", metavar="OLD.json", type=Path)
    compare.add_argument("new", metavar="NEW.json", type=Path)
    compare.add_argument(
        "--tolerance",
        metavar="ULP",
        type=float,
        default=changes.TOLERANCE,
        help=f"by how much an error may grow (default: {changes.TOLERANCE:g})",
    )
    options = parser.parse_args(arguments)
    if options.command == "compare" and not options.tolerance >= 0:
        parser.error(f"--tolerance must be at least 0. Received: {options.tolerance}.")
    if options.jobs < 1:
        parser.error(f"--jobs must be at least 1. Received: {options.jobs}.")
    for path in (options.json, options.html):  # before the minutes of the checks
        if path and (path.is_dir() or not path.absolute().parent.is_dir()):
            parser.error(f"{path} must be a file in a folder that exists.")
    return options


def visible_devices() -> list[str]:
    """Lists which of CPU:0 and GPU:0 TensorFlow sees."""
    kinds = {device.device_type for device in tf.config.list_logical_devices()}
    return [f"{kind}:0" for kind in ("CPU", "GPU") if kind in kinds]


def list_kernels(console: Console, errors: Console, only: str | None) -> int:
    """Lists what a GPU would run; returns the exit code."""
    # They import private names of TensorFlow, which the checks do without.
    from compat_checks.kernels import placement, steps

    if not placement.has_gpu_kernels():
        errors.print(
            "TensorFlow must be built with CUDA: pip install tensorflow, not "
            "tensorflow-cpu. No GPU is needed."
        )
        return 2
    steps.add_stand_in()
    chosen = [step for step in steps.steps() if only is None or only in step.name]
    if not chosen:
        errors.print(f"No function has {only!r} in its name.", markup=False)
        return 2
    terminal.show_placements(
        console, ((step.name, step.placement()) for step in chosen)
    )
    return 0


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    options = parse(arguments)
    console, errors = Console(), Console(stderr=True)
    if options.command == "compare":
        try:
            old, new = record.read(options.old), record.read(options.new)
            found = changes.changes(old, new, options.tolerance)
        except ValueError as error:
            errors.print(str(error), markup=False)
            return 2
        except (LookupError, TypeError) as error:  # a field that is not there
            text = f"{options.old} and {options.new} must be records."
            errors.print(f"{text} Received: {error!r}", markup=False)
            return 2
        changes.show(console, found)
        return 1 if any(change.worse for change in found) else 0
    if options.command == "kernels":
        return list_kernels(console, errors, options.only)
    present = visible_devices()
    devices = present if options.device == "all" else [options.device]
    if not set(devices) <= set(present):
        errors.print(f"No {options.device} here; there is {' and '.join(present)}.")
        return 2
    cases = select(options.only)
    if not cases:
        errors.print(
            f"No case has {options.only!r} in its name; families are such as "
            "basic/, shards/, seeds/, random/.",
            markup=False,
        )
        return 2
    runs = []
    for device in devices:
        start, checks = time.perf_counter(), (cases, device, options.jobs, options.tf32)
        try:
            results = terminal.run_with_progress(console, *checks)
        except BrokenProcessPool:
            errors.print("A process died; --jobs 1 tells in which case.")
            return 2
        seconds = time.perf_counter() - start
        runs.append(record.Run(device, results, seconds, options.tf32))
        terminal.show(console, runs[-1])
    summary = record.as_dict(runs)
    if options.json:
        record.write(options.json, summary)
    if options.html:
        options.html.write_text(html.page(summary), encoding="utf-8")
    return 0 if all(result.passed for run in runs for result in run.results) else 1


if __name__ == "__main__":
    sys.exit(main())
