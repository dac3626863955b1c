"""The cases of compat_checks: a part of them, and some drawn at random."""

import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tfsampled
from compat_checks.cases import BY_NAME, CASES, FAMILIES, select
from compat_checks.cases.random_cases import random_case
from compat_checks.judge.check import Checker, public_functions
from tests.compat_checks.test_mutations import MUTATIONS

QUICK = ("signatures",)
EVERY = 120


@pytest.fixture(scope="session")
def checker(request):
    device = request.config.getoption("device") or "CPU:0"
    return Checker(public_functions(tfsampled), device)


def parameters():
    """Yields all cases; the default run has those of the mutations, and a few more."""
    broken = {case for _, case in MUTATIONS.values()}
    for case in CASES:
        sampled = zlib.crc32(case.name.encode()) % EVERY == 0
        default = case.family in QUICK or case.name in broken or sampled
        marks = () if default else pytest.mark.slow
        yield pytest.param(case, id=case.name, marks=marks)


@pytest.mark.parametrize("case", list(parameters()))
def test_equal(case, checker):
    result = checker.check(case)
    assert result.passed, "\n".join(result.reasons())


@pytest.mark.slow
@settings(max_examples=settings().max_examples // 5)
@given(st.integers(1000, 2**31))
def test_random_configurations(checker, seed):
    case = random_case(seed)
    result = checker.check(case)
    assert result.passed, "\n".join([repr(case), *result.reasons()])


@pytest.mark.slow
def test_120_random_configurations_within_2e_5_of_tensorflow(checker):
    cases = select("random/")
    assert len(cases) == 120
    results = [checker.check(case) for case in cases]
    assert all(result.passed and result.verdicts for result in results)
    assert max(result.relative for result in results) <= 2e-5


def test_cases_have_unique_names():
    assert len(CASES) == len(BY_NAME) == 1261
    assert len({case.family for case in CASES}) == len(FAMILIES)


def test_a_case_is_deterministic(checker):
    first, second, other = (
        [verdict.actual_max for verdict in checker.check(BY_NAME[name]).verdicts]
        for name in ("random/0", "random/0", "random/1")
    )
    assert first == second != other
