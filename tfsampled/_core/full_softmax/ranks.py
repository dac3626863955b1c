"""How many classes rank above a label."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from tfsampled._core.embedding.class_logits import class_logits
from tfsampled._core.embedding.sharded_table import Table
from tfsampled._core.full_softmax.class_chunks import (
    Carry,
    chunk_logits,
    chunk_size,
    find_in_chunk,
    scan_shards,
)
from tfsampled._core.full_softmax.shards import Shard, shards_of
from tfsampled._core.static_ops import compute_dtype
from tfsampled._core.validation import in_range

EXCLUDED = 2**31 - 2  # the rank of an excluded label; one more marks padding


def full_softmax_ranks(
    inputs: tf.Tensor,
    weights: Table,
    biases: Table | None,
    labels: tf.Tensor,
    exclude: tf.Tensor | None = None,
) -> tf.Tensor:
    """Counts the classes that rank above each label.

    Classes of higher logits rank above, and of equal logits those of lower ids, as in
    `full_softmax_top_k`. A NaN logit ranks last.

    Args:
        inputs: `[N, D]`, floating.
        weights: `V` rows `[D]`.
        biases: `V` rows `[]`, or None.
        labels: Integers `[N, T]` in `[0, V)`.
        exclude: Integers `[N, n]`, classes that are not counted, -1 for none; or None.
            A label among them has the rank `EXCLUDED`: it is never found.

    Returns:
        int32 `[N, T]` in `[0, V)`, or `EXCLUDED`.
    """
    if exclude is not None:
        # Each class once: [[7, 2, 7]] -> [[2, 7, -1]]
        exclude = tf.sort(tf.cast(exclude, labels.dtype), axis=1)
        is_repeated = tf.equal(exclude[:, 1:], exclude[:, :-1])
        is_repeated = tf.pad(is_repeated, [[0, 0], [1, 0]])
        exclude = tf.where(is_repeated, tf.constant(-1, exclude.dtype), exclude)
    inputs = tf.stop_gradient(tf.cast(inputs, compute_dtype(inputs.dtype)))
    valid = in_range(labels, weights.num_rows())
    ids = tf.where(valid, labels, tf.zeros_like(labels))
    label_logits = tf.stop_gradient(class_logits(ids, inputs, weights, biases))
    label_logits = tf.where(valid, label_logits, math.nan)
    shards = shards_of(weights, biases)
    count = count_classes_above(shards, inputs, label_logits, labels, exclude)
    if exclude is not None:
        is_excluded = tf.equal(labels[:, :, tf.newaxis], exclude[:, tf.newaxis])
        is_excluded = tf.reduce_any(is_excluded, axis=2)
        count = tf.where(~is_excluded, count, EXCLUDED)
    return tf.cast(count, tf.int32)


def count_classes_above(
    shards: Sequence[Shard],
    inputs: tf.Tensor,
    label_logits: tf.Tensor,
    labels: tf.Tensor,
    exclude: tf.Tensor | None = None,
) -> tf.Tensor:
    """Counts the classes of shards that rank above each label.

    Args:
        shards: The classes.
        inputs: `[N, D]`, without a gradient.
        label_logits: `[N, T]`.
        labels: Integers `[N, T]`, of these shards or others.
        exclude: Integers `[N, n]`, different classes that are not counted, -1 for none.

    Returns:
        int64 `[N, T]`.
    """

    def body_of(shard: Shard) -> Callable[..., Carry]:
        excluded_rows = None if exclude is None else shard.row_of(exclude)

        def body(start: Any, size: Any, count: Any) -> Carry:
            logits, _ = chunk_logits(inputs, shard, start, size)
            ids = shard.first_class + shard.stride * (start + tf.range(size))
            count += count_ranked_above(logits, ids, label_logits, labels)
            if excluded_rows is not None:
                in_chunk, columns = find_in_chunk(excluded_rows, start, size)
                logits = tf.gather(logits, columns, batch_dims=1)
                count -= count_ranked_above(
                    logits, exclude, label_logits, labels, in_chunk
                )
            return (count,)

        return body

    def add(one: Carry, other: Carry) -> Carry:
        return (one[0] + other[0],)

    none = (tf.zeros_like(labels, tf.int64),)
    (count,) = scan_shards(shards, chunk_size(inputs), body_of, none, add)
    return count


def count_ranked_above(
    logits: tf.Tensor,
    ids: tf.Tensor,
    label_logits: tf.Tensor,
    labels: tf.Tensor,
    is_counted: tf.Tensor | None = None,
) -> tf.Tensor:
    """Counts which of some classes rank above each label.

    Args:
        logits: `[N, C]`, of the classes `ids`.
        ids: Integers `[C]` or `[N, C]`.
        label_logits: `[N, T]`.
        labels: Integers `[N, T]`.
        is_counted: bool `[N, C]`, False for classes to leave out; or None.

    Returns:
        int64 `[N, T]`.
    """
    # logits = [[3, 1, 3]], ids = [0, 1, 2], labels = [[2]] -> [[1]]: class 0 by its id
    counts, ids = [], tf.cast(ids, labels.dtype)
    for t in range(labels.shape[1]):
        label_logit, label = label_logits[:, t : t + 1], labels[:, t : t + 1]
        # In a diverged model, whose logits are NaN, the label ranks last.
        above = (logits > label_logit) | tf.math.is_nan(label_logit)
        # The label's logit may be rounded otherwise here: it is not above itself.
        above &= tf.not_equal(ids, label)
        above |= tf.equal(logits, label_logit) & (ids < label)
        if is_counted is not None:
            above &= is_counted
        counts.append(tf.reduce_sum(tf.cast(above, tf.int64), axis=-1))
    return tf.stack(counts, axis=1)
