"""The arrays of a case in NumPy: the same for every library and every mode."""

from __future__ import annotations

import dataclasses
import zlib

import ml_dtypes
import numpy as np

from compat_checks.cases.case import Case


def numpy_dtype(name: str) -> np.dtype:
    """Returns the NumPy dtype of a TensorFlow dtype's name, bfloat16 included."""
    return np.dtype(ml_dtypes.bfloat16 if name == "bfloat16" else name)


@dataclasses.dataclass(frozen=True)
class SampledValues:
    """Candidates and their expected counts.

    Attributes:
        ids: `[S]`.
        true_count: Broadcasts to `[B, T]`.
        sampled_count: Broadcasts to `[B, S]`.
    """

    ids: np.ndarray
    true_count: np.ndarray
    sampled_count: np.ndarray

    def astype(self, dtype: np.dtype) -> SampledValues:
        true_count = self.true_count.astype(dtype)
        return SampledValues(self.ids, true_count, self.sampled_count.astype(dtype))


@dataclasses.dataclass(frozen=True)
class Call:
    """What changes from call to call.

    Attributes:
        labels: `[B, T]` or `[1, T]`.
        inputs: `[B, D]` or `[1, D]`.
        upstream: `[B]`, the gradient by the loss.
        direction: Of the second derivatives; like `inputs`.
        sampled_values: None if the loss draws the candidates.
    """

    labels: np.ndarray
    inputs: np.ndarray
    upstream: np.ndarray
    direction: np.ndarray
    sampled_values: SampledValues | None = None


@dataclasses.dataclass(frozen=True)
class Problem:
    """The tables, not yet cut into shards, and the calls.

    Attributes:
        weights: `[rows, D]`.
        biases: `[rows]`.
        weight_direction: Of the second derivatives; like `weights`.
        bias_direction: Like `biases`.
        calls: One for each batch size of the case.
    """

    weights: np.ndarray
    biases: np.ndarray
    weight_direction: np.ndarray
    bias_direction: np.ndarray
    calls: list[Call]


def split_shards(table: np.ndarray, num_shards: int, strategy: str) -> list[np.ndarray]:
    """Cuts a table into shards as `tf.nn.embedding_lookup` expects them.

    Args:
        table: `[rows, ...]`.
        num_shards: How many shards; 0 means one.
        strategy: "mod" or "div".
    """
    # table = [0, 1, 2, 3, 4], 2 shards: "mod" -> [0, 2, 4], [1, 3]
    #                                    "div" -> [0, 1, 2], [3, 4]
    num_shards = max(num_shards, 1)
    if strategy == "mod":
        return [table[first::num_shards] for first in range(num_shards)]
    return list(np.array_split(table, num_shards))


def make_problem(case: Case) -> Problem:
    """Draws the arrays of `case`; the seed is a hash of the case's name."""
    rng = np.random.default_rng(zlib.crc32(case.name.encode()))
    dtype = numpy_dtype(case.table_dtype or case.dtype)
    shape = case.rows, case.dim
    return Problem(
        (rng.normal(size=shape) * case.logit_scale / case.dim**0.5).astype(dtype),
        (rng.normal(size=case.rows) * case.logit_scale).astype(dtype),
        rng.normal(size=shape).astype(dtype),
        rng.normal(size=case.rows).astype(dtype),
        [_make_call(case, batch_size, rng) for batch_size in case.batch_sizes],
    )


def _make_call(case: Case, batch_size: int, rng: np.random.Generator) -> Call:
    dtype = numpy_dtype(case.dtype)
    ids = rng.permutation(case.effective_num_classes)[: case.num_sampled]
    ids = ids.astype(np.int64)
    label_rows = batch_size if case.label_rows is None else case.label_rows
    labels = _make_labels(case, label_rows, ids, rng)
    # A batch of 1 is broadcast against the other argument, but not against one of 0.
    loss_size = max(batch_size, label_rows) if batch_size and label_rows else 0
    call = Call(
        labels=labels.astype(case.label_dtype),
        inputs=rng.normal(size=(batch_size, case.dim)).astype(dtype),
        upstream=rng.normal(size=loss_size).astype(dtype),
        direction=rng.normal(size=(batch_size, case.dim)).astype(dtype),
    )
    if case.sampler != "numpy":
        return call
    true_count = rng.uniform(0.05, 2.0, size=labels.shape)
    sampled_count = rng.uniform(0.05, 2.0, size=ids.shape)
    sampled_values = SampledValues(ids, true_count, sampled_count)
    return dataclasses.replace(
        call, sampled_values=reshape_counts(case, loss_size, sampled_values)
    )


def _make_labels(
    case: Case, label_rows: int, ids: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    shape = (label_rows, case.num_true)
    if case.labels == "sampled":
        return rng.choice(ids, size=shape)
    # Half of the labels are frequent classes, so that a log-uniform draw hits them.
    num_classes = case.effective_num_classes
    frequent = rng.integers(0, max(num_classes // 4, 1), size=shape)
    any_class = rng.integers(0, num_classes, size=shape)
    labels = np.where(rng.random(shape) < 0.5, frequent, any_class)
    if case.labels == "same":
        labels[:] = labels[:1]
    if case.labels == "repeated":
        labels[:] = labels[:, :1]
    return labels


def reshape_counts(
    case: Case, loss_size: int, sampled_values: SampledValues
) -> SampledValues:
    """Scales the expected counts and gives them the shapes that the case asks for.

    Args:
        case: The case.
        loss_size: Size of the loss, `B`.
        sampled_values: As drawn.
    """
    # Count of T = 2 labels, B = 3:  "scalar" -> 0.5     "column" -> [[0.5], [0.56],
    # ...] [[0.5, 2.0], ...]              "row" -> [[0.5, 2]] "full" -> [[0.5, 2],
    # [0.56, ...
    row_factors = 1 + np.arange(max(loss_size, 1))[:, None] / 8

    def reshape(counts: np.ndarray, shape: str, num_columns: int) -> np.ndarray:
        scaled = np.asarray(counts, np.float64) * case.count_scale
        if shape == "scalar":
            scaled = np.asarray(scaled.flat[0] if scaled.size else 1.0)
        elif shape != "sampler":
            scaled = scaled.reshape(-1, num_columns)[:1]
        if shape == "column":
            scaled = scaled[:, :1]
        if shape in ("column", "full"):
            scaled = scaled * row_factors
        return scaled.astype(np.float32)

    return SampledValues(
        sampled_values.ids,
        reshape(sampled_values.true_count, case.true_count_shape, case.num_true),
        reshape(
            sampled_values.sampled_count, case.sampled_count_shape, case.num_sampled
        ),
    )
