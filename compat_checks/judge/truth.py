"""The losses and their derivatives in float64 NumPy, from the formulas.

Each example b has J = T + S columns: its T labels, then the S candidates. With class
`j` in column `j`,

    logit_bj = <x_b, W_j> + b_j - log(expected count of j)
    softmax:   loss_b = log(sum_j exp(logit_bj)) - sum_labels logit_bj / T
    NCE:       loss_b = sum_j softplus(logit_bj) - sum_labels logit_bj / T

Accidental hits are left out: candidates that are labels of the example (if a class was
sampled twice, then only its last copy). With p the softmax or the sigmoid of the
logits, and z = 1/T for labels and 0 for candidates,

    dloss_b/dlogit_bj = p_bj - z_bj

Second derivatives are the derivatives of the gradients along a direction d, by the
complex step: f'(x) d = imag(f(x + i h d)) / h. Nothing is subtracted, so with h = 1e-60
they are exact to the last digit.

    labels  = [[3, 1]]    ids = [1, 4, 1]    num_true = 2
    classes = [[3, 1, 1, 4, 1]]              what is in each column
    used    = [[T, T, T, T, F]]              the last copy of 1 is an accidental hit
    z       = [[.5, .5, 0, 0, 0]]

The scale of an array (see `budget`) is the sum of the absolute values that are added up
in each element, times how much the element changes with them.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import numpy as np

from compat_checks.cases.case import Case
from compat_checks.run.problem import Call, Problem, SampledValues, split_shards

STEP = 1e-60


@dataclasses.dataclass(frozen=True)
class Array:
    """One array of the truth.

    Attributes:
        value: What is right.
        scale: The natural scale of its rounding errors, of the same shape.
        rounded: The sum of the absolute values that are rounded to the dtype of the
            result; for tables these are the rows of IndexedSlices.
        rounded_factors: The same for values that are rounded earlier if matrix products
            have bfloat16 factors: logits, gradients by logits, gradients of inputs.
    """

    value: np.ndarray
    scale: np.ndarray
    rounded: np.ndarray
    rounded_factors: np.ndarray


class Params(NamedTuple):
    """What the loss is differentiated by, or something of the same shapes.

    Attributes:
        inputs: `[B, D]`.
        weights: `[rows, D]`.
        biases: `[rows]`.
    """

    inputs: np.ndarray
    weights: np.ndarray
    biases: np.ndarray


def compute_truth(
    case: Case, problem: Problem, call: Call, candidates: SampledValues
) -> dict[str, Array]:
    """Computes every array of one call of a loss.

    Args:
        case: Which loss, how many shards.
        problem: The tables.
        call: `labels` `[L, T]` and `inputs` `[I, D]`; L and I are B or 1.
        candidates: The candidates that TensorFlow drew.

    Returns:
        "loss", "inputs", "weights[0]", ..., "biases[0]", ... (gradients, one for each
        shard), and "second inputs", ... if the case compares second derivatives.
    """
    loss = _Loss(case, call, candidates)
    scales = _Scales(loss, loss.params(problem.weights, problem.biases, call.inputs))
    arrays = {"loss": scales.loss()}
    arrays |= _split(case, call, "", scales.gradients())
    if case.second_order:
        direction = loss.params(
            problem.weight_direction, problem.bias_direction, call.direction
        )
        arrays |= _split(case, call, "second ", scales.second(direction))
    return arrays


def accidental_hits(labels: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """Marks candidates that are labels of the example, of copies only the last.

    Args:
        labels: `[L, T]`.
        ids: `[S]`.

    Returns:
        Booleans `[L, S]`.
    """
    # labels = [[3, 1]], ids = [1, 4, 1] -> [[False, False, True]]
    is_last = np.array([drawn not in ids[i + 1 :] for i, drawn in enumerate(ids)], bool)
    return (labels[:, :, None] == ids).any(axis=1) & is_last


class _Loss:
    """The formulas. Logits may be complex."""

    def __init__(self, case: Case, call: Call, candidates: SampledValues):
        # For float64 results the truth has to be wider than float64.
        is_float64 = call.inputs.dtype == np.float64
        self.dtype = np.dtype(np.longdouble if is_float64 else np.float64)
        self.is_nce = case.is_nce
        self.batch_size = len(call.upstream)
        self.upstream = call.upstream.astype(self.dtype)[:, None]

        labels = call.labels.astype(np.int64)
        hits = accidental_hits(labels, candidates.ids)
        if not case.effective_remove_hits:
            hits[:] = False
        counts = candidates.astype(self.dtype)
        num_true, num_sampled = labels.shape[1], len(candidates.ids)

        def columns(of_labels: np.ndarray, of_candidates: np.ndarray) -> np.ndarray:
            """Returns `[B, T + S]`; the arguments broadcast to `[B, T]`, `[B, S]`."""
            return np.concatenate(
                [
                    np.broadcast_to(of_labels, (self.batch_size, num_true)),
                    np.broadcast_to(of_candidates, (self.batch_size, num_sampled)),
                ],
                axis=1,
            )

        one, zero = np.ones((), self.dtype), np.zeros((), self.dtype)
        self.classes = columns(labels, candidates.ids)
        self.is_candidate = columns(np.array(False), np.array(True))
        self.used = columns(np.array(True), ~hits)
        self.z = columns(one / num_true, zero)
        self.log_counts = columns(
            np.log(counts.true_count), np.log(counts.sampled_count)
        )

    def params(
        self, weights: np.ndarray, biases: np.ndarray, inputs: np.ndarray
    ) -> Params:
        """Returns the arrays in the truth's dtype, `inputs` broadcast to the batch."""
        inputs = np.broadcast_to(inputs, (self.batch_size, inputs.shape[1]))
        return Params(*(x.astype(self.dtype) for x in (inputs, weights, biases)))

    def products(self, params: Params) -> np.ndarray:
        """Returns `<x_b, W_j>`, `[B, J]`."""
        return np.einsum("bd,bjd->bj", params.inputs, params.weights[self.classes])

    def logits(self, params: Params) -> np.ndarray:
        return self.products(params) + params.biases[self.classes] - self.log_counts

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        """Returns the softmax or the sigmoid of the logits, 0 for accidental hits."""
        if self.is_nce:
            positive = logits.real > 0
            exp = np.exp(np.where(positive, -logits, logits))  # never overflows
            return np.where(self.used, np.where(positive, 1, exp) / (1 + exp), 0)
        largest = np.where(self.used, logits.real, -np.inf).max(1, keepdims=True)
        exp = np.exp(np.where(self.used, logits - largest, -np.inf))
        return exp / exp.sum(1, keepdims=True)

    def terms(self, logits: np.ndarray) -> np.ndarray:
        """Returns the summands of the loss, `[B, J]`."""
        if self.is_nce:
            softplus = np.maximum(logits, 0) + np.log1p(np.exp(-abs(logits)))
            return np.where(self.used, softplus - self.z * logits, 0)
        largest = np.where(self.used, logits, -np.inf).max(1, keepdims=True)
        sum_exp = np.where(self.used, np.exp(logits - largest), 0).sum(1, keepdims=True)
        return self.z * (np.log(sum_exp) + largest - logits)

    def gradients(self, params: Params) -> Params:
        d_logits = self.probabilities(self.logits(params)) - self.z
        return self.backpropagate(self.upstream * d_logits, params)

    def backpropagate(self, d_logits: np.ndarray, params: Params) -> Params:
        """Returns the gradients of the parameters from that of the logits, `[B, J]`."""
        d_weights = np.zeros(params.weights.shape, d_logits.dtype)
        d_biases = np.zeros(params.biases.shape, d_logits.dtype)
        d_rows = d_logits[:, :, None] * params.inputs[:, None, :]
        np.add.at(d_weights, self.classes, d_rows)
        np.add.at(d_biases, self.classes, d_logits)
        rows = params.weights[self.classes]
        return Params(np.einsum("bj,bjd->bd", d_logits, rows), d_weights, d_biases)


class _Scales:
    """The arrays of a call: values, their scales, and what is rounded on the way."""

    def __init__(self, loss: _Loss, params: Params):
        self.formulas, self.params = loss, params
        self.abs_params = Params(*map(abs, params))
        self.abs_upstream = abs(loss.upstream)
        logits = loss.logits(params)
        self.terms = loss.terms(logits)
        self.p = loss.probabilities(logits)
        # The scale of each logit: the absolute values that are added up in it.
        scale = loss.products(self.abs_params) + self.abs_params.biases[loss.classes]
        self.logit_scale = np.where(loss.used, scale + abs(loss.log_counts), 0)
        # How much each p changes, relative to itself, if logits change by their scale.
        self.p_scale = 1 + self._relative_change(self.logit_scale)
        self.d_logit_scale = self.p * self.p_scale + loss.z
        # Products of bfloat16 factors, which are rounded to bfloat16. The labels'
        # logits are computed one by one and are not.
        rounded = loss.used & loss.is_candidate
        self.rounded_products = np.where(rounded, abs(loss.products(params)), 0)

    def _relative_change(self, logit_change: np.ndarray) -> np.ndarray:
        """Returns `|dp_j| / p_j` for changes of the logits, added up over columns."""
        p = self.p
        if self.formulas.is_nce:
            return (1 - p) * logit_change
        # d log p_j / d logit_k is 1 - p_j = sum_(k != j) p_k for k = j, else -p_k.
        others = 1 - np.eye(p.shape[1])
        return (p @ others) * logit_change + (p * logit_change) @ others

    def loss(self) -> Array:
        value = self.terms.sum(1)
        scale = (abs(self.p - self.formulas.z) * self.logit_scale).sum(1)
        scale = scale + abs(self.terms).sum(1)
        if not self.formulas.is_nce:
            scale = scale + 1  # the logarithm of the sum of exponentials
        return Array(value, scale, abs(value), (self.p * self.rounded_products).sum(1))

    def gradients(self) -> list[Params]:
        """Returns value, scale, `rounded` and `rounded_factors` of the gradients."""
        value = self.formulas.gradients(self.params)
        d_logits = abs(self.p - self.formulas.z)
        rounded = self._backpropagate(d_logits)._replace(inputs=abs(value.inputs))
        change = self.p * self.rounded_products
        if self.formulas.is_nce:
            change = change * (1 - self.p)
        else:
            change = change + self.p * change.sum(1, keepdims=True)
        return [
            value,
            self._backpropagate(self.d_logit_scale),
            rounded,
            self._backpropagate(change + 2 * d_logits),
        ]

    def second(self, direction: Params) -> list[Params]:
        """Returns the same of the derivatives of the gradients along `direction`."""
        moved = Params(
            *(x + 1j * STEP * d for x, d in zip(self.params, direction, strict=True))
        )
        value = Params(*(x.imag / STEP for x in self.formulas.gradients(moved)))
        p, params, direction = self.p, self.abs_params, Params(*map(abs, direction))
        d_logits = (
            self.formulas.products(params._replace(inputs=direction.inputs))
            + self.formulas.products(params._replace(weights=direction.weights))
            + direction.biases[self.formulas.classes]
        )
        d_logits = np.where(self.formulas.used, d_logits, 0)
        d_p = p * self.p_scale * (d_logits + (p * d_logits).sum(1, keepdims=True))
        d_p = d_p + p * (p * d_logits * self.p_scale).sum(1, keepdims=True)
        # (p - z) * row has two derivatives: one of p, one of the row.
        by_p = self._backpropagate(d_p)
        by_row = self._backpropagate(self.d_logit_scale, direction)
        scale = Params(
            by_p.inputs + by_row.inputs, by_p.weights + by_row.weights, by_p.biases
        )
        zeros = Params(*map(np.zeros_like, scale))
        return [value, scale, Params(*map(abs, value)), zeros]

    def _backpropagate(
        self, d_logits: np.ndarray, params: Params | None = None
    ) -> Params:
        """Adds up absolute values: of `params`, or of the call's own parameters."""
        params = self.abs_params if params is None else params
        return self.formulas.backpropagate(self.abs_upstream * d_logits, params)


def _split(
    case: Case, call: Call, prefix: str, parts: list[Params]
) -> dict[str, Array]:
    """Makes an `Array` of each parameter and shard from its four parts."""
    inputs = [part.inputs for part in parts]
    if len(call.inputs) != len(call.upstream):  # one row was broadcast
        inputs = [part.sum(0, keepdims=True) for part in inputs]
    arrays = {f"{prefix}inputs": Array(*inputs)}
    shards = {"weights": case.weight_shards, "biases": case.bias_shards}
    strategy = case.effective_partition_strategy
    for name, num_shards in shards.items():
        split = [split_shards(getattr(p, name), num_shards, strategy) for p in parts]
        for index, shard in enumerate(zip(*split, strict=True)):
            arrays[f"{prefix}{name}[{index}]"] = Array(*shard)
    return arrays
