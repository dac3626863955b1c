"""The only list of cases: the command and the tests both read CASES.

A family is a function that yields cases; a case's name is its family and the options
that set it apart. Another family is one more function in FAMILIES; a case of another
kind is checked by one more method in `check.Checker`.
"""

from __future__ import annotations

import itertools
import operator
from collections.abc import Iterator

import tensorflow as tf

from compat_checks.cases import families_calls as calls
from compat_checks.cases import families_edges as edges
from compat_checks.cases import families_samplers as drawn
from compat_checks.cases.case import Case
from compat_checks.cases.families_samplers import SAMPLERS
from compat_checks.cases.random_cases import random_case
from compat_checks.cases.variants import LOSSES

RANDOM_CASES = 120


def signatures() -> Iterator[Case]:
    """Every public path of tf that has one of the losses or samplers."""
    roots = ["", "compat.v1.", "compat.v2."]
    nested = [f"compat.{a}.compat.{b}." for a in ("v1", "v2") for b in ("v1", "v2")]
    samplers = [f"{sampler}_candidate_sampler" for sampler in SAMPLERS]
    names = [*LOSSES, *samplers, "compute_accidental_hits"]
    for root, room, name in itertools.product(roots + nested, ("nn", "random"), names):
        path = f"{root}{room}.{name}"
        try:
            operator.attrgetter(path)(tf)
        except AttributeError:
            continue
        yield Case(f"signatures/{path}", kind="signature", path=path)


def random() -> Iterator[Case]:
    """Configurations with all options drawn, by seed."""
    return (random_case(seed) for seed in range(RANDOM_CASES))


FAMILIES = (
    *(calls.basic, calls.shards, calls.holders, calls.sampled_values),
    *(calls.counts, calls.seeds, edges.traces, edges.labels, edges.edges),
    *(edges.second, edges.dtypes, edges.beyond, edges.errors, signatures),
    *(drawn.samplers, drawn.jit, random),
)
CASES: tuple[Case, ...] = tuple(case for family in FAMILIES for case in family())
BY_NAME: dict[str, Case] = {case.name: case for case in CASES}


def select(pattern: str | None) -> list[Case]:
    """Cases whose name contains `pattern`; all of them for None."""
    return [case for case in CASES if pattern is None or pattern in case.name]
