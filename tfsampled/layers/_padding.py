"""Padding among the labels of an example: out of the softmax, out of the mean.

The losses take `num_true` labels an example, each of weight `1 / num_true`. Columns of
padding repeat a real label; here is what makes a loss of these one of the real labels.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from tfsampled._core.candidate_sampling.samplers import Candidates
from tfsampled._core.embedding.table import Table
from tfsampled._core.labels import Labels

_UNLIKELY = 2.0**60  # times the expected count: out of the softmax in any dtype


def without(drawn: Candidates, targets: Labels) -> Candidates:
    """Expected counts with which a column of padding adds nothing to a softmax."""
    if targets.label_mask is None:
        return drawn
    count = drawn.true_expected_count
    some = tf.reduce_any(targets.label_mask, axis=1, keepdims=True)
    stand_in = tf.where(some, count * _UNLIKELY, tf.ones_like(count))
    return drawn._replace(
        true_expected_count=tf.where(targets.label_mask, count, stand_in)
    )


def correction(
    rows: tf.Tensor, table: Table, biases: Any, labels: Labels, drawn: Candidates
) -> tf.Tensor:
    """What to add to a mean over all columns to make it one over the real labels.

    Args:
        rows: `[N, D]`.
        table: The classes, `[V, D]`.
        biases: `[V]` or None.
        labels: `[N, T]`.
        drawn: What the sampler returned.

    Returns:
        `[N]`, in the dtype of `rows`.
    """
    ids = tf.reshape(labels.ids, [-1])
    kernel = tf.cast(table.rows(ids), rows.dtype)
    kernel = tf.reshape(kernel, [-1, labels.ids.shape[1], rows.shape[1]])
    logits = tf.einsum("nd,ntd->nt", rows, kernel)
    if biases is not None:
        logits += tf.gather(biases, labels.ids)
    expected = tf.where(labels.label_mask, drawn.true_expected_count, 1.0)
    given = without(drawn, labels).true_expected_count
    logs = [tf.math.log(tf.cast(count, logits.dtype)) for count in (given, expected)]
    shares = labels.label_weights(logits.dtype)
    return tf.reduce_mean(logits - logs[0], axis=1) - tf.reduce_sum(
        (logits - logs[1]) * shares, axis=1
    )
