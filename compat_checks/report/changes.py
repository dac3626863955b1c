"""What changed from one record to another: `python -m compat_checks compare`."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

TOLERANCE = 1.0
MAX_CHANGES = 20  # printed


@dataclasses.dataclass(frozen=True)
class Change:
    """A case or one of its arrays that is not what it was.

    Attributes:
        device: The device.
        case: The name of the case.
        description: What changed, in words.
        worse: Whether it is a step back.
        ulps: By how much tfsampled's largest error grew; None for a whole case.
        tensorflow: TensorFlow's largest error before and after.
    """

    device: str
    case: str
    description: str
    worse: bool
    ulps: float | None = None
    tensorflow: tuple[float, float] | None = None


def changes(
    old: dict[str, Any], new: dict[str, Any], tolerance: float = TOLERANCE
) -> list[Change]:
    """Lists what changed: what is worse first. New cases that pass are no change.

    Args:
        old: A record, see `record.as_dict`.
        new: A later one.
        tolerance: By how many ulp an error may grow without being worse.
    """
    before, after = _cases(old), _cases(new)
    found = [
        change
        for key, case in before.items()
        for change in _changes_of_case(key, case, after.get(key), tolerance)
    ]
    found += [
        Change(*key, f"is new and fails: {case['reasons'][0]}", worse=True)
        for key, case in after.items()
        if key not in before and not case["passed"]
    ]
    # Whole cases first, then the arrays that grew most.
    return sorted(
        found, key=lambda c: (not c.worse, c.ulps is not None, -(c.ulps or 0))
    )


def _cases(record: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    return {
        (run["device"], case["name"]): case
        for run in record["runs"]
        for case in run["cases"]
    }


def _changes_of_case(
    key: tuple[str, str],
    old: dict[str, Any],
    new: dict[str, Any] | None,
    tolerance: float,
) -> Iterator[Change]:
    if new is None:
        yield Change(*key, "is no longer checked", worse=True)
    elif old["passed"] and not new["passed"]:
        yield Change(*key, f"no longer passes: {new['reasons'][0]}", worse=True)
    elif new["passed"] and not old["passed"]:
        yield Change(*key, "passes now", worse=False)
    else:
        after = {array["array"]: array for array in new["arrays"]}
        for array in old["arrays"]:
            name = array["array"]
            if name not in after:
                yield Change(*key, f"{name} is no longer checked", worse=True)
                continue
            (before, now), tensorflow = (
                (_error(array[library]), _error(after[name][library]))
                for library in ("tfsampled", "tensorflow")
            )
            if before != now:
                text = f"{name}: {before:.3g} → {now:.3g} ulp"
                grown = now - before
                yield Change(*key, text, grown > tolerance, grown, tensorflow)


def _error(value: float | None) -> float:
    """Returns the error; a record has None for infinity."""
    return math.inf if value is None else value


def show(console: Console, found: list[Change]) -> None:
    """Prints the first changes as a table, and how many there are."""
    table = Table(caption="the largest error of each array, before and after")
    for heading in ("device", "case", "tfsampled", "grown by", "TensorFlow"):
        table.add_column(heading)
    for change in found[:MAX_CHANGES]:
        grown = "" if change.ulps is None else f"{change.ulps:+.3g}"
        theirs = change.tensorflow
        table.add_row(
            *map(escape, (change.device, change.case, change.description)),
            grown,
            "" if theirs is None else f"{theirs[0]:.3g} → {theirs[1]:.3g}",
        )
    if found:
        console.print(table)
    if len(found) > MAX_CHANGES:
        console.print(f"... and {len(found) - MAX_CHANGES} more")
    worse = sum(change.worse for change in found)
    console.print(f"{len(found)} changes, {worse} of them for the worse")
