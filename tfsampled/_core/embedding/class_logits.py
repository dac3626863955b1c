"""The logits of some classes of each example."""

from __future__ import annotations

import tensorflow as tf

from tfsampled._core.embedding.sharded_table import Table


def class_logits(
    ids: tf.Tensor, inputs: tf.Tensor, weights: Table, biases: Table | None = None
) -> tf.Tensor:
    """Computes the logits `[N, K]` of classes `ids` `[N, K]` for inputs `[N, D]`."""
    flat = tf.reshape(tf.cast(ids, tf.int64), [-1])
    shape = tf.shape(ids)
    rows = tf.cast(weights.rows(flat), inputs.dtype)
    rows = tf.reshape(rows, tf.concat([shape, [tf.shape(rows)[1]]], axis=0))
    logits = tf.einsum("nd,nkd->nk", inputs, rows)
    if biases is None:
        return logits
    return logits + tf.reshape(tf.cast(biases.rows(flat), inputs.dtype), shape)


def cap_logits(logits: tf.Tensor, cap: float | None) -> tf.Tensor:
    """Computes `cap * tanh(logits / cap)`; the logits themselves without a cap."""
    return logits if cap is None else cap * tf.tanh(logits / cap)


def cap_derivative(capped: tf.Tensor, cap: float) -> tf.Tensor:
    """Computes the derivative of `cap_logits` from its result."""
    return 1 - tf.square(capped / cap)
