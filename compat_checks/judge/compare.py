"""Compares everything about two results that is not an error in ulps."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from compat_checks.cases.case import JIT, Case
from compat_checks.run.modes import Outcome

COUNT_ULPS = 2
SAMPLER_RESULTS = ("ids", "true_expected_count", "sampled_expected_count")


def static_facts(case: Case, actual: Outcome, expected: Outcome) -> list[str]:
    """Returns differences of dtypes, static shapes and name scopes."""
    facts: dict[str, tuple[Any, Any]] = {
        f"dtype of {name}": (
            actual.dtypes.get(name),
            case.dtype if case.expect == "extension" else dtype,
        )
        for name, dtype in expected.dtypes.items()
        if not name.startswith("second ")
    }
    shapes = [outcome.static_shapes.get("loss") for outcome in (actual, expected)]
    facts["static shape"] = (shapes[0], shapes[1])
    facts["name scopes"] = (actual.name_scopes, expected.name_scopes)
    return [
        f"{fact} {value}, TensorFlow {reference}"
        for fact, (value, reference) in facts.items()
        if value != reference
    ]


def structure(
    case: Case, label: str, actual: Any, expected: Any, shape: tuple[int, ...]
) -> list[str]:
    """Returns differences of type, rows and shape of one result.

    Args:
        case: The case.
        label: Names the result.
        actual: An array, `(indices, values, dense shape)` of IndexedSlices, or None.
        expected: The same from TensorFlow.
        shape: What both should have.
    """
    types = _type(actual), _type(expected)
    is_second = "second " in label  # TensorFlow's second derivatives may be dense
    if types[0] != types[1] and not (is_second and "None" not in types):
        return [f"{label} is {types[0]}, TensorFlow {types[1]}"]
    if actual is None:
        return []
    # Under XLA a shard's gradient has as many rows as there are ids, zeros among them.
    padded = case.mode == JIT and case.weight_shards > 1
    if types == ("IndexedSlices", "IndexedSlices") and not (is_second or padded):
        rows, expected_rows = np.sort(actual[0]), np.sort(expected[0])
        if not np.array_equal(rows, expected_rows):
            return [f"{label} has rows {rows}, TensorFlow {expected_rows}"]
    shapes = {"": _shape(actual), "TensorFlow's ": _shape(expected)}
    return [
        f"{owner}{label} has shape {received}, expected {shape}"
        for owner, received in shapes.items()
        if received not in (None, shape)
    ]


def _shape(result: Any) -> tuple[int, ...] | None:
    """Returns the shape of an array; None for IndexedSlices that do not say it."""
    if not isinstance(result, tuple):
        return result.shape
    return None if result[2] is None else tuple(result[2])


def _type(result: Any) -> str:
    if result is None:
        return "None"
    return "IndexedSlices" if isinstance(result, tuple) else "dense"


def densify(result: Any, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Adds up the rows of IndexedSlices in `dtype`, which adds no rounding error."""
    if not isinstance(result, tuple):
        return result
    indices, values, _ = result
    dense = np.zeros(shape, dtype)
    np.add.at(dense, indices, values.astype(dtype))
    return dense


def relative_difference(actual: np.ndarray, expected: np.ndarray) -> float:
    """Returns the largest difference, relative to the largest expected value."""
    actual, expected = actual.astype(np.float64), expected.astype(np.float64)
    largest = np.max(abs(expected), initial=0)
    if not largest or not np.isfinite(largest):
        return 0.0
    difference = float(abs(actual - expected).max() / largest)
    return math.inf if math.isnan(difference) else difference


def draws(
    actual: list[list[np.ndarray]], expected: list[list[np.ndarray]]
) -> list[str]:
    """Returns ids that differ at all, and counts that differ by over COUNT_ULPS."""
    differences = []
    for call, results in enumerate(zip(actual, expected, strict=True)):
        for name, a, b in zip(SAMPLER_RESULTS, *results, strict=True):
            label = f"call {call}: {name}"
            if (a.dtype, a.shape) != (b.dtype, b.shape):
                differences.append(
                    f"{label} is {a.dtype}{a.shape}, TensorFlow {b.dtype}{b.shape}"
                )
            elif name == "ids" and not np.array_equal(a, b):
                differences.append(f"{label}: {np.sum(a != b)} of {a.size} differ")
            elif name != "ids" and _max_ulps(a, b) > COUNT_ULPS:
                differences.append(f"{label} differs by {_max_ulps(a, b)} ulp")
    return differences


def _max_ulps(a: np.ndarray, b: np.ndarray) -> int:
    """Returns the largest distance of two float32 arrays that are not negative."""
    steps = [x.astype(np.float32).view(np.int32).astype(np.int64) for x in (a, b)]
    return int(np.max(abs(steps[0] - steps[1]), initial=0))
