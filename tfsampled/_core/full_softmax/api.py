"""The exact softmax of `tfsampled.nn`: arguments converted, checked and handed down."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from tfsampled._core import full_softmax as exact
from tfsampled._core import loss_arguments as arguments
from tfsampled._core import validation
from tfsampled._core.batches import repeated_for


@tf.autograph.experimental.do_not_convert  # a caller's tf.function need not rewrite it
def loss(
    weights: Any,
    biases: Any,
    labels: Any,
    inputs: Any,
    num_true: Any,
    partition_strategy: str,
    name: str | None,
) -> tf.Tensor:
    """The losses `[batch]`; arguments as in `tfsampled.nn.softmax_loss`."""
    with tf.compat.v1.name_scope(name, "softmax_loss"):
        given = arguments.convert(
            weights, biases, labels, inputs, num_true, partition_strategy, True
        )
        _check_tables(given)
        sound = validation.assert_same_batch(given.labels, given.inputs)
        sound += validation.assert_ids_in_range(
            given.labels, given.weights.num_rows(), "labels"
        )
        given = given.after(sound)
        losses = exact.loss(
            repeated_for(given.inputs, given.labels),
            given.weights,
            given.biases,
            repeated_for(given.labels, given.inputs),
        )
        losses = tf.cast(losses, given.inputs.dtype)
        losses.set_shape([given.static_batch])
        return losses


@tf.autograph.experimental.do_not_convert
def top_k(
    weights: Any,
    biases: Any,
    inputs: Any,
    k: Any,
    partition_strategy: str,
    name: str | None,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Logits and ids `[batch, k]`; arguments as in `tfsampled.nn.softmax_top_k`."""
    with tf.compat.v1.name_scope(name, "softmax_top_k"):
        given = arguments.convert(
            weights, biases, [[0]], inputs, 1, partition_strategy, True
        )
        k = validation.positive_int(k, "k")
        num_classes = _check_tables(given)
        if num_classes is not None and k > num_classes:
            raise ValueError(
                f"k is {k}, but there are only {num_classes} classes: pass at most "
                "num_classes."
            )
        values, ids = exact.top_k(given.inputs, given.weights, given.biases, k)
        return tf.cast(values, given.inputs.dtype), ids


def _check_tables(given: arguments.Arguments) -> int | None:
    """The number of classes where it is known.

    Raises:
      ValueError: weights and biases differ in it, or shards are not cut as they should.
    """
    classes = given.weights.static_rows
    if classes is None:
        return None
    arguments.check_classes(given, classes)
    biases = None if given.biases is None else given.biases.static_rows
    if biases not in (None, classes):
        raise ValueError(
            f"weights have {classes} rows, but biases have {biases}: every row is a "
            "class, and has one bias."
        )
    return classes
