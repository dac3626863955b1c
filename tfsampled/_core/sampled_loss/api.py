"""The way through: labels, candidates, rows of the table, logits, loss."""

from __future__ import annotations

import functools
from typing import Any

import tensorflow as tf

from tfsampled._core import validation
from tfsampled._core.batches import repeated_for
from tfsampled._core.candidate_sampling import hits
from tfsampled._core.candidate_sampling import samplers as sampler
from tfsampled._core.loss_arguments import Arguments, check_classes, convert
from tfsampled._core.sampled_loss import logits, sampled_values
from tfsampled._core.sampled_loss.custom_gradient import fused
from tfsampled._core.sampled_loss.loss_functions import Loss


@tf.autograph.experimental.do_not_convert  # a caller's tf.function need not rewrite it
def sampled_loss(
    loss: Loss,
    weights: Any,
    biases: Any,
    labels: Any,
    inputs: Any,
    num_sampled: Any,
    num_classes: Any,
    num_true: Any,
    given: Any,
    remove_accidental_hits: bool,
    partition_strategy: str,
    name: str | None,
    seed: int | None,
) -> tf.Tensor:
    """`loss` of the corrected logits, `[batch]`, in the dtype of `inputs`.

    Args:
      loss: one of `losses`.
      given: the caller's `sampled_values`; `None` draws log-uniform candidates.
      others: as in `tfsampled.nn.sampled_softmax_loss`.
    """
    values = tf.nest.flatten([weights, biases, inputs, labels])
    with tf.compat.v1.name_scope(name, "compute_sampled_logits", values):
        arguments = convert(
            weights,
            biases,
            labels,
            inputs,
            num_true,
            partition_strategy,
            columns_matter=given is None or remove_accidental_hits,
        )
        limit: int | tf.Tensor
        if given is None:
            limit = validation.positive_int(num_classes, "num_classes")
            arguments, candidates = _draw(arguments, num_sampled, limit, seed)
        else:
            limit = arguments.rows
            length = num_sampled if remove_accidental_hits else None
            arguments, candidates = _take(arguments, given, length, num_classes)

        factors = logits.factors(arguments, candidates, limit)
        left_out = None
        if remove_accidental_hits:
            labels = repeated_for(arguments.labels, factors.inputs)
            left_out = hits.find(labels, candidates.sampled_candidates)
        losses = fused(loss, *factors, left_out)
        losses = tf.cast(losses, arguments.inputs.dtype)
        losses.set_shape([arguments.static_batch])
        return losses


def _draw(
    arguments: Arguments, num_sampled: Any, num_classes: int, seed: int | None
) -> tuple[Arguments, sampler.Candidates]:
    """Log-uniform candidates, and the arguments once they are found to be sound."""
    num_sampled = validation.positive_int(num_sampled, "num_sampled")
    if num_sampled > num_classes:
        raise ValueError(
            f"num_sampled is {num_sampled}, but there are {num_classes} classes to "
            "draw from without replacement: draw fewer."
        )
    check_classes(arguments, num_classes)
    sound = validation.assert_same_batch(arguments.labels, arguments.inputs)
    sound += validation.assert_ids_in_range(arguments.labels, num_classes, "labels")
    # The draw waits for the checks: a refused call leaves the sampler where it was.
    arguments = arguments.after(sound)
    with tf.control_dependencies(sound):
        candidates = sampler.log_uniform(
            arguments.labels,
            arguments.num_true,
            num_sampled,
            True,
            num_classes,
            functools.partial(tf.compat.v1.random.get_seed, seed),
        )
    return arguments, candidates


def _take(
    arguments: Arguments, given: Any, num_sampled: Any, num_classes: Any
) -> tuple[Arguments, sampler.Candidates]:
    """The caller's candidates, and the arguments once they are found to be sound.

    TensorFlow reads `num_classes` only to draw. A wrong one is refused where the call
    shows it; labels may be any row of the table.
    """
    num_classes = validation.static_int(num_classes, "num_classes")
    if num_classes is not None:
        check_classes(arguments, num_classes)
    candidates = sampled_values.convert(
        given, arguments, validation.static_int(num_sampled, "num_sampled", minimum=0)
    )
    ids = candidates.sampled_candidates
    sound = validation.assert_same_batch(arguments.labels, arguments.inputs)
    sound += validation.assert_ids_in_range(arguments.labels, arguments.rows, "labels")
    sound += validation.assert_ids_in_range(ids, arguments.rows, "sampled_candidates")
    with tf.control_dependencies(sound):
        candidates = candidates._replace(sampled_candidates=tf.identity(ids))
    return arguments.after(sound), candidates
