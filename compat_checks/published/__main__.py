"""TensorFlow's own published tests, run against this library.

    python -m compat_checks.published PATH [PATH ...]

A PATH is a checkout of TensorFlow or a single test file of it. Wherever one of the
tests calls a function that this library mirrors, the library's function is called
instead; every other name stays TensorFlow's. Each test that names such a function is
run twice: as it is published, and swapped. It counts as passed when it passes swapped
and did reach a function of this library.

Exit code: 0 all passed; 1 a test passes with TensorFlow and fails here; 2 nothing to
run at the path that was given.
"""

from __future__ import annotations

import argparse
import ast
import collections
import functools
import importlib.util
import sys
import types
import unittest
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import tensorflow as tf
from rich.console import Console
from rich.table import Table

import tfsampled
from compat_checks.published import logits as published_logits

# Where the tests of the mirrored functions lie in a checkout of TensorFlow.
FILES = (
    "tensorflow/python/ops/nn_test.py",
    "tensorflow/python/kernel_tests/random/candidate_sampler_ops_test.py",
    "tensorflow/python/kernel_tests/candidate_sampler_ops_test.py",  # before 2.8
)
NAMESPACES = ("nn", "random", "compat.v1.nn", "compat.v1.random")

# TensorFlow's helper behind both losses: private, and tested directly. Logits and
# labels can be had from the public losses, see published_logits.
PRIVATE_HELPER = "_compute_sampled_logits"

Calls = collections.Counter[str]


def walk(root: object, dotted: str) -> object:
    """The object at a dotted path below `root`, or None where there is none."""
    return functools.reduce(
        lambda at, name: getattr(at, name, None), dotted.split("."), root
    )


def counterparts() -> list[tuple[Callable, Callable]]:
    """TensorFlow's public functions, each with tfsampled's of the same path."""
    pairs = []
    for namespace in NAMESPACES:
        actual, expected = walk(tfsampled, namespace), walk(tf, namespace)
        for name in dir(actual):
            function, original = getattr(actual, name), getattr(expected, name, None)
            if callable(original) and function is not original:
                pairs.append((original, function))
    return pairs


def counted(name: str, function: Callable, calls: Calls) -> Callable:
    """`function`, which notes in `calls` that it was reached."""

    @functools.wraps(function)
    def call(*args, **kwargs):
        calls[name] += 1
        return function(*args, **kwargs)

    return call


class Swapped:
    """A module as its tests see it, with tfsampled's functions for TensorFlow's."""

    def __init__(self, module: types.ModuleType, swap: Callable[[object], object]):
        """Swaps functions of TensorFlow for those of tfsampled."""
        self._module = module
        self._swap = swap

    def __getattr__(self, name: str) -> object:
        return self._swap(getattr(self._module, name))


@dataclass
class Outcome:
    """What one published test did, as published and swapped."""

    test: str
    expected: str
    actual: str
    calls: Calls = field(default_factory=collections.Counter)

    @property
    def verdict(self) -> str:
        if self.actual == "skipped":
            return "skipped"
        if self.actual == "ok":
            return "passed" if self.calls else "not reached"
        return "FAILED" if self.expected == "ok" else "fails with TensorFlow too"


def load(path: Path) -> types.ModuleType:
    """The test file as a module of its own; it is executed, not copied."""
    name = "published_" + path.stem
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # unittest and absl look a test's module up by name
    spec.loader.exec_module(module)
    return module


def tests_concerned(path: Path, names: set[str]) -> Iterator[tuple[str, str]]:
    """`(class, method)` of every test whose body names one of the functions."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if not isinstance(node, ast.ClassDef):
            continue
        for method in node.body:
            if isinstance(method, ast.FunctionDef) and method.name.startswith("test"):
                used = {
                    n.attr for n in ast.walk(method) if isinstance(n, ast.Attribute)
                }
                used |= {n.id for n in ast.walk(method) if isinstance(n, ast.Name)}
                if used & names:
                    yield node.name, method.name


def run_one(module: types.ModuleType, case: str, method: str) -> str:
    """`ok`, `skipped`, or the last line of what went wrong."""
    result = unittest.TestResult()
    getattr(module, case)(method).run(result)
    if result.skipped:
        return "skipped"
    wrong = result.errors + result.failures
    return wrong[0][1].strip().splitlines()[-1] if wrong else "ok"


def run_file(path: Path) -> list[Outcome]:
    """Every test of a file that concerns us, as published and then swapped."""
    module, calls = load(path), Calls()
    names, replacements = {PRIVATE_HELPER}, {}
    for expected, actual in counterparts():
        names.add(expected.__name__)
        replacements[id(expected)] = counted(expected.__name__, actual, calls)
    helper = counted(PRIVATE_HELPER, published_logits.sampled_logits, calls)

    def swap(value: object) -> object:
        if getattr(value, "__name__", None) == PRIVATE_HELPER:
            return helper
        return replacements.get(id(value), value)

    original = dict(vars(module))
    swapped = {
        name: Swapped(value, swap)
        if isinstance(value, types.ModuleType)
        and value.__name__.startswith("tensorflow")
        else swap(value)
        for name, value in original.items()
    }
    outcomes = []
    for case, method in tests_concerned(path, names):
        as_published = run_one(module, case, method)
        vars(module).update(swapped)
        calls.clear()
        try:
            swapped_in = run_one(module, case, method)
        finally:
            vars(module).update(original)
        outcomes.append(Outcome(method, as_published, swapped_in, Calls(calls)))
    return outcomes


def files_at(paths: list[Path]) -> list[Path]:
    """The paths that are files, and in those that are folders the files we know of."""
    return [
        file
        for path in paths
        for file in ([path] if path.is_file() else (path / f for f in FILES))
        if file.is_file()
    ]


def show(outcomes: list[Outcome], console: Console) -> None:
    """A row per test, and one line with the counts."""
    table = Table("published test", "TensorFlow", "tfsampled", "reached", "verdict")
    for o in outcomes:
        reached = ", ".join(f"{name} x{n}" for name, n in sorted(o.calls.items()))
        table.add_row(o.test, o.expected, o.actual, reached, o.verdict)
    console.print(table)
    counts = collections.Counter(o.verdict for o in outcomes)
    console.print(
        f"TensorFlow {tf.__version__}: {len(outcomes)} published tests concern us; "
        + ", ".join(f"{n} {verdict}" for verdict, n in counts.most_common())
    )


def main(arguments: list[str] | None = None, console: Console | None = None) -> int:
    """The command; gives back its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m compat_checks.published",
        description="Run TensorFlow's own published tests against tfsampled.",
    )
    parser.add_argument(
        "path",
        nargs="+",
        type=Path,
        help="a checkout of TensorFlow, or one test file of it",
    )
    paths = parser.parse_args(arguments).path
    console = console or Console()
    outcomes = [outcome for file in files_at(paths) for outcome in run_file(file)]
    show(outcomes, console)
    verdicts = {o.verdict for o in outcomes}
    if "FAILED" in verdicts:
        return 1
    if "passed" not in verdicts:
        console.print(
            f"Nothing was shown by {', '.join(map(str, paths))}: give a checkout of "
            "TensorFlow of this version, or its nn_test.py."
        )
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
