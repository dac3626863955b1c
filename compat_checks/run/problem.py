"""The arrays of a case, in NumPy: the same for every library and every mode."""

from __future__ import annotations

import dataclasses
import zlib

import ml_dtypes
import numpy as np

from compat_checks.cases.case import Case


def numpy_dtype(name: str) -> np.dtype:
    """The NumPy dtype of a TensorFlow dtype's name, bfloat16 included."""
    return np.dtype(ml_dtypes.bfloat16 if name == "bfloat16" else name)


@dataclasses.dataclass(frozen=True)
class Sampled:
    """ids [S]; expected counts that broadcast to [B, T] and to [B, S]."""

    ids: np.ndarray
    true_count: np.ndarray
    sampled_count: np.ndarray

    def astype(self, dtype: str) -> Sampled:
        to = numpy_dtype(dtype)
        return Sampled(
            self.ids, self.true_count.astype(to), self.sampled_count.astype(to)
        )


@dataclasses.dataclass(frozen=True)
class Call:
    """labels [L, T] (L = B or 1), inputs [B, D], upstream [B] and a direction."""

    labels: np.ndarray
    inputs: np.ndarray
    upstream: np.ndarray
    direction: np.ndarray  # of inputs, for second derivatives
    sampled: Sampled | None = None


@dataclasses.dataclass(frozen=True)
class Problem:
    """The two tables cut into shards, their directions, and the calls."""

    weights: list[np.ndarray]
    biases: list[np.ndarray]
    weight_directions: list[np.ndarray]
    bias_directions: list[np.ndarray]
    calls: list[Call]


def split(table: np.ndarray, shards: int, strategy: str) -> list[np.ndarray]:
    """Rows of `table` dealt out ("mod") or cut into runs ("div"); uneven is fine."""
    count = max(shards, 1)
    if strategy == "mod":
        return [table[first::count] for first in range(count)]
    return list(np.array_split(table, count))


def make_problem(case: Case) -> Problem:
    """Draws the arrays of `case` from a stream of its own, named by the case."""
    rng = np.random.default_rng(zlib.crc32(case.name.encode()))
    table_dtype = numpy_dtype(case.weight_dtype or case.dtype)
    weights = rng.normal(size=(case.rows, case.dim)) * case.scale / case.dim**0.5
    biases = rng.normal(size=case.rows) * case.scale

    def cut(table: np.ndarray, shards: int) -> list[np.ndarray]:
        return split(table.astype(table_dtype), shards, case.strategy)

    return Problem(
        weights=cut(weights, case.weight_shards),
        biases=cut(biases, case.bias_shards),
        weight_directions=cut(rng.normal(size=weights.shape), case.weight_shards),
        bias_directions=cut(rng.normal(size=biases.shape), case.bias_shards),
        calls=[_make_call(case, batch, rng) for batch in case.batches],
    )


def _make_call(case: Case, batch: int, rng: np.random.Generator) -> Call:
    dtype = numpy_dtype(case.dtype)
    given = rng.permutation(case.classes)[: case.num_sampled].astype(np.int64)
    rows = batch if case.label_batch is None else case.label_batch
    labels = _make_labels(case, rows, given, rng)
    outer = max(batch, rows) if batch and rows else 0
    call = Call(
        labels=labels.astype(case.label_dtype),
        inputs=rng.normal(size=(batch, case.dim)).astype(dtype),
        upstream=rng.normal(size=outer).astype(dtype),
        direction=rng.normal(size=(batch, case.dim)).astype(dtype),
    )
    if case.sampler != "given":
        return call
    drawn = Sampled(
        given,
        rng.uniform(0.05, 2.0, size=labels.shape),
        rng.uniform(0.05, 2.0, size=given.shape),
    )
    return dataclasses.replace(call, sampled=shape_counts(case, call, drawn))


def _make_labels(
    case: Case, rows: int, given: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    shape = (rows, case.num_true)
    if case.labels == "sampled":
        return rng.choice(given, size=shape)
    # Half of the labels are frequent classes, so that a log-uniform draw hits them.
    frequent = rng.integers(0, max(case.classes // 4, 1), size=shape)
    anywhere = rng.integers(0, case.classes, size=shape)
    labels = np.where(rng.random(shape) < 0.5, frequent, anywhere)
    if case.labels == "same":
        labels[:] = labels[:1]
    if case.labels == "repeated":
        labels[:] = labels[:, :1]
    return labels


def shape_counts(case: Case, call: Call, drawn: Sampled) -> Sampled:
    """The drawn counts, scaled, in the shapes that the case asks for."""

    def shaped(counts: np.ndarray, form: str, full: tuple[int, int]) -> np.ndarray:
        counts = np.asarray(counts, np.float64) * case.count_scale
        spread = 1 + np.arange(max(full[0], 1))[:, None] / 8  # rows that differ
        if form == "drawn":
            out = counts
        elif form == "scalar":
            out = np.asarray(counts.flat[0] if counts.size else 1.0)
        elif form == "row":
            out = counts.reshape(-1, full[1])[:1]
        elif form == "column":
            out = counts.reshape(-1, full[1])[:1, :1] * spread
        else:
            out = counts.reshape(-1, full[1])[:1] * spread
        return np.asarray(out, numpy_dtype("float32"))

    outer = call.upstream.shape[0]
    return Sampled(
        drawn.ids,
        shaped(drawn.true_count, case.true_count, (outer, case.num_true)),
        shaped(drawn.sampled_count, case.sampled_count, (outer, case.num_sampled)),
    )
