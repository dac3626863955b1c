"""One case, start to end: run ours and TensorFlow's, compare all there is."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import operator
import time
from types import ModuleType
from typing import Any

import numpy as np
import tensorflow as tf

from compat_checks.cases.case import JIT, Case
from compat_checks.judge import budget, truth
from compat_checks.run import candidates, draws, modes
from compat_checks.run.call_bodies import Subject, loss_body
from compat_checks.run.invalid_inputs import SPOILS
from compat_checks.run.problem import Problem, Sampled, make_problem, numpy_dtype


@dataclasses.dataclass
class Result:
    """What a case showed: verdicts per array, and differences in words."""

    case: Case
    verdicts: list[budget.Verdict] = dataclasses.field(default_factory=list)
    differences: list[str] = dataclasses.field(default_factory=list)
    seconds: float = 0.0
    relative: float = 0.0  # largest |ours - TensorFlow's| / largest |TensorFlow's|

    @property
    def passed(self) -> bool:
        return not self.differences and all(v.passed for v in self.verdicts)

    @property
    def worst(self) -> budget.Verdict | None:
        """The verdict nearest to, or furthest beyond, its budget."""
        if not self.verdicts:
            return None
        return max(self.verdicts, key=lambda v: v.ours_max / v.allowed_max)

    def reasons(self) -> list[str]:
        return self.differences + [str(v) for v in self.verdicts if not v.passed]


def subject_of(module: ModuleType) -> Subject:
    """The public functions of `module` by their path below it."""
    return lambda path: operator.attrgetter(path)(module)


class Checker:
    """Checks cases of one library under test; TensorFlow's side is computed once.

    Args:
      subject: path -> function, see `subject_of`.
      device: "CPU:0" or "GPU:0".
    """

    def __init__(self, subject: Subject, device: str = "CPU:0"):
        self.subject = subject
        self.device = device

    def check(self, case: Case) -> Result:
        """Runs `case`; an exception of ours becomes a difference, never a crash."""
        started = time.perf_counter()
        result = Result(case)
        kinds = {
            "loss": self._check_loss,
            "draw": self._check_draws,
            "signature": self._check_signature,
        }
        with modes.on_device(self.device):
            check = self._check_error if case.expect == "error" else kinds[case.kind]
            try:
                check(result)
            except Exception as error:  # TensorFlow's side: the other cases still count
                result.differences.append(f"TensorFlow raised {_first_line(error)}")
        result.seconds = time.perf_counter() - started
        return result

    def _check_signature(self, result: Result) -> None:
        path = result.case.path
        try:
            ours = inspect.signature(self.subject(path))
        except AttributeError as missing:
            result.differences.append(f"{path} is missing: {missing}")
            return
        theirs = inspect.signature(subject_of(tf)(path))
        if ours != theirs:
            result.differences.append(f"signature {ours}, TensorFlow {theirs}")

    def _check_draws(self, result: Result) -> None:
        case = result.case
        theirs = draws.run(case.replace(mode=case.reference_mode), subject_of(tf))
        try:
            ours = draws.run(case, self.subject)
        except Exception as error:
            result.differences.append(f"raised {_first_line(error)}")
            return
        result.differences += draws.differences(ours, theirs)

    def _check_error(self, result: Result) -> None:
        case = result.case
        problem, _ = _prepared(case)
        spoil = SPOILS[case.spoil or ""]

        def spoiled(subject: Subject) -> str:
            function = subject(case.path)
            body = loss_body(
                lambda path: lambda **kwargs: function(**spoil(kwargs)), case, problem
            )
            try:
                modes.run(case, problem, body)
            except Exception as error:  # every class counts, its name is compared
                return type(error).__name__
            return "no error"

        theirs = spoiled(subject_of(tf))
        checked = self.device.startswith("CPU")  # a GPU reads no error from bad ids
        if theirs == "no error" and checked:
            result.differences.append("TensorFlow accepts this")
        ours = spoiled(self.subject)
        if ours not in case.raises:
            allowed = " or ".join(case.raises)
            result.differences.append(f"raises {ours}, expected {allowed}")

    def _check_loss(self, result: Result) -> None:
        case = result.case
        problem, entering = _prepared(case)
        reference = _reference(case, self.device)
        try:
            ours = modes.run(case, problem, loss_body(self.subject, case, problem))
        except Exception as error:
            result.differences.append(f"raised {_first_line(error)}")
            return
        _compare_facts(result, ours, reference)
        setting = truth.Setting(case.nce, case.hits_removed, case.strategy)
        for number, call in enumerate(problem.calls):
            arrays = truth.Truth(
                problem, call, entering[number], setting, case.second
            ).arrays
            for name, array in arrays.items():
                label = name if len(problem.calls) == 1 else f"call {number}: {name}"
                pair = ours.results[number][name], reference.results[number][name]
                _compare_array(result, label, *pair, array)


@functools.lru_cache(maxsize=4096)
def _prepared(case: Case) -> tuple[Problem, list[Sampled]]:
    """The arrays of a case and the candidates that enter it."""
    problem = candidates.with_own_candidates(case, make_problem(case))
    if case.expect == "error":
        return problem, []
    return problem, candidates.entering(case, problem)


@functools.lru_cache(maxsize=4096)
def _reference(case: Case, device: str) -> modes.Outcome:
    """TensorFlow's side.

    What TensorFlow refuses ("beyond") it is given in a form that it takes: its own
    candidates handed over, everything in float32 (or float64 where that is asked).
    """
    del device  # part of the key: what TensorFlow computes depends on it
    problem, entering = _prepared(case)
    if case.expect == "beyond":
        dtype = "float64" if case.dtype == "float64" else "float32"
        problem = _promoted(problem, entering, dtype)
        case = case.replace(dtype=dtype, weight_dtype=None, seed=None)
    case = case.replace(mode=case.reference_mode)
    return modes.run(case, problem, loss_body(subject_of(tf), case, problem))


def _promoted(problem: Problem, entering: list[Sampled], dtype: str) -> Problem:
    to = numpy_dtype(dtype)

    def tables(arrays: list[np.ndarray]) -> list[np.ndarray]:
        return [array.astype(to) for array in arrays]

    calls = [
        dataclasses.replace(
            call,
            inputs=call.inputs.astype(to),
            upstream=call.upstream.astype(to),
            direction=call.direction.astype(to),
            sampled=sampled.astype(dtype),
        )
        for call, sampled in zip(problem.calls, entering, strict=True)
    ]
    return Problem(
        tables(problem.weights),
        tables(problem.biases),
        tables(problem.weight_directions),
        tables(problem.bias_directions),
        calls,
    )


def _compare_facts(result: Result, ours: Any, reference: Any) -> None:
    """dtypes, static shapes, name scopes."""
    case = result.case

    def compare(what: str, mine: Any, theirs: Any) -> None:
        if mine != theirs:
            result.differences.append(f"{what} {mine}, TensorFlow {theirs}")

    for name, dtype in reference.dtypes.items():
        if name.startswith("second "):
            continue
        if case.expect == "beyond":
            dtype = case.dtype
        compare(f"dtype of {name}", ours.dtypes.get(name), dtype)
    compare("static shape", ours.static.get("loss"), reference.static.get("loss"))
    compare("name scopes", ours.scopes, reference.scopes)


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"


def _kind(gradient: Any) -> str:
    if gradient is None:
        return "None"
    return "IndexedSlices" if isinstance(gradient, tuple) else "dense"


def _compare_array(
    result: Result, label: str, ours: Any, reference: Any, array: truth.Array
) -> None:
    """One array of one call: kind, rows, shape, value."""
    kinds = _kind(ours), _kind(reference)
    if kinds[0] != kinds[1] and "second " not in label:
        result.differences.append(f"{label} is {kinds[0]}, TensorFlow {kinds[1]}")
        return
    if ours is None or reference is None:
        if ours is not reference:
            result.differences.append(f"{label} is {kinds[0]}, TensorFlow {kinds[1]}")
        return
    # Under XLA a shard's gradient has as many rows as there are ids, zeros among them.
    padded = result.case.mode == JIT and result.case.weight_shards > 1
    slices = kinds == ("IndexedSlices", "IndexedSlices") and "second " not in label
    if slices and not padded:
        mine, theirs = np.sort(ours[0]), np.sort(reference[0])
        if not np.array_equal(mine, theirs):
            result.differences.append(f"{label} has rows {mine}, TensorFlow {theirs}")
    dense = _densified(ours, array), _densified(reference, array)
    for who, value in zip(("", "TensorFlow's "), dense, strict=True):
        if value.shape != array.value.shape:
            result.differences.append(
                f"{who}{label} has shape {value.shape}, expected {array.value.shape}"
            )
            return
    dtype = ours[1].dtype if isinstance(ours, tuple) else ours.dtype
    reference_dtype = reference[1] if isinstance(reference, tuple) else reference
    result.verdicts.append(
        budget.judge(
            label,
            *dense,
            array,
            dtype,
            reference_dtype.dtype,
            numpy_dtype(result.case.dtype),
        )
    )
    size = abs(dense[1].astype(np.float64)).max(initial=0)
    if size and np.isfinite(size):
        apart = abs(dense[0].astype(np.float64) - dense[1].astype(np.float64)).max()
        result.relative = max(result.relative, float(apart / size))


def _densified(gradient: Any, array: truth.Array) -> np.ndarray:
    """Slices added up in the truth's dtype, so that no rounding is added here."""
    if not isinstance(gradient, tuple):
        return gradient
    indices, values, shape = gradient
    rows = array.value.shape if shape is None else tuple(int(size) for size in shape)
    dense = np.zeros(rows, array.value.dtype)
    np.add.at(dense, indices, values.astype(array.value.dtype))
    return dense
