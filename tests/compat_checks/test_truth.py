"""The truth itself, against sums by hand and against differences."""

from typing import Any

import numpy as np
import pytest

from compat_checks.cases.case import Case
from compat_checks.judge.truth import Setting, Table, Truth, last_copies_that_hit
from compat_checks.run.problem import make_problem, split


@pytest.mark.parametrize("strategy", ["mod", "div"])
@pytest.mark.parametrize("shards", range(1, 7))
def test_a_class_is_found_where_it_was_put(strategy, shards):
    ids = np.arange(23)
    parts = split(ids, shards, strategy)
    assert np.array_equal(np.concatenate(parts)[Table(parts, strategy).place(ids)], ids)


def test_of_several_copies_the_last_one_is_masked():
    hits = last_copies_that_hit(np.array([[3, 1], [2, 2]]), np.array([1, 3, 1, 5, 2]))
    assert hits.tolist() == [
        [False, True, True, False, False],
        [False, False, False, False, True],
    ]


def evaluate(case, nudge=None, size=0.0):
    """The truth's arrays of a case; one array moved by size times its direction."""
    problem = make_problem(case.replace(dtype="float64"))
    call = problem.calls[0]
    if nudge == "inputs":
        call.inputs[:] += size * call.direction
    if nudge == "weights":
        problem.weights[0][:] += size * problem.weight_directions[0]
    if nudge == "biases":
        problem.biases[0][:] += size * problem.bias_directions[0]
    setting = Setting(case.nce, case.hits_removed, case.strategy)
    assert call.sampled is not None
    return Truth(problem, call, call.sampled, setting, True), problem


CASES = [
    Case(
        f"truth/{loss} {hits}",
        path=f"nn.{loss}",
        sampler="given",
        num_true=2,
        remove_hits=hits,
    )
    for loss in ("sampled_softmax_loss", "nce_loss")
    for hits in (True, False)
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
@pytest.mark.parametrize("source", ["inputs", "weights", "biases"])
def test_gradients_are_slopes_of_the_loss(case, source):
    size = 1e-6
    (high, _), (low, _) = (evaluate(case, source, s) for s in (size, -size))
    truth, problem = evaluate(case)
    upstream = problem.calls[0].upstream
    rise = upstream @ (high.arrays["loss"].value - low.arrays["loss"].value)
    name = source if source == "inputs" else f"{source}[0]"
    directions = {
        "inputs": problem.calls[0].direction,
        "weights": problem.weight_directions[0],
        "biases": problem.bias_directions[0],
    }
    slope = (truth.arrays[name].value * directions[source]).sum()
    assert float(rise / (2 * size)) == pytest.approx(float(slope), rel=1e-7)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_second_derivatives_are_slopes_of_the_gradient(case):
    size = 1e-6
    names = ("inputs", "weights[0]", "biases[0]")
    total: dict[str, Any] = dict.fromkeys(names, 0.0)
    for source in ("inputs", "weights", "biases"):
        (high, _), (low, _) = (evaluate(case, source, s) for s in (size, -size))
        for name in names:
            rise = high.arrays[name].value - low.arrays[name].value
            total[name] = total[name] + rise / (2 * size)
    truth, _ = evaluate(case)
    for name in names:
        value = truth.arrays[f"second {name}"].value
        np.testing.assert_allclose(
            value.astype(float), total[name].astype(float), rtol=1e-6, atol=1e-8
        )


def test_masked_candidates_take_no_part():
    """With every candidate a hit, softmax over one label has no loss at all."""
    case = Case("truth/none left", sampler="given", num_sampled=1, labels="sampled")
    truth, _ = evaluate(case)
    assert np.array_equal(truth.arrays["loss"].value, np.zeros(6))
    assert not truth.arrays["weights[0]"].value.any()
