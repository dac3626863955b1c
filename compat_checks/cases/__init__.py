"""CASES: the only list of cases. The command and the tests both read it.

A family is a function that yields cases. The name of a case is "family/options". To add
a family, write one more function and list it in FAMILIES. A new kind of case also needs
a method of `compat_checks.judge.check.Checker`.
"""

from __future__ import annotations

import itertools
import operator
from collections.abc import Iterator

import tensorflow as tf

from compat_checks.cases import edge_cases, loss_calls, samplers, xla
from compat_checks.cases.case import Case
from compat_checks.cases.random_cases import random_case
from compat_checks.cases.variants import LOSSES

NUM_RANDOM_CASES = 120


def signatures() -> Iterator[Case]:
    """Yields every public path of `tf` that leads to one of the mirrored functions."""
    roots = ["", "compat.v1.", "compat.v2."]
    nested = [f"compat.{a}.compat.{b}." for a in ("v1", "v2") for b in ("v1", "v2")]
    names = [f"{sampler}_candidate_sampler" for sampler in samplers.SAMPLERS]
    names += [*LOSSES, "compute_accidental_hits"]
    for root, module, name in itertools.product(
        roots + nested, ("nn", "random"), names
    ):
        path = f"{root}{module}.{name}"
        try:
            operator.attrgetter(path)(tf)
        except AttributeError:
            continue
        yield Case(f"signatures/{path}", kind="signature", path=path)


def random() -> Iterator[Case]:
    """Yields cases whose options are drawn from a seed."""
    return (random_case(seed) for seed in range(NUM_RANDOM_CASES))


FAMILIES = (
    loss_calls.basic,
    loss_calls.shards,
    loss_calls.table_types,
    loss_calls.sampled_values,
    loss_calls.counts,
    loss_calls.seeds,
    edge_cases.traces,
    edge_cases.labels,
    edge_cases.edges,
    edge_cases.second_order,
    edge_cases.dtypes,
    edge_cases.extensions,
    edge_cases.large,
    edge_cases.errors,
    signatures,
    samplers.samplers,
    xla.jit,
    random,
)
CASES: tuple[Case, ...] = tuple(case for family in FAMILIES for case in family())
BY_NAME: dict[str, Case] = {case.name: case for case in CASES}


def select(text: str | None) -> list[Case]:
    """Returns the cases whose name contains `text`, or all of them if it is None."""
    return [case for case in CASES if text is None or text in case.name]
