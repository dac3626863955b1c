"""The exact softmax over every class, a block of classes at a time.

Shapes: `N` examples, `D` features, `V` classes, `T` true classes an example. No tensor
of `[N, V]` ever exists in the forward pass: at most `N * (2 * BLOCK - 1)` logits do.
The weights `[V, D]` are a tensor or a `Table` of shards.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import tensorflow as tf

from tfsampled._core.tables import Table

BLOCK = 4096  # classes at a time

State = tuple[tf.Tensor, ...]


class Part(NamedTuple):
    """A shard: row `r` is class `first + stride * r`."""

    weights: tf.Tensor
    biases: tf.Tensor | None
    first: int
    stride: int


def log_sum_exp(inputs: tf.Tensor, weights: Any, biases: Any) -> tf.Tensor:
    """Log of the softmax's denominator `[N]` for inputs `[N, D]`, weights `[V, D]`."""

    def first(_: Any, logits: tf.Tensor) -> State:
        return (tf.reduce_logsumexp(logits, axis=-1),)

    def fold(ids: Any, logits: tf.Tensor, total: tf.Tensor) -> State:
        (block,) = first(ids, logits)
        return (tf.reduce_logsumexp(tf.stack([total, block]), axis=0),)

    totals = [
        _over_classes(inputs, part, BLOCK, first, fold)[0]
        for part in _parts(weights, biases)
    ]
    return totals[0] if len(totals) == 1 else tf.reduce_logsumexp(totals, axis=0)


def loss(
    inputs: tf.Tensor,
    weights: Any,
    biases: Any,
    labels: tf.Tensor,
    shares: tf.Tensor | None = None,
) -> tf.Tensor:
    """Cross entropy `[N]` of labels `[N, T]`, of `shares` `[N, T]` or `1 / T` each.

    A label outside `[0, V)` makes its example NaN: only the caller knows how it wants
    to report it.
    """
    logits = _label_logits(inputs, weights, biases, labels)
    if shares is None:
        true = tf.reduce_mean(logits, axis=-1)
    else:
        true = tf.reduce_sum(logits * tf.cast(shares, logits.dtype), axis=-1)
    return log_sum_exp(inputs, weights, biases) - true


def ranks(inputs: tf.Tensor, weights: Any, biases: Any, labels: tf.Tensor) -> tf.Tensor:
    """How many classes stand before each label `[N, T]`, as int32 `[N, T]`.

    Those of higher logits, and those of equal logits and lower ids, as in `top_k`.
    """
    label_logits = _label_logits(inputs, weights, biases, labels)

    def first(ids: tf.Tensor, logits: tf.Tensor) -> State:
        return (above(logits, ids, label_logits, labels),)

    def fold(ids: tf.Tensor, logits: tf.Tensor, count: tf.Tensor) -> State:
        return (count + first(ids, logits)[0],)

    counts = [
        _over_classes(inputs, part, BLOCK, first, fold)[0]
        for part in _parts(weights, biases)
    ]
    return tf.add_n(counts)


def above(
    logits: tf.Tensor, ids: tf.Tensor, label_logits: tf.Tensor, labels: tf.Tensor
) -> tf.Tensor:
    """How many of the classes `ids` `[B]`, logits `[N, B]`, stand before each label."""
    counts = []
    for label_logit, label in zip(
        tf.unstack(label_logits, axis=1), tf.unstack(labels, axis=1), strict=True
    ):
        label_logit, label = label_logit[:, tf.newaxis], label[:, tf.newaxis]
        ids = tf.cast(ids, label.dtype)
        # Its own logit was rounded elsewhere, and must not stand before itself.
        before = (logits > label_logit) & tf.not_equal(ids, label)
        before |= tf.equal(logits, label_logit) & (ids < label)
        before |= tf.math.is_nan(label_logit)  # a model that has diverged ranks last
        counts.append(tf.reduce_sum(tf.cast(before, tf.int32), axis=-1))
    return tf.stack(counts, axis=1)


def top_k(
    inputs: tf.Tensor, weights: Any, biases: Any, k: int
) -> tuple[tf.Tensor, tf.Tensor]:
    """The `k` best logits `[N, k]` and their ids, int32; ties go to the lower."""

    def first(ids: tf.Tensor, logits: tf.Tensor) -> State:
        values, where = tf.math.top_k(logits, min(k, logits.shape[-1]))
        return values, tf.gather(ids, where)

    def fold(
        ids: tf.Tensor, logits: tf.Tensor, values: tf.Tensor, best: tf.Tensor
    ) -> State:
        new_values, new = first(ids, logits)
        return _best(tf.concat([values, new_values], 1), tf.concat([best, new], 1), k)

    found = [
        _over_classes(inputs, part, max(BLOCK, k), first, fold)
        for part in _parts(weights, biases)
    ]
    if len(found) == 1:
        return found[0][0], found[0][1]
    values, ids = (tf.concat(pieces, axis=1) for pieces in zip(*found, strict=True))
    order = tf.argsort(ids, axis=1)  # so that ties go to the lower id
    values, ids = (tf.gather(x, order, batch_dims=1) for x in (values, ids))
    return _best(values, ids, k)


def _best(values: tf.Tensor, ids: tf.Tensor, k: int) -> tuple[tf.Tensor, tf.Tensor]:
    values, where = tf.math.top_k(values, k)
    return values, tf.gather(ids, where, batch_dims=1)


def _label_logits(
    inputs: tf.Tensor, weights: Any, biases: Any, labels: tf.Tensor
) -> tf.Tensor:
    """The logits of labels `[N, T]`, NaN for one outside `[0, V)`."""
    table = _table(weights)
    valid = (labels >= 0) & (labels < tf.cast(table.num_rows(), labels.dtype))
    ids = tf.where(valid, labels, 0)
    rows = table.rows(tf.cast(tf.reshape(ids, [-1]), tf.int64))
    rows = tf.reshape(rows, [-1, labels.shape[1], inputs.shape[1]])
    logits = tf.einsum("nd,ntd->nt", inputs, tf.cast(rows, inputs.dtype))
    if biases is not None:
        logits += tf.cast(tf.gather(biases, ids), inputs.dtype)
    return tf.where(valid, logits, tf.constant(float("nan"), logits.dtype))


def _table(weights: Any) -> Table:
    return weights if isinstance(weights, Table) else Table.of([weights], "div")


def _parts(weights: Any, biases: Any) -> Iterator[Part]:
    """The shards, each with the slice of the biases that belongs to it."""
    table = _table(weights)
    count, start = len(table.shards), 0
    for index, shard in enumerate(table.shards):
        shard = tf.convert_to_tensor(shard)  # a variable is read once, not per block
        if table.strategy == "mod" and count > 1:
            bias = None if biases is None else biases[index::count]
            yield Part(shard, bias, index, count)
        else:
            end = start + shard.shape[0]
            bias = biases
            if biases is not None and count > 1:
                bias = biases[start:end]
            yield Part(shard, bias, start, 1)
            start = end


def _over_classes(
    inputs: tf.Tensor,
    part: Part,
    block: int,
    first: Callable[..., State],
    fold: Callable[..., State],
) -> State:
    """Folds the logits block by block; the remainder goes into the first block.

    `first` and `fold` get the block's class ids, int32 `[B]`, and logits `[N, B]`.
    """
    num_classes = part.weights.shape[0]
    width = min(num_classes, block + num_classes % block)

    def logits(start: Any, size: int) -> tuple[tf.Tensor, tf.Tensor]:
        rows = tf.slice(part.weights, [start, 0], [size, -1])
        result = tf.matmul(inputs, tf.cast(rows, inputs.dtype), transpose_b=True)
        if part.biases is not None:
            bias = tf.slice(part.biases, [start], [size])
            result += tf.cast(bias, inputs.dtype)
        return part.first + part.stride * (start + tf.range(size)), result

    def body(start: tf.Tensor, *state: tf.Tensor) -> State:
        return start + block, *fold(*logits(start, block), *state)

    state = first(*logits(0, width))
    if width == num_classes:
        return state
    return tf.while_loop(
        lambda start, *_: start < num_classes,
        body,
        (tf.constant(width), *state),
        parallel_iterations=1,  # or all the blocks would be alive at once
        maximum_iterations=(num_classes - width) // block,
    )[1:]
