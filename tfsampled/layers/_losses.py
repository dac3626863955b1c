"""Losses and ranks of a head, from parsed labels.

`SampledSoftmaxModel` and the metrics use them too.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from tfsampled._core import replicas
from tfsampled._core.candidate_sampling.samplers import (
    Candidates,
    Draw,
    as_draw,
    with_counts,
)
from tfsampled._core.candidate_sampling.union import certain, union
from tfsampled._core.embedding.sharded_table import unit_rows
from tfsampled._core.full_softmax.loss import LossOptions, full_softmax_loss
from tfsampled._core.full_softmax.ranks import full_softmax_ranks
from tfsampled._core.labels import (
    Labels,
    PackedExamples,
    apply_weights,
    broadcast_to_examples,
    flatten_inputs,
    parse_negatives,
    real_tensor,
)
from tfsampled._core.sampled_loss.api import loss_from_candidates
from tfsampled._core.sampled_loss.loss_functions import SOFTMAX
from tfsampled._core.static_ops import compute_dtype, num_rows
from tfsampled._core.xla import on_host, tracing_for_xla
from tfsampled.layers import _class_table
from tfsampled.layers import _head_labels as head_labels


def compute_losses(
    head: Any,
    inputs: tf.Tensor,
    targets: Labels,
    sample_weight: Any,
    sampled: bool,
    negatives: Any = None,
) -> tf.Tensor:
    """Computes the losses `[...]` of valid labels."""
    examples = inputs.shape[:-1]
    weight = broadcast_to_examples(sample_weight, examples, "sample_weight")
    rows, shape = logit_rows(head, inputs, targets.example_mask)
    shared, own = parse_negatives(negatives, examples, head.num_classes)
    valid = [ids for ids in (shared, own) if ids is not None]
    if valid:
        with tf.control_dependencies(valid), on_host():  # a refused call draws nothing
            targets = targets._replace(ids=tf.identity(targets.ids))
    ids = targets.ids
    with on_host():
        label_weights = targets.label_weights(compute_dtype(rows.dtype))
    if sampled:
        with on_host():
            sizes = head.num_classes, head.num_sampled
            drawn = as_draw(head.sampler.draw(ids, targets.label_mask, *sizes))
            if shared is not None:
                (shared,) = replicas.all_gather(shared)  # each has a part of a batch
                drawn = union([drawn, certain(shared, shared != -1)])
            candidates = with_log_q(head, drawn, ids)
    packed = None
    if targets.example_mask is not None and (sampled or not tracing_for_xla()):
        num_sampled = num_rows(candidates.sampled_candidates) if sampled else 0
        packed = PackedExamples.pack(targets.example_mask, num_sampled)
    if packed is not None:
        (rows,) = packed.take(rows)
        with on_host():
            ids, label_weights = packed.take(ids, label_weights)
    if sampled:
        with on_host():
            counts, has_label = candidates.true_expected_count, targets.example_mask
            if packed is not None:
                counts, own = packed.take(counts, own)
                has_label = packed.has_label
            if has_label is not None:
                # A masked example reads a row that is read anyway: the optimizer would
                # move that of another class, which may have an expected count of 0.
                has_label = tf.reshape(has_label, [-1, 1])
                own = None if own is None else tf.where(has_label, own, -1)
                ids = tf.where(has_label, ids, candidates.sampled_candidates[0])
                counts = tf.where(has_label, counts, 1.0)
                candidates = candidates._replace(true_expected_count=counts)
        losses = loss_from_candidates(
            SOFTMAX,
            weights=_class_table.sampled_rows(head),
            biases=_class_table.biases(head),
            labels=ids,
            inputs=rows,
            candidates=candidates,
            num_classes=head.num_classes,
            remove_accidental_hits=head.remove_accidental_hits,
            label_weights=label_weights,
            num_hard_negatives=head.num_hard_negatives,
            negatives=own,
            soft_cap=head.logit_soft_cap,
            num_valid=None if packed is None else packed.num_valid,
        )
    else:
        tables = _class_table.full(head), _class_table.biases(head)
        options = LossOptions(soft_cap=head.logit_soft_cap)
        losses = full_softmax_loss(rows, *tables, ids, label_weights, options)
    if packed is not None:
        losses = packed.restore(losses)
    losses = tf.reshape(tf.cast(losses, head.variable_dtype), shape)
    losses.set_shape(examples)
    return apply_weights(losses, weight, targets.example_mask)


def label_ranks(
    head: Any, inputs: Any, labels: Any, mask: Any, exclude: Any
) -> tf.Tensor:
    """Computes the ranks `[..., num_true]` of labels; of padding the int32 max."""
    inputs, targets = head_labels.parse_valid(
        head, inputs, labels, None, mask, sampled=False, exclude=exclude
    )
    rows, shape = logit_rows(head, inputs, targets.example_mask)
    exclude = head_labels.class_lists(head, exclude, inputs, "exclude")
    ids, packed = targets.ids, None
    if targets.example_mask is not None and not tracing_for_xla():
        packed = PackedExamples.pack(targets.example_mask)
    if packed is not None:
        (rows,) = packed.take(rows)
        with on_host():
            ids, exclude = packed.take(ids, exclude)
    tables = _class_table.full(head), _class_table.biases(head)
    ranks = full_softmax_ranks(rows, *tables, ids, exclude)
    if packed is not None:
        ranks = packed.restore(ranks)
    if targets.label_mask is not None:
        ranks = tf.where(targets.label_mask, ranks, ranks.dtype.max)
    return tf.reshape(ranks, tf.concat([shape, [head.num_true]], axis=0))


def with_log_q(head: Any, drawn: Draw, labels: tf.Tensor) -> Candidates:
    """Counts labels and sampled classes as the head's `log_q` says."""
    if head.log_q is None:
        drawn = drawn._replace(expected_count=lambda ids: tf.ones_like(ids, "float32"))
    candidates = with_counts(drawn, labels)
    if head.log_q == "corrected":
        ones = tf.ones_like(candidates.true_expected_count)
        candidates = candidates._replace(true_expected_count=ones)
    return candidates


def logit_rows(
    head: Any, inputs: tf.Tensor, example_mask: tf.Tensor | None = None
) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns inputs `[..., dim]` as scaled rows, and the shape `...`.

    Rows are in the table's dtype. Masked ones are 0: a NaN among them would make
    every gradient NaN.
    """
    inputs = tf.cast(real_tensor(inputs, "inputs"), head.variable_dtype)
    if not head.built:
        head.build(inputs.shape)
    if example_mask is not None:
        inputs = tf.where(example_mask[..., tf.newaxis], inputs, 0)
    rows, shape = flatten_inputs(inputs, head.input_spec.axes[-1])
    if head.normalize:
        rows = tf.cast(unit_rows(rows), rows.dtype)
    return rows if head.temperature == 1 else rows / head.temperature, shape
