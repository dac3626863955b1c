"""The cases of compat_checks, one test each, and more of them drawn."""

import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tfsampled
from compat_checks.cases import BY_NAME, CASES, FAMILIES, select
from compat_checks.cases.random_cases import random_case
from compat_checks.judge.check import Checker, subject_of

CHECKER = Checker(subject_of(tfsampled))
QUICK = ("errors", "signatures")
EVERY = 10


def parameters():
    """About each tenth case in the default run, with whole families that are quick."""
    for case in CASES:
        default = case.family in QUICK or zlib.crc32(case.name.encode()) % EVERY == 0
        marks = () if default else pytest.mark.slow
        yield pytest.param(case, id=case.name, marks=marks)


@pytest.mark.parametrize("case", list(parameters()))
def test_equal(case):
    result = CHECKER.check(case)
    assert result.passed, "\n".join(result.reasons())


@settings(max_examples=10, deadline=None, derandomize=True, database=None)
@given(st.integers(1000, 2**31))
def test_random_configurations(seed):
    case = random_case(seed)
    result = CHECKER.check(case)
    assert result.passed, "\n".join([repr(case), *result.reasons()])


@pytest.mark.slow
def test_120_random_configurations_within_2e_5_of_tensorflow():
    cases = select("random/")
    assert len(cases) == 120
    assert max(CHECKER.check(case).relative for case in cases) <= 2e-5


def test_the_list_is_one_of_hundreds_with_names_of_their_own():
    assert len(CASES) == len(BY_NAME) >= 800
    assert len({case.family for case in CASES}) == len(FAMILIES)


def test_a_case_repeats_itself_and_no_other():
    first, second, other = (
        [verdict.ours_max for verdict in CHECKER.check(BY_NAME[name]).verdicts]
        for name in ("random/0", "random/0", "random/1")
    )
    assert first == second != other
