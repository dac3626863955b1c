"""The exact softmax over every class, a block of classes at a time.

Shapes: `N` examples, `D` features, `V` classes, `T` true classes an example. No tensor
of `[N, V]` ever exists in the forward pass: at most `N * (2 * BLOCK - 1)` logits do.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

BLOCK = 4096  # classes at a time

State = tuple[tf.Tensor, ...]


def log_sum_exp(
    inputs: tf.Tensor, weights: tf.Tensor, biases: tf.Tensor | None
) -> tf.Tensor:
    """Log of the softmax's denominator `[N]` for inputs `[N, D]`, weights `[V, D]`."""

    def first(_: tf.Tensor, logits: tf.Tensor) -> State:
        return (tf.reduce_logsumexp(logits, axis=-1),)

    def fold(_: tf.Tensor, logits: tf.Tensor, total: tf.Tensor) -> State:
        block = tf.reduce_logsumexp(logits, axis=-1)
        return (tf.reduce_logsumexp(tf.stack([total, block]), axis=0),)

    return _over_classes(inputs, weights, biases, BLOCK, first, fold)[0]


def loss(
    inputs: tf.Tensor, weights: tf.Tensor, biases: tf.Tensor | None, labels: tf.Tensor
) -> tf.Tensor:
    """Cross entropy `[N]` of labels `[N, T]`, each of weight `1 / T`.

    A label outside `[0, V)` makes its example NaN: only the caller knows how it wants
    to report it.
    """
    num_classes = tf.shape(weights, out_type=labels.dtype)[0]
    valid = (labels >= 0) & (labels < num_classes)
    labels = tf.where(valid, labels, 0)
    rows = tf.cast(tf.gather(weights, labels), inputs.dtype)
    logits = tf.einsum("nd,ntd->nt", inputs, rows)
    if biases is not None:
        logits += tf.cast(tf.gather(biases, labels), inputs.dtype)
    losses = log_sum_exp(inputs, weights, biases) - tf.reduce_mean(logits, axis=-1)
    nan = tf.constant(float("nan"), losses.dtype)
    return tf.where(tf.reduce_all(valid, axis=-1), losses, nan)


def top_k(
    inputs: tf.Tensor, weights: tf.Tensor, biases: tf.Tensor | None, k: int
) -> tuple[tf.Tensor, tf.Tensor]:
    """The `k` best logits `[N, k]` and their ids, int32; ties go to the lower."""

    def first(_: tf.Tensor, logits: tf.Tensor) -> State:
        return tuple(tf.math.top_k(logits, k))

    def fold(
        start: tf.Tensor, logits: tf.Tensor, values: tf.Tensor, ids: tf.Tensor
    ) -> State:
        new_values, new_ids = tf.math.top_k(logits, k)
        ids = tf.concat([ids, new_ids + start], axis=-1)
        values, where = tf.math.top_k(tf.concat([values, new_values], axis=-1), k)
        return values, tf.gather(ids, where, batch_dims=1)

    values, ids = _over_classes(inputs, weights, biases, max(BLOCK, k), first, fold)
    return values, ids


def _over_classes(
    inputs: tf.Tensor,
    weights: tf.Tensor,
    biases: tf.Tensor | None,
    block: int,
    first: Callable[..., State],
    fold: Callable[..., State],
) -> State:
    """Folds the logits block by block; the remainder goes into the first block."""
    weights = tf.convert_to_tensor(weights)  # a variable is read once, not per block
    num_classes = weights.shape[0]
    width = min(num_classes, block + num_classes % block)

    def logits(start: Any, size: int) -> tf.Tensor:
        rows = tf.cast(tf.slice(weights, [start, 0], [size, -1]), inputs.dtype)
        result = tf.matmul(inputs, rows, transpose_b=True)
        if biases is not None:
            result += tf.cast(tf.slice(biases, [start], [size]), inputs.dtype)
        return result

    def body(start: tf.Tensor, *state: tf.Tensor) -> State:
        return start + block, *fold(start, logits(start, block), *state)

    state = first(0, logits(0, width))
    if width == num_classes:
        return state
    return tf.while_loop(
        lambda start, *_: start < num_classes,
        body,
        (tf.constant(width), *state),
        parallel_iterations=1,  # or all the blocks would be alive at once
        maximum_iterations=(num_classes - width) // block,
    )[1:]
