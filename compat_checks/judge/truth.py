"""The losses and their derivatives in float64 NumPy, from the formulas.

With columns j = the T labels of an example, then the S sampled classes,

    l_bj    = <x_b, W_j> + b_j - log(expected count of j)
    softmax : loss_b = log sum_j exp(l_bj) - 1/T sum_labels l_bj
    nce     : loss_b = sum_j softplus(l_bj) - 1/T sum_labels l_bj

where a sampled column that hits a label of its row takes no part (of several copies
of that class the last one alone), and labels weigh z = 1/T. So dloss/dl = p - z with
p the softmax or the sigmoid. Second derivatives are those of the first along a
direction, by the complex step: exact to the last digits, no difference is formed.

Beside every array stands its `scale`: what the absolute values of all that enters
it add up to. `budget` counts errors in ulps of that.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np

from compat_checks.run.problem import Call, Problem, Sampled

STEP = 1e-60


@dataclasses.dataclass(frozen=True)
class Array:
    """One array of the truth.

    value and scale have one shape; `rounding` is the sum of the absolute values
    of the pieces that are rounded to the result's dtype (rows of an IndexedSlices),
    `narrow` that of what is rounded before, where bfloat16 numbers are multiplied:
    logits, their slopes and the inputs times their scales.
    """

    value: np.ndarray
    scale: np.ndarray
    rounding: np.ndarray
    narrow: np.ndarray


@dataclasses.dataclass(frozen=True)
class Setting:
    """What the formulas need beside the arrays."""

    nce: bool
    hits_removed: bool
    strategy: str


class Table:
    """Rows that live in shards: class id -> (shard, row), own implementation."""

    def __init__(self, shards: list[np.ndarray], strategy: str):
        self.sizes = [len(shard) for shard in shards]
        self.strategy = strategy
        self.starts = np.concatenate([[0], np.cumsum(self.sizes)])

    def place(self, ids: np.ndarray) -> np.ndarray:
        """Position of each class in the concatenation of the shards."""
        count = len(self.sizes)
        if self.strategy == "mod":
            return self.starts[ids % count] + ids // count
        total = int(self.starts[-1])
        short, longer = divmod(total, count)
        cut = longer * (short + 1)
        shard = np.where(
            ids < cut, ids // (short + 1), longer + (ids - cut) // max(short, 1)
        )
        first = np.where(ids < cut, shard * (short + 1), cut + (shard - longer) * short)
        return self.starts[shard] + ids - first

    def cut(self, rows: np.ndarray) -> list[np.ndarray]:
        return np.split(rows, self.starts[1:-1])


def last_copies_that_hit(labels: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """[L, S]: the class hits a label of the row and is its last copy among `ids`."""
    hit = np.zeros((len(labels), len(ids)), bool)
    last = {int(drawn): position for position, drawn in enumerate(ids)}
    for row, classes in enumerate(labels):
        for label in classes:
            if int(label) in last:
                hit[row, last[int(label)]] = True
    return hit


def wide(array: np.ndarray, high: bool) -> np.ndarray:
    """float64, or for float64 results the widest that NumPy has here."""
    return np.asarray(array).astype(np.longdouble if high else np.float64)


class Truth:
    """Every array of one call of a loss, with its scale.

    Args:
      problem: the tables, in shards.
      call: labels [L, T], inputs [I, D]; L and I are the batch B or 1.
      sampled: ids [S] and the counts that TensorFlow's sampler expects.
      setting: which loss, which layout.
      second: also second derivatives.
    """

    def __init__(
        self,
        problem: Problem,
        call: Call,
        sampled: Sampled,
        setting: Setting,
        second: bool,
    ):
        high = call.inputs.dtype == np.float64
        self.nce = setting.nce
        self.true_columns = call.labels.shape[1]
        self.sampled_columns = len(sampled.ids)
        self.batch = call.upstream.shape[0]
        self.weight_table = Table(problem.weights, setting.strategy)
        self.bias_table = Table(problem.biases, setting.strategy)
        self.shared_inputs = len(call.inputs) != self.batch
        self.upstream = wide(call.upstream, high)[:, None]

        labels = call.labels.astype(np.int64)
        columns = self._columns(labels, sampled.ids)
        self.weight_places = self.weight_table.place(columns)
        self.bias_places = self.bias_table.place(columns)
        hit = last_copies_that_hit(labels, sampled.ids) & setting.hits_removed
        never = np.zeros((self.batch, self.true_columns), bool)
        hit = np.broadcast_to(hit, (self.batch, self.sampled_columns))
        self.kept = ~np.concatenate([never, hit], 1)
        self.log_count = self._columns(
            np.log(wide(sampled.true_count, high)),
            np.log(wide(sampled.sampled_count, high)),
        )
        self.target = np.zeros(columns.shape)
        self.target[:, : self.true_columns] = 1 / wide(
            np.asarray(self.true_columns), high
        )

        def rows(shards: list[np.ndarray]) -> np.ndarray:
            return np.concatenate([wide(shard, high) for shard in shards])

        x = np.broadcast_to(wide(call.inputs, high), (self.batch, call.inputs.shape[1]))
        w, b = rows(problem.weights), rows(problem.biases)
        self.arrays: dict[str, Array] = {}
        self._first(x, w, b)
        if second:
            self._second(
                (x, w, b),
                (
                    np.broadcast_to(wide(call.direction, high), x.shape),
                    rows(problem.weight_directions),
                    rows(problem.bias_directions),
                ),
            )

    def _columns(self, true: np.ndarray, sampled: np.ndarray) -> np.ndarray:
        """[B, T + S] from what broadcasts to [B, T] and to [B, S]."""
        return np.concatenate(
            [
                np.broadcast_to(true, (self.batch, self.true_columns)),
                np.broadcast_to(sampled, (self.batch, self.sampled_columns)),
            ],
            1,
        )

    # Forward: logits, their probabilities, the loss.

    def _logits(self, x: np.ndarray, w: np.ndarray, b: np.ndarray) -> np.ndarray:
        dots = np.einsum("bd,bjd->bj", x, w[self.weight_places])
        return dots + b[self.bias_places] - self.log_count

    def _probabilities(self, logits: np.ndarray) -> np.ndarray:
        if self.nce:
            small = np.exp(np.where(logits.real > 0, -logits, logits))
            sigmoid = np.where(logits.real > 0, 1, small) / (1 + small)
            return np.where(self.kept, sigmoid, 0)
        top = np.where(self.kept, logits.real, -np.inf).max(1, keepdims=True)
        powers = np.exp(np.where(self.kept, logits - top, -np.inf))
        return powers / powers.sum(1, keepdims=True)

    def _terms(self, logits: np.ndarray) -> np.ndarray:
        """Columns whose sum is the loss."""
        if self.nce:
            z = self.target
            part = np.maximum(logits, 0) - logits * z + np.log1p(np.exp(-abs(logits)))
            return np.where(self.kept, part, 0)
        top = np.where(self.kept, logits, -np.inf).max(1, keepdims=True)
        rest = np.log(
            np.where(self.kept, np.exp(logits - top), 0).sum(1, keepdims=True)
        )
        return self.target * (rest + top - logits)

    # Backward: dloss/dlogits handed down to the tables and the inputs.

    def _hand_down(
        self, slope: np.ndarray, x: np.ndarray, w_rows: np.ndarray
    ) -> dict[str, np.ndarray]:
        """Slope [B, J] -> gradients of inputs and tables, whole."""
        weights = np.zeros((self.weight_table.starts[-1], x.shape[1]), slope.dtype)
        biases = np.zeros(self.bias_table.starts[-1], slope.dtype)
        np.add.at(weights, self.weight_places, slope[:, :, None] * x[:, None, :])
        np.add.at(biases, self.bias_places, slope)
        inputs = np.einsum("bj,bjd->bd", slope, w_rows)
        return {"inputs": inputs, "weights": weights, "biases": biases}

    def _gradients(
        self, x: np.ndarray, w: np.ndarray, b: np.ndarray
    ) -> dict[str, np.ndarray]:
        slope = self._probabilities(self._logits(x, w, b)) - self.target
        return self._hand_down(self.upstream * slope, x, w[self.weight_places])

    # The truth's arrays.

    def _first(self, x: np.ndarray, w: np.ndarray, b: np.ndarray) -> None:
        rows = w[self.weight_places]
        logits = self._logits(x, w, b)
        p = self._probabilities(logits)
        terms = self._terms(logits)
        size = np.einsum("bd,bjd->bj", abs(x), abs(rows))
        size = size + abs(b[self.bias_places]) + abs(self.log_count)
        self.size = np.where(self.kept, size, 0)
        self.p = p
        loss = terms.sum(1)
        entering = (abs(p - self.target) * self.size).sum(1) + abs(terms).sum(1)
        # The labels' logits are not rounded: only those of the matrix product.
        dots = abs(np.einsum("bd,bjd->bj", x, rows))
        dots = np.where(self.kept, dots, 0)
        dots[:, : self.true_columns] = 0
        self.arrays["loss"] = Array(
            loss, entering + (not self.nce), abs(loss), (p * dots).sum(1)
        )

        self.doubt = 1 + self._others(self.size)
        self.slope_scale = p * self.doubt + self.target
        up = abs(self.upstream)
        values = self._gradients(x, w, b)
        scales = self._hand_down(up * self.slope_scale, abs(x), abs(rows))
        slope = abs(p - self.target)
        pieces = self._hand_down(up * slope, abs(x), abs(rows))
        pieces["inputs"] = abs(values["inputs"])
        bend = (
            p * (1 - p) * dots if self.nce else p * (dots + (p * dots).sum(1)[:, None])
        )
        narrow = self._hand_down(up * (bend + 2 * slope), abs(x), abs(rows))
        self._keep("", values, scales, pieces, narrow)

    def _others(self, size: np.ndarray) -> np.ndarray:
        """How far a column's probability moves, relative, when logits move by size."""
        if self.nce:
            return (1 - self.p) * size
        apart = 1 - np.eye(self.p.shape[1])
        return (self.p @ apart) * size + (self.p * size) @ apart

    def _second(
        self, point: tuple[np.ndarray, ...], direction: tuple[np.ndarray, ...]
    ) -> None:
        pairs = zip(point, direction, strict=True)
        moved = [at + 1j * STEP * along for at, along in pairs]
        values = {
            name: value.imag / STEP for name, value in self._gradients(*moved).items()
        }
        x, rows = abs(point[0]), abs(point[1])[self.weight_places]
        dx, drows = abs(direction[0]), abs(direction[1])[self.weight_places]
        moves = np.einsum("bd,bjd->bj", dx, rows) + np.einsum("bd,bjd->bj", x, drows)
        moves = np.where(self.kept, moves + abs(direction[2])[self.bias_places], 0)
        bend = self.p * self.doubt * (moves + (self.p * moves).sum(1, keepdims=True))
        bend = bend + self.p * (self.p * moves * self.doubt).sum(1, keepdims=True)
        up = abs(self.upstream)
        by_slope = self._hand_down(up * bend, x, rows)
        by_row = self._hand_down(up * self.slope_scale, dx, drows)
        by_row["biases"] = np.zeros_like(by_slope["biases"])
        scales = {name: by_slope[name] + by_row[name] for name in by_slope}
        none = {name: np.zeros_like(scale) for name, scale in scales.items()}
        self._keep("second ", values, scales, values, none)

    def _keep(
        self,
        prefix: str,
        values: dict[str, np.ndarray],
        scales: dict[str, np.ndarray],
        pieces: dict[str, np.ndarray],
        narrow: dict[str, np.ndarray],
    ) -> None:
        kinds = (values, scales, pieces, narrow)
        if self.shared_inputs:  # one row of inputs served the whole batch
            for kind in kinds:
                kind["inputs"] = kind["inputs"].sum(0, keepdims=True)
        self._add(prefix + "inputs", *(kind["inputs"] for kind in kinds))
        tables: list[tuple[str, Callable[[np.ndarray], list[np.ndarray]]]] = [
            ("weights", self.weight_table.cut),
            ("biases", self.bias_table.cut),
        ]
        for name, cut in tables:
            shards = (cut(kind[name]) for kind in kinds)
            for shard, parts in enumerate(zip(*shards, strict=True)):
                self._add(f"{prefix}{name}[{shard}]", *parts)

    def _add(
        self,
        name: str,
        value: np.ndarray,
        scale: np.ndarray,
        piece: np.ndarray,
        narrow: np.ndarray,
    ) -> None:
        self.arrays[name] = Array(value, scale, abs(piece), narrow)
