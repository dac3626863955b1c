"""The exact softmax in float64 NumPy, from all the logits; and narrow blocks of it."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from tfsampled._core.full_softmax import chunks as blocks


def narrow_blocks(patch: pytest.MonkeyPatch, width: int) -> None:
    """Blocks of `width` classes, whatever the batch: edges in small problems."""
    best = sys.modules["tfsampled._core.full_softmax.top_k"]
    for module in (blocks, best):
        patch.setattr(module, "BLOCK_BYTES", 1)
    patch.setattr(blocks, "MIN_WIDTH", width)


def log_sum_exp(logits: np.ndarray) -> np.ndarray:
    top = logits.max(axis=-1, keepdims=True)
    return top[:, 0] + np.log(np.exp(logits - top).sum(axis=-1))


def targets(labels: np.ndarray, num_classes: int) -> np.ndarray:
    """What each class weighs in each example, `[N, V]`."""
    share = np.zeros((len(labels), num_classes))
    for row, classes in enumerate(labels):
        for label in classes:
            share[row, label] += 1 / len(classes)
    return share


def loss(inputs, weights, biases, labels) -> np.ndarray:
    """A label's logit of minus infinity is a loss of infinity."""
    logits = inputs @ weights.T + biases
    true = np.take_along_axis(logits, labels, axis=1)
    return log_sum_exp(logits) - true.mean(axis=1)


def gradients(inputs, weights, biases, labels, upstream) -> list[np.ndarray]:
    """Of inputs, weights and biases."""
    logits = inputs @ weights.T + biases
    slope = np.exp(logits - log_sum_exp(logits)[:, None])
    slope = (slope - targets(labels, len(weights))) * upstream[:, None]
    return [slope @ weights, slope.T @ inputs, slope.sum(axis=0)]


def second(inputs, weights, biases, labels, upstream, directions) -> list[np.ndarray]:
    """Of inputs, weights, biases and upstream: of `gradients` times directions.

    By the complex step, so that no difference is formed.
    """
    step = 1e-30
    moved = [
        value + 1j * step * direction
        for value, direction in zip((inputs, weights, biases), directions, strict=True)
    ]
    logits = moved[0] @ moved[1].T + moved[2]
    powers = np.exp(logits - logits.real.max(axis=1, keepdims=True))
    slope = powers / powers.sum(axis=1, keepdims=True)
    slope -= targets(labels, len(weights))
    along = directions[0] @ weights.T + inputs @ directions[1].T + directions[2]
    of_upstream = (slope.real * along).sum(axis=1)
    slope *= upstream[:, None]
    result = [slope @ moved[1], slope.T @ moved[0], slope.sum(axis=0)]
    return [part.imag / step for part in result] + [of_upstream]


def top_k(logits: np.ndarray, k: int) -> np.ndarray:
    """The ids of the best classes; of equal logits, the lower id first."""
    return np.argsort(-logits, axis=1, kind="stable")[:, :k]


def cut(rows: np.ndarray, count: int, strategy: str) -> list[np.ndarray]:
    """The shards of a table."""
    if strategy == "mod":
        return [rows[index::count] for index in range(count)]
    short, longer = divmod(len(rows), count)
    ends = np.cumsum([short + (index < longer) for index in range(count)])
    return np.split(rows, ends[:-1])
