"""What several test files share: modes, shards, float64 truths, counts of operations.

A helper that one file uses stays in that file.
"""

from __future__ import annotations

import collections
import functools
import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from tfsampled._core.full_softmax import class_chunks
from tfsampled._core.full_softmax import top_k as full_softmax_top_k

# Parametrizes `jit`; the default run compiles nothing.
jit_or_not = pytest.mark.parametrize(
    "jit", [False, pytest.param(True, marks=pytest.mark.slow)]
)

# How a function is called; `MODES[mode](function)` is called like `function`.
MODES: dict[str, Callable[[Callable], Callable]] = {
    "eager": lambda function: function,
    "function": tf.function,
    "jit": lambda function: tf.function(function, jit_compile=True),
}


def each_mode(*quick: str) -> pytest.MarkDecorator:
    """Parametrizes `mode`: the default run has "eager" and what is named."""
    modes = [mode if mode in ("eager", *quick) else slow(mode) for mode in MODES]
    return pytest.mark.parametrize("mode", modes)


def cases(*axes: Iterable[Any], quick: Callable[..., bool]) -> list[Any]:
    """Every combination of the axes; the default run has those that are `quick`."""
    return [
        values if quick(*values) else slow(*values)
        for values in itertools.product(*axes)
    ]


def load_arrays(path: Any) -> dict[str, np.ndarray]:
    """Loads a .npz file and closes it: what stays open is told in a later test."""
    with np.load(path) as arrays:
        return dict(arrays)


def slow(*values: Any, **kwargs: Any) -> Any:
    """A case that runs in `make test-slow` alone."""
    return pytest.param(*values, marks=pytest.mark.slow, **kwargs)


def count_operations(function: Any) -> int:
    """Counts the operations of a concrete function, its function library included.

    Args:
        function: What `tf.function(...).get_concrete_function(...)` returns.
    """
    return sum(operation_counts(function).values())


def operation_counts(function: Any) -> dict[str, int]:
    """How often each type of operation occurs in a concrete function, and inside it."""
    return collections.Counter(node.op for node in nodes_of(function))


def nodes_of(function: Any) -> Iterator[Any]:
    """Yields the nodes of a concrete function, its function library included."""
    graph = function.graph.as_graph_def()
    yield from graph.node
    for inner in graph.library.function:
        yield from inner.node_def


def split_shards(table: np.ndarray, num_shards: int, strategy: str) -> list[np.ndarray]:
    """Cuts a table as `tf.nn.embedding_lookup` expects its shards.

    Args:
        table: `[num_classes, ...]`.
        num_shards: How many shards.
        strategy: "div" or "mod".
    """
    if strategy == "mod":
        return [table[index::num_shards] for index in range(num_shards)]
    return np.array_split(table, num_shards)


def logsumexp64(logits: np.ndarray) -> np.ndarray:
    """`log(sum(exp(logits)))` over the last axis, in float64."""
    logits = np.asarray(logits, np.float64)
    top = logits.max(axis=-1, keepdims=True)
    return top[..., 0] + np.log(np.exp(logits - top).sum(axis=-1))


def softmax64(logits: np.ndarray) -> np.ndarray:
    """The softmax over the last axis, in float64."""
    logits = np.asarray(logits, np.float64)
    # Not exp(logits - logsumexp): that would round the logsumexp of large logits.
    exp_logits = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return exp_logits / exp_logits.sum(axis=-1, keepdims=True)


def label_weights(labels: np.ndarray, num_classes: int) -> np.ndarray:
    """What each class weighs in each example, `[batch, num_classes]`.

    Args:
        labels: `[batch, num_true]`; each label weighs `1 / num_true`.
        num_classes: How many classes.
    """
    weights = np.zeros((len(labels), num_classes))
    for row, classes in zip(weights, labels, strict=True):
        np.add.at(row, classes, 1 / len(classes))
    return weights


def cross_entropy64(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The mean cross entropy of an example's labels `[...]`, in float64.

    Args:
        logits: `[..., num_classes]`.
        labels: `[..., num_true]`.
    """
    logits = np.asarray(logits, np.float64)
    label_logits = np.take_along_axis(logits, labels, axis=-1)
    return logsumexp64(logits) - label_logits.mean(axis=-1)


def softmax_loss64(
    inputs: np.ndarray, weights: np.ndarray, biases: np.ndarray, *, labels: np.ndarray
) -> np.ndarray:
    """The full softmax loss `[batch]` in float64, from all the logits.

    Args:
        inputs: `[batch, dim]`.
        weights: `[num_classes, dim]`.
        biases: `[num_classes]`.
        labels: `[batch, num_true]` or `[batch]`.
    """
    inputs, weights, biases = (
        np.asarray(x, np.float64) for x in (inputs, weights, biases)
    )
    labels = labels if np.ndim(labels) == 2 else np.reshape(labels, (-1, 1))
    return cross_entropy64(inputs @ weights.T + biases, labels)


def softmax_loss_gradients64(
    inputs: np.ndarray,
    weights: np.ndarray,
    biases: np.ndarray,
    *,
    labels: np.ndarray,
    upstream: np.ndarray,
) -> list[np.ndarray]:
    """The gradients of `softmax_loss64` by inputs, weights and biases, in float64.

    Args:
        inputs: `[batch, dim]`.
        weights: `[num_classes, dim]`.
        biases: `[num_classes]`.
        labels: `[batch, num_true]` or `[batch]`.
        upstream: The gradient by the loss, `[batch]`.
    """
    inputs, weights, biases = (
        np.asarray(x, np.float64) for x in (inputs, weights, biases)
    )
    labels = labels if np.ndim(labels) == 2 else np.reshape(labels, (-1, 1))
    d_logits = softmax64(inputs @ weights.T + biases)
    d_logits = (d_logits - label_weights(labels, len(weights))) * upstream[
        :, np.newaxis
    ]
    return [d_logits @ weights, d_logits.T @ inputs, d_logits.sum(axis=0)]


def top_k(logits: np.ndarray, k: int) -> np.ndarray:
    """The ids of the k largest logits; of equal logits, the lower id first."""
    return np.argsort(-logits, axis=1, kind="stable")[:, :k]


def max_ulps(a: Any, b: Any) -> int:
    """The largest distance in units in the last place of two float32 arrays >= 0."""
    a, b = (np.asarray(x, np.float32).view(np.int32).astype(np.int64) for x in (a, b))
    return int(np.max(np.abs(a - b), initial=0))


def use_small_chunks(patch: pytest.MonkeyPatch, num_classes: int) -> None:
    """Lets the full softmax work in chunks of `num_classes`, whatever the batch."""
    patch.setattr(class_chunks, "CHUNK_BYTES", 1)
    patch.setattr(full_softmax_top_k, "CHUNK_BYTES", 1)
    patch.setattr(class_chunks, "MIN_CHUNK", num_classes)


SAMPLERS = ["uniform", "log_uniform", "learned_unigram", "fixed_unigram", "all"]
SAMPLER_LABELS = np.array([[0, 2], [1, 1], [2, 0]])


def sampler_arguments(
    sampler: str, num_sampled: int, unique: bool, range_max: int, **more: Any
) -> dict[str, Any]:
    """Makes keyword arguments for a candidate sampler, but for labels and num_true."""
    if sampler == "all":
        return {"num_sampled": range_max, "unique": unique, **more}
    arguments: dict[str, Any] = {
        "num_sampled": num_sampled,
        "unique": unique,
        "range_max": range_max,
    }
    if sampler == "fixed_unigram":
        weights = np.random.default_rng(range_max).integers(1, 50, range_max)
        arguments.update(unigrams=weights.astype(float).tolist(), distortion=0.75)
    return arguments | more


def assert_equal_draws(actual: Any, expected: Any) -> None:
    """Checks ids bit for bit, expected counts within 2 ulp, dtypes and shapes."""
    for a, b in zip(actual, expected, strict=True):
        assert a.dtype == b.dtype
        assert a.shape == b.shape
    np.testing.assert_array_equal(actual[0].numpy(), expected[0].numpy())
    assert max_ulps(actual[1], expected[1]) <= 2
    assert max_ulps(actual[2], expected[2]) <= 2


@functools.cache
def two_replicas() -> tf.distribute.Strategy:
    """Returns the strategy of all tests: two of them in one process collide."""
    return tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
