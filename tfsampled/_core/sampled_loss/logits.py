"""From ids to what corrected logits are made of: rows, biases, the log q correction."""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

from tfsampled._core import validation
from tfsampled._core.batches import repeated_for
from tfsampled._core.candidate_sampling.samplers import Candidates
from tfsampled._core.loss_arguments import Arguments


class Factors(NamedTuple):
    """Logits of the labels, and what those of the candidates are made of.

    Attributes:
      true_logits: `[batch, num_true]`: `<inputs, weight_c> + bias_c - log(expected
        count_c)` in `arguments.compute_dtype`.
      inputs: `[batch, dim]`.
      rows: `[num_sampled, dim]`, of the candidates; in the table's dtype where that
        is the inputs' too.
      biases: `[num_sampled]`, or None for no bias.
      correction: minus log expected counts, `[num_sampled]` or, where the caller's
        differ by example, `[batch, num_sampled]`, or `[1, num_sampled]`.
    """

    true_logits: tf.Tensor
    inputs: tf.Tensor
    rows: tf.Tensor
    biases: tf.Tensor | None
    correction: tf.Tensor


def factors(
    arguments: Arguments, candidates: Candidates, limit: int | tf.Tensor
) -> Factors:
    """The factors of the corrected logits of labels and candidates.

    A class id outside `[0, limit)` makes the logits it enters NaN. Off XLA an
    assertion has failed before; XLA has none, and reads some row all the same.

    Args:
      arguments: tables, `labels` `[batch, num_true]`, `inputs` `[batch, dim]`.
      candidates: ids `[num_sampled]` and the expected counts.
      limit: the number of classes.
    """
    dtype = arguments.compute_dtype
    labels, sampled = arguments.labels, candidates.sampled_candidates
    ids = tf.concat([tf.reshape(labels, [-1]), sampled], axis=0)
    # One lookup for both kinds of ids, so that a table gets one IndexedSlices.
    width = tf.compat.dimension_value(sampled.shape[0])
    parts = [-1, tf.size(sampled) if width is None else width]

    inputs = tf.ensure_shape(tf.cast(arguments.inputs, dtype), [None, None])
    inputs = repeated_for(inputs, labels)
    rows = tf.ensure_shape(arguments.weights.rows(ids), [None, None])
    if rows.dtype != arguments.inputs.dtype:
        rows = tf.cast(rows, dtype)  # only narrow times narrow is done narrowly
    true_rows, sampled_rows = tf.split(rows, parts)
    true_rows = tf.cast(true_rows, dtype)
    true_rows = tf.reshape(true_rows, [-1, arguments.num_true, tf.shape(true_rows)[1]])
    true_logits = tf.reduce_sum(inputs[:, tf.newaxis, :] * true_rows, axis=2)
    true_logits += _correction(labels, candidates.true_expected_count, limit, dtype)
    sampled_biases = None
    if arguments.biases is not None:
        biases = tf.ensure_shape(arguments.biases.rows(ids), [None])
        biases = tf.cast(biases, dtype)
        true_biases, sampled_biases = tf.split(biases, parts)
        true_logits += tf.reshape(true_biases, tf.shape(labels))
    true_logits = tf.ensure_shape(true_logits, [None, arguments.num_true])
    count = candidates.sampled_expected_count
    correction = _correction(sampled, count, limit, dtype)
    if correction.shape.rank != 1 and not _rows_known(correction):
        shape = [tf.shape(inputs)[0], tf.shape(sampled_rows)[0]]
        correction = tf.broadcast_to(correction, shape)
    return Factors(true_logits, inputs, sampled_rows, sampled_biases, correction)


def _rows_known(tensor: tf.Tensor) -> bool:
    return tensor.shape.rank is not None and tensor.shape.as_list()[0] is not None


def _correction(
    ids: tf.Tensor, count: tf.Tensor, limit: int | tf.Tensor, dtype: tf.DType
) -> tf.Tensor:
    """`-log(count)`, NaN where the id is none of a class."""
    correction = -tf.math.log(tf.cast(count, dtype))
    nan = tf.constant(float("nan"), dtype)
    return tf.where(validation.in_range(ids, limit), correction, nan)
