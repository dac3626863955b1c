"""The full softmax functions of `tfsampled.nn`: convert and check, then compute."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from tfsampled._core import loss_arguments, validation
from tfsampled._core.embedding.sharded_table import Table
from tfsampled._core.full_softmax.loss import LossOptions, full_softmax_loss
from tfsampled._core.full_softmax.top_k import full_softmax_top_k
from tfsampled._core.labels import parse_class_lists
from tfsampled._core.loss_arguments import broadcast_batch


@tf.autograph.experimental.do_not_convert  # a caller's tf.function need not rewrite it
def softmax_loss(
    *,
    weights: Any,
    biases: Any,
    labels: Any,
    inputs: Any,
    num_true: Any,
    partition_strategy: str,
    label_smoothing: Any,
    logit_soft_cap: Any,
    z_loss: Any,
    name: str | None,
) -> tf.Tensor:
    """Computes the losses `[batch]`; see `tfsampled.nn.softmax_loss`."""
    options = LossOptions(
        validation.fraction(label_smoothing, "label_smoothing"),
        validation.optional_positive_float(logit_soft_cap, "logit_soft_cap"),
        validation.fraction(z_loss, "z_loss"),
    )
    with tf.compat.v1.name_scope(name, "softmax_loss"):
        arguments = loss_arguments.convert(
            weights=weights,
            biases=biases,
            labels=labels,
            inputs=inputs,
            num_true=num_true,
            partition_strategy=partition_strategy,
        )
        _validate_tables(arguments.weights, arguments.biases)
        labels, num_rows = arguments.labels, arguments.weights.num_rows()
        checks = [validation.ids_check(labels, num_rows, "labels")]
        checks += validation.batch_checks(labels, arguments.inputs)
        arguments = arguments.after(validation.assert_all(checks))
        losses = full_softmax_loss(
            broadcast_batch(arguments.inputs, like=arguments.labels),
            arguments.weights,
            arguments.biases,
            broadcast_batch(arguments.labels, like=arguments.inputs),
            options=options,
        )
        losses = tf.cast(losses, arguments.inputs.dtype)
        losses.set_shape([arguments.static_batch])
        return losses


@tf.autograph.experimental.do_not_convert
def softmax_top_k(
    *,
    weights: Any,
    biases: Any,
    inputs: Any,
    k: Any,
    partition_strategy: str,
    exclude: Any,
    name: str | None,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Finds logits and ids `[batch, k]`; see `tfsampled.nn.softmax_top_k`."""
    with tf.compat.v1.name_scope(name, "softmax_top_k"):
        weights, biases = loss_arguments.convert_tables(
            weights, biases, partition_strategy
        )
        inputs = loss_arguments.convert_inputs(inputs, weights)
        num_classes = _validate_tables(weights, biases)
        k = validation.positive_int(k, "k", num_classes=num_classes)
        if exclude is not None:
            num_rows = weights.num_rows()
            exclude = parse_class_lists(exclude, inputs.shape[:1], num_rows, "exclude")
        values, ids = full_softmax_top_k(inputs, weights, biases, k, exclude)
        return tf.cast(values, inputs.dtype), tf.cast(ids, tf.int32)


def _validate_tables(weights: Table, biases: Table | None) -> int | None:
    """Returns the number of classes, None if unknown.

    Raises:
        ValueError: If weights and biases differ in it, or shards are not cut as
            `partition_strategy` says.
    """
    num_classes = weights.static_rows
    if num_classes is None:
        return None
    loss_arguments.check_classes(weights, biases, num_classes)
    num_biases = None if biases is None else biases.static_rows
    if num_biases not in (None, num_classes):
        raise ValueError(
            "`biases` must have as many rows as `weights`. Received: "
            f"{num_biases} biases, {num_classes} rows of weights."
        )
    return num_classes
