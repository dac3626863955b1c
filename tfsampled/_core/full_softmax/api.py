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
from tfsampled._core.xla import on_host


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
        checks = _table_checks(arguments.weights, arguments.biases)
        labels, num_rows = arguments.labels, arguments.weights.num_rows()
        checks += [validation.ids_check(labels, num_rows, "labels")]
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
        checks = _table_checks(weights, biases)
        k = validation.positive_int(k, "k", num_classes=weights.static_rows)
        num_rows = weights.num_rows()
        if weights.static_rows is None:
            checks.append(_k_check(k, num_rows))
        if checks:
            with tf.control_dependencies(validation.assert_all(checks)):
                inputs = tf.identity(inputs)
        if exclude is not None:
            exclude = parse_class_lists(exclude, inputs.shape[:1], num_rows, "exclude")
        values, ids = full_softmax_top_k(inputs, weights, biases, k, exclude)
        return tf.cast(values, inputs.dtype), tf.cast(ids, tf.int32)


def _table_checks(weights: Table, biases: Table | None) -> list[validation.Check]:
    """Checks that weights and biases have as many rows, where that is unknown.

    Raises:
        ValueError: If it is known that they have not, or shards are not cut as
            `partition_strategy` says.
    """
    num_classes = weights.static_rows
    if num_classes is not None:
        loss_arguments.check_classes(weights, biases, num_classes)
    num_biases = num_classes if biases is None else biases.static_rows
    message = (
        "`biases` must have as many rows as `weights`. Received: "
        "{} biases, {} rows of weights."
    )
    if biases is not None and None in (num_classes, num_biases):
        sizes = [tf.cast(table.num_rows(), tf.int64) for table in (biases, weights)]
        with on_host():
            return [validation.Check(tf.equal(*sizes), message, lambda: sizes)]
    if num_biases != num_classes:
        raise ValueError(message.format(num_biases, num_classes))
    return []


@on_host()
def _k_check(k: int, num_rows: tf.Tensor) -> validation.Check:
    message = f"`k` must be at most `num_classes`. Received: k={k}, num_classes={{}}."
    return validation.Check(num_rows >= k, message, lambda: (num_rows,))
