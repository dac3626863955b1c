"""Checks one case: runs the library and TensorFlow, compares all of the results."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import inspect
import operator
import time
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import tensorflow as tf

from compat_checks.cases.case import Case
from compat_checks.judge import budget, compare
from compat_checks.judge.truth import Array, compute_truth
from compat_checks.run import modes, sampler_calls
from compat_checks.run.call_bodies import Library, changed_body, loss_body
from compat_checks.run.candidates import add_sampled_values, candidates_of_calls
from compat_checks.run.invalid_inputs import INVALID_INPUTS
from compat_checks.run.problem import (
    Problem,
    SampledValues,
    make_problem,
    numpy_dtype,
)


@dataclasses.dataclass
class Result:
    """What came of a case.

    Attributes:
        case: The case.
        verdicts: Errors of each array.
        differences: What else differs, in words.
        seconds: How long the case took.
        relative: The largest difference from TensorFlow, relative to the largest value.
    """

    case: Case
    verdicts: list[budget.Verdict] = dataclasses.field(default_factory=list)
    differences: list[str] = dataclasses.field(default_factory=list)
    seconds: float = 0.0
    relative: float = 0.0

    @property
    def passed(self) -> bool:
        return not self.reasons()

    def reasons(self) -> list[str]:
        """Returns why the case failed, in words."""
        return self.differences + [str(v) for v in self.verdicts if not v.passed]


def public_functions(module: ModuleType) -> Library:
    """Returns a function that finds the functions of `module` by their path."""
    return lambda path: operator.attrgetter(path)(module)


class Checker:
    """Checks cases of one library.

    Args:
        library: The library under test, see `public_functions`.
        device: "CPU:0" or "GPU:0", where floating results have to lie.
        tf32: Whether a GPU may round factors of float32 products to TF32.
    """

    def __init__(
        self, library: Library, device: str = "CPU:0", tf32: bool = False
    ) -> None:
        self.library = library
        self.device = device
        self.tf32 = tf32

    def check(self, case: Case) -> Result:
        """Runs `case`. Every exception becomes a difference."""
        start = time.perf_counter()
        result = Result(case)
        kind = "error" if case.expect == "error" else case.kind
        check = getattr(self, f"_check_{kind}")
        with modes.on_device(self.device, self.tf32):
            try:
                check(result)
            except _LibraryError as error:
                result.differences.append(f"raised {_describe(error.__cause__)}")
            except Exception as error:
                result.differences.append(f"TensorFlow raised {_describe(error)}")
        result.seconds = time.perf_counter() - start
        return result

    def _check_signature(self, result: Result) -> None:
        path = result.case.path
        with _LibraryError.raised():
            actual = inspect.signature(self.library(path))
        expected = inspect.signature(public_functions(tf)(path))
        if actual != expected:
            result.differences.append(f"signature {actual}, TensorFlow {expected}")

    def _check_sampler(self, result: Result) -> None:
        case = result.case
        reference_case = case.replace(mode=case.reference_mode)
        expected = sampler_calls.run(reference_case, public_functions(tf))
        with _LibraryError.raised():
            actual = sampler_calls.run(case, self.library)
        result.differences += compare.draws(actual, expected)

    def _check_error(self, result: Result) -> None:
        case = result.case
        # A GPU does not check ids.
        on_cpu = self.device.startswith("CPU")
        if on_cpu and _raised(public_functions(tf), case) == "no error":
            result.differences.append("TensorFlow raises no error")
        actual = _raised(self.library, case)
        if actual not in case.raises:
            allowed = " or ".join(case.raises)
            result.differences.append(f"raises {actual}, expected {allowed}")

    def _check_loss(self, result: Result) -> None:
        case = result.case
        problem, candidates = _prepare(case)
        reference = _run_reference(case, self.device, self.tf32)
        with _LibraryError.raised():
            actual = modes.run(case, problem, loss_body(self.library, case, problem))
        result.differences += compare.static_facts(case, actual, reference)
        result.differences += [
            f"{name}: computed on {device}, not on {self.device}"
            for name, device in actual.devices.items()
            if device != self.device
        ]
        for index, call in enumerate(problem.calls):
            truth = compute_truth(case, problem, call, candidates[index])
            for name, array in truth.items():
                label = name if len(problem.calls) == 1 else f"call {index}: {name}"
                results = actual.results[index][name], reference.results[index][name]
                _check_array(result, label, *results, array)


class _LibraryError(Exception):
    """Tells an exception of the library under test from one of TensorFlow's side."""

    @classmethod
    @contextlib.contextmanager
    def raised(cls) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            raise cls from error


def _describe(error: BaseException | None) -> str:
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"


def _raised(library: Library, case: Case) -> str:
    """Returns the name of the exception that the invalid input raises."""
    problem, _ = _prepare(case)
    change = INVALID_INPUTS[case.invalid_input or ""]
    try:
        modes.run(case, problem, changed_body(library, case, change))
    except Exception as error:
        return type(error).__name__
    return "no error"


@functools.lru_cache(maxsize=4096)
def _prepare(case: Case) -> tuple[Problem, list[SampledValues]]:
    """Returns the arrays of a case and the candidates of each call."""
    problem = add_sampled_values(case, make_problem(case))
    if case.expect == "error":
        return problem, []
    return problem, candidates_of_calls(case, problem)


@functools.lru_cache(maxsize=4096)
def _run_reference(case: Case, device: str, tf32: bool) -> modes.Outcome:
    """Returns TensorFlow's results.

    For an "extension" TensorFlow gets the same in a form that it takes: the candidates
    as an argument, everything in float32 (or in float64).
    """
    del device, tf32  # only parts of the cache's key
    problem, candidates = _prepare(case)
    if case.expect == "extension":
        dtype = "float64" if case.dtype == "float64" else "float32"
        problem = _cast(problem, candidates, dtype)
        case = case.replace(dtype=dtype, table_dtype=None, seed=None)
    case = case.replace(mode=case.reference_mode)
    return modes.run(case, problem, loss_body(public_functions(tf), case, problem))


def _cast(problem: Problem, candidates: list[SampledValues], name: str) -> Problem:
    """Casts every array to one dtype, and passes the candidates as an argument."""
    dtype = numpy_dtype(name)
    calls = [
        dataclasses.replace(
            call,
            inputs=call.inputs.astype(dtype),
            upstream=call.upstream.astype(dtype),
            direction=call.direction.astype(dtype),
            sampled_values=sampled_values.astype(dtype),
        )
        for call, sampled_values in zip(problem.calls, candidates, strict=True)
    ]
    return Problem(
        problem.weights.astype(dtype),
        problem.biases.astype(dtype),
        problem.weight_direction.astype(dtype),
        problem.bias_direction.astype(dtype),
        calls,
    )


def _check_array(
    result: Result, label: str, actual: Any, reference: Any, truth: Array
) -> None:
    """Compares one array of one call with TensorFlow's and with the truth."""
    shape = truth.value.shape
    differences = compare.structure(result.case, label, actual, reference, shape)
    result.differences += differences
    if differences or actual is None:
        return
    dense, reference_dense = (
        compare.densify(array, shape, truth.value.dtype)
        for array in (actual, reference)
    )
    dtype, reference_dtype = (
        (array[1] if isinstance(array, tuple) else array).dtype
        for array in (actual, reference)
    )
    inputs_dtype = numpy_dtype(result.case.dtype)
    result.verdicts.append(
        budget.judge(
            label, dense, reference_dense, truth, dtype, reference_dtype, inputs_dtype
        )
    )
    relative = compare.relative_difference(dense, reference_dense)
    result.relative = max(result.relative, relative)
