"""How many classes stand before a label."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from tfsampled._core.embedding.class_logits import logits_of_classes
from tfsampled._core.full_softmax.chunks import (
    State,
    block_logits,
    compute_dtype,
    sweep,
    width_of,
)
from tfsampled._core.full_softmax.shards import parts_of, table_of
from tfsampled._core.validation import in_range


def ranks(inputs: tf.Tensor, weights: Any, biases: Any, labels: tf.Tensor) -> tf.Tensor:
    """How many classes stand before each label `[N, T]`, as int32 `[N, T]`.

    Those of higher logits, and those of equal logits and lower ids, as in `top_k`.
    """
    inputs = tf.stop_gradient(tf.cast(inputs, compute_dtype(inputs.dtype)))
    label_logits = tf.stop_gradient(_label_logits(inputs, weights, biases, labels))
    width, count = width_of(inputs), tf.zeros_like(labels, tf.int32)
    for part in parts_of(weights, biases):

        def visit(start: Any, size: Any, count: Any, part=part) -> State:
            logits, _ = block_logits(inputs, part, start, size)
            ids = part.first + part.stride * (start + tf.range(size))
            return (count + above(logits, ids, label_logits, labels),)

        (count,) = sweep(part, width, visit, (count,))
    return count


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


def _label_logits(
    inputs: tf.Tensor, weights: Any, biases: Any, labels: tf.Tensor
) -> tf.Tensor:
    """The logits of labels `[N, T]`, NaN for one outside `[0, V)`."""
    table = table_of(weights)
    others = None if biases is None else table_of(biases)
    valid = in_range(labels, table.num_rows())
    ids = tf.where(valid, labels, tf.zeros_like(labels))
    logits = logits_of_classes(inputs, table, others, ids)
    return tf.where(valid, logits, tf.constant(float("nan"), logits.dtype))
