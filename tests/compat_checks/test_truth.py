"""The truth itself, against sums by hand and against differences."""

from typing import Any

import numpy as np
import pytest

from compat_checks.cases.case import Case
from compat_checks.judge.truth import accidental_hits, compute_truth
from compat_checks.run.candidates import add_sampled_values, candidates_of_calls
from compat_checks.run.problem import make_problem


def test_the_last_copy_is_an_accidental_hit():
    hits = accidental_hits(np.array([[3, 1], [2, 2]]), np.array([1, 3, 1, 5, 2]))
    assert hits.tolist() == [
        [False, True, True, False, False],
        [False, False, False, False, True],
    ]


def evaluate(case, moved=None, size=0.0):
    """Computes the truth with one array moved by `size` times its direction."""
    case = case.replace(dtype="float64")
    problem = add_sampled_values(case, make_problem(case))
    call = problem.calls[0]
    candidates = candidates_of_calls(case, problem)[0]
    if moved == "inputs":
        call.inputs[:] += size * call.direction
    if moved == "weights":
        problem.weights[:] += size * problem.weight_direction
    if moved == "biases":
        problem.biases[:] += size * problem.bias_direction
    return compute_truth(case, problem, call, candidates), problem


CASES = [
    Case(
        f"truth/{loss} {hits}",
        path=f"nn.{loss}",
        sampler="numpy",
        num_true=2,
        remove_hits=hits,
        second_order=True,
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
    rise = upstream @ (high["loss"].value - low["loss"].value)
    name = source if source == "inputs" else f"{source}[0]"
    directions = {
        "inputs": problem.calls[0].direction,
        "weights": problem.weight_direction,
        "biases": problem.bias_direction,
    }
    slope = (truth[name].value * directions[source]).sum()
    assert float(rise / (2 * size)) == pytest.approx(float(slope), rel=1e-7)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_second_derivatives_are_slopes_of_the_gradient(case):
    size = 1e-6
    names = ("inputs", "weights[0]", "biases[0]")
    total: dict[str, Any] = dict.fromkeys(names, 0.0)
    for source in ("inputs", "weights", "biases"):
        (high, _), (low, _) = (evaluate(case, source, s) for s in (size, -size))
        for name in names:
            rise = high[name].value - low[name].value
            total[name] = total[name] + rise / (2 * size)
    truth, _ = evaluate(case)
    for name in names:
        value = truth[f"second {name}"].value
        np.testing.assert_allclose(
            value.astype(float), total[name].astype(float), rtol=1e-6, atol=1e-8
        )


def test_masked_candidates_take_no_part():
    """With every candidate a hit, softmax over one label has no loss at all."""
    case = Case("truth/none left", sampler="numpy", num_sampled=1, labels="sampled")
    truth, _ = evaluate(case)
    assert np.array_equal(truth["loss"].value, np.zeros(6))
    assert not truth["weights[0]"].value.any()
