"""From class ids to what corrected logits are made of: rows, biases, log q."""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

from tfsampled._core import validation
from tfsampled._core.candidate_sampling.samplers import Candidates
from tfsampled._core.embedding import matmul
from tfsampled._core.embedding.class_logits import cap_logits
from tfsampled._core.embedding.sharded_table import Table
from tfsampled._core.loss_arguments import broadcast_batch
from tfsampled._core.static_ops import Size, compute_dtype, num_rows
from tfsampled._core.xla import on_host


class LogitInputs(NamedTuple):
    """The labels' logits, and what the sampled logits are computed from.

    Attributes:
        true_logits: `[batch, num_true]`: `<inputs, weight_c> + bias_c - log(expected
            count_c)`, at least float32.
        inputs: `[batch, dim]`, at least float32.
        rows: `[num_sampled, dim]`, of the candidates; in the table's dtype if they are
            multiplied in it, else in that of the logits.
        biases: `[num_sampled]`, or None for no bias.
        log_q_correction: Minus log expected counts: `[num_sampled]` or, if the caller's
            counts differ by example, `[batch, num_sampled]` or `[1, num_sampled]`.
    """

    true_logits: tf.Tensor
    inputs: tf.Tensor
    rows: tf.Tensor
    biases: tf.Tensor | None
    log_q_correction: tf.Tensor


def lookup(
    *,
    weights: Table,
    biases: Table | None,
    labels: tf.Tensor,
    inputs: tf.Tensor,
    candidates: Candidates,
    num_classes: Size,
    soft_cap: float | None = None,
) -> LogitInputs:
    """Looks up the rows of labels and candidates, and corrects the logits.

    A class id outside `[0, num_classes)` makes the logits that it enters NaN: XLA has
    no assertions, and reads some row.

    Args:
        weights: Rows `[dim]`.
        biases: Rows `[]`, or None.
        labels: int64 `[batch, num_true]`.
        inputs: `[batch, dim]`, floating.
        candidates: Ids `[num_sampled]` and expected counts.
        soft_cap: Caps the labels' logits, before they are corrected.
    """
    dtype = compute_dtype(inputs.dtype)

    def log_q(ids: tf.Tensor, count: tf.Tensor) -> tf.Tensor:
        log_count = tf.math.log(tf.cast(count, dtype))
        return validation.nan_if_out_of_range(log_count, ids, num_classes)

    num_true, sampled = labels.shape[1], candidates.sampled_candidates
    # One lookup for all ids, so that a table gets one IndexedSlices.
    with on_host():
        ids = tf.concat([tf.reshape(labels, [-1]), sampled], axis=0)
    sizes = [-1, num_rows(sampled)]

    rows = tf.ensure_shape(weights.rows(ids), [None, None])
    rows = tf.cast(rows, matmul.factor_dtype(rows.dtype, inputs.dtype))
    inputs = broadcast_batch(
        tf.ensure_shape(tf.cast(inputs, dtype), [None, None]), labels
    )
    true_rows, sampled_rows = tf.split(rows, sizes)
    dim = true_rows.shape[1] or inputs.shape[1] or tf.shape(true_rows)[1]
    true_rows = tf.reshape(tf.cast(true_rows, dtype), [-1, num_true, dim])
    # With the axis kept, the gradient on a GPU does not wait for a shape.
    true_logits = tf.reduce_sum(
        tf.expand_dims(inputs, 1) * true_rows, axis=2, keepdims=True
    )
    true_logits = tf.squeeze(true_logits, axis=2)
    sampled_biases = None
    if biases is not None:
        all_biases = tf.cast(tf.ensure_shape(biases.rows(ids), [None]), dtype)
        true_biases, sampled_biases = tf.split(all_biases, sizes)
        true_logits += tf.reshape(true_biases, [-1, num_true])
    true_logits = cap_logits(true_logits, soft_cap)
    true_logits -= log_q(labels, candidates.true_expected_count)
    true_logits = tf.ensure_shape(true_logits, [None, num_true])
    correction = -log_q(sampled, candidates.sampled_expected_count)
    if correction.shape.rank is None or (
        correction.shape.rank == 2
        and tf.compat.dimension_value(correction.shape[0]) is None
    ):
        shape = [tf.shape(inputs)[0], tf.shape(sampled_rows)[0]]
        correction = tf.broadcast_to(correction, shape)
    return LogitInputs(true_logits, inputs, sampled_rows, sampled_biases, correction)
