"""Labels and other class ids of a head: parsed by its arguments, validated once.

`SampledSoftmaxModel` uses the parts: it validates labels once in a step, before
anything has changed.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from tfsampled._core import replicas, validation
from tfsampled._core.labels import (
    Labels,
    integer_labels,
    parse_class_lists,
    parse_labels,
    real_tensor,
)
from tfsampled._core.xla import on_host


def parse_valid(
    head: Any,
    inputs: Any,
    labels: Any,
    sample_weight: Any,
    mask: Any,
    sampled: bool,
    **class_lists: Any,
) -> tuple[tf.Tensor, Labels]:
    """Converts inputs and labels, and validates all arguments of a loss."""
    inputs = real_tensor(inputs, "inputs")
    assertions = validation.assert_all(
        validation.same_batch_checks(
            inputs, labels=labels, sample_weight=sample_weight, mask=mask, **class_lists
        )
    )
    if assertions:
        labels = integer_labels(labels)
        with tf.control_dependencies(assertions), on_host():
            labels = tf.identity(labels)
    targets = parse(head, labels, inputs.shape[:-1], mask)
    return inputs, validated(head, targets, sampled)


def parse(head: Any, labels: Any, examples: tf.TensorShape, mask: Any) -> Labels:
    """Parses labels of examples `[...]`; see `parse_labels`."""
    return parse_labels(labels, examples, head.num_true, head.ignore_class, mask)


def class_lists(head: Any, ids: Any, inputs: Any, name: str) -> tf.Tensor | None:
    """Returns class ids `[N, n]` of examples; None for None."""
    if ids is None:
        return None
    examples = real_tensor(inputs, "inputs").shape[:-1]
    return parse_class_lists(ids, examples, head.num_classes, name)


def checks(
    head: Any, ids: tf.Tensor, label_mask: tf.Tensor | None, sampled: bool
) -> list[validation.Check]:
    """Checks that ids are in range and, if `sampled`, can be drawn."""
    head.sampler.build_once(head.num_classes)  # the head need not be built
    with on_host():
        found = [validation.ids_check(ids, head.num_classes, "labels")]
        if sampled:
            found += head.sampler._support_checks(ids, label_mask)
        return found


def validated(head: Any, targets: Labels, sampled: bool) -> Labels:
    """Returns labels that are not read before they are found to be valid.

    If `sampled`, the labels of all replicas must be found valid first: otherwise some
    replicas would advance their samplers and others would not.
    """
    label_checks = checks(head, targets.ids, targets.label_mask, sampled)
    assertions = validation.assert_all(label_checks)
    if sampled:
        assertions = replicas.all_finished(assertions)
    if not assertions:
        return targets
    with tf.control_dependencies(assertions), on_host():
        return targets._replace(ids=tf.identity(targets.ids))
