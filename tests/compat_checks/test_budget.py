"""The rule: another order of summation passes, tens of ulp and NaN do not."""

import ml_dtypes
import numpy as np
import pytest

from compat_checks.judge import budget
from compat_checks.judge.truth import Array

EPS = float(np.finfo(np.float32).eps)
FLOAT32 = np.dtype(np.float32)


def sums(seed=0, rows=8, terms=200):
    """Terms [rows, terms] of both signs and the truth of their sums."""
    terms = np.random.default_rng(seed).normal(size=(rows, terms)).astype(np.float32)
    exact = terms.astype(np.float64)
    return terms, Array(
        exact.sum(1), abs(exact).sum(1), abs(exact.sum(1)), np.zeros(len(exact))
    )


def judge(actual, reference, truth, dtype=FLOAT32):
    args = (np.asarray(actual), np.asarray(reference), truth, dtype, FLOAT32, dtype)
    return budget.judge("sum", *args)


@pytest.mark.parametrize("seed", range(10))
def test_sums_in_another_order_pass(seed):
    terms, truth = sums(seed)
    one_by_one = np.cumsum(terms[:, ::-1], axis=1, dtype=np.float32)[:, -1]
    assert judge(one_by_one, terms.sum(1), truth).passed


@pytest.mark.parametrize("ulps", [10, 30, -30])
def test_tens_of_ulp_fail(ulps):
    terms, truth = sums()
    wrong = terms.sum(1).astype(np.float64)
    wrong[3] += ulps * EPS * truth.scale[3]
    assert not judge(wrong, terms.sum(1), truth).passed


def test_a_small_error_everywhere_fails_by_its_rms():
    terms, truth = sums()
    wrong = terms.sum(1) + 2 * EPS * truth.scale
    verdict = judge(wrong, terms.sum(1), truth)
    assert verdict.actual_max <= verdict.allowed_max
    assert not verdict.passed


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_not_finite_fails_even_where_tensorflow_is_not_finite(bad):
    terms, truth = sums()
    wrong = terms.sum(1)
    wrong[0] = bad
    assert not judge(wrong, terms.sum(1), truth).passed
    assert not judge(wrong, wrong, truth).passed
    assert judge(terms.sum(1), wrong, truth).passed


def test_nothing_is_proved_where_tensorflow_is_far_from_the_truth():
    terms, truth = sums()
    other = terms.sum(1) + 100 * EPS * truth.scale
    assert not judge(other, other, truth).passed


def test_an_element_that_nothing_enters_has_to_be_zero():
    truth = Array(*[np.zeros(3)] * 4)
    assert judge(np.zeros(3), np.zeros(3), truth).passed
    assert not judge([0, 1e-30, 0], np.zeros(3), truth).passed


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_half_results_may_be_rounded_but_no_more(dtype):
    value = np.linspace(1.0, 2.0, 50)
    truth = Array(value, value, value, np.zeros_like(value))
    rounded = value.astype(dtype)
    off = rounded + 2 * ml_dtypes.finfo(dtype).eps
    reference = value.astype(np.float32)
    assert judge(rounded, reference, truth, np.dtype(dtype)).passed
    assert not judge(off, reference, truth, np.dtype(dtype)).passed


def test_products_of_bfloat16_are_rounded_before_as_well():
    value = np.linspace(1.0, 2.0, 50)
    reference = value.astype(np.float32)
    off = (value + 2 * ml_dtypes.finfo(ml_dtypes.bfloat16).eps).astype(np.float32)
    for narrow, passes in ((0.0, False), (2.0, True)):
        truth = Array(value, value, value, np.full(50, narrow))
        bfloat16 = judge(off, reference, truth, np.dtype(ml_dtypes.bfloat16))
        assert bfloat16.passed == passes
        assert not judge(off, reference, truth, np.dtype(np.float32)).passed
