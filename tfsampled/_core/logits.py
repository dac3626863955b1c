"""From ids to logits: rows of the table, products, and the log q correction."""

from __future__ import annotations

import tensorflow as tf

from tfsampled._core import checks
from tfsampled._core.arguments import Arguments
from tfsampled._core.batches import repeated_for
from tfsampled._core.candidates import Candidates


def corrected(
    arguments: Arguments, candidates: Candidates, limit: int | tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """`<inputs, weight_c> + bias_c - log(expected count_c)` of labels and candidates.

    A class id outside `[0, limit)` makes the logits it enters NaN. Off XLA an
    assertion has failed before; XLA has none, and reads some row all the same.

    Args:
      arguments: tables, `labels` `[batch, num_true]`, `inputs` `[batch, dim]`.
      candidates: ids `[num_sampled]` and the expected counts.
      limit: the number of classes.

    Returns:
      `(true_logits [batch, num_true], sampled_logits [batch, num_sampled])` in
      `arguments.compute_dtype`.
    """
    dtype = arguments.compute_dtype
    labels, sampled = arguments.labels, candidates.sampled_candidates
    ids = tf.concat([tf.reshape(labels, [-1]), sampled], axis=0)
    # One lookup for both kinds of ids, so that a table gets one IndexedSlices.
    parts = [-1, tf.compat.dimension_value(sampled.shape[0]) or tf.size(sampled)]

    inputs = repeated_for(tf.cast(arguments.inputs, dtype), labels)
    rows = tf.cast(arguments.weights.rows(ids), dtype)
    true_rows, sampled_rows = tf.split(rows, parts)
    true_rows = tf.reshape(true_rows, [-1, arguments.num_true, tf.shape(true_rows)[1]])
    true_logits = tf.reduce_sum(inputs[:, tf.newaxis, :] * true_rows, axis=2)
    sampled_logits = tf.matmul(inputs, sampled_rows, transpose_b=True)

    true_offset = _offset(labels, candidates.true_expected_count, limit, dtype)
    sampled_offset = _offset(sampled, candidates.sampled_expected_count, limit, dtype)
    if arguments.biases is not None:
        offsets = tf.cast(arguments.biases.rows(ids), dtype)
        true_bias, sampled_bias = tf.split(offsets, parts)
        true_offset += tf.reshape(true_bias, tf.shape(labels))
        sampled_offset += sampled_bias
    return true_logits + true_offset, sampled_logits + sampled_offset


def _offset(
    ids: tf.Tensor, count: tf.Tensor, limit: int | tf.Tensor, dtype: tf.DType
) -> tf.Tensor:
    """`-log(count)`, NaN where the id is none of a class."""
    correction = -tf.math.log(tf.cast(count, dtype))
    nan = tf.constant(float("nan"), dtype)
    return tf.where(checks.in_range(ids, limit), correction, nan)
