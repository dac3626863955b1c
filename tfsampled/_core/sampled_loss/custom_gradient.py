"""The loss of sampled logits with a gradient of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from tfsampled._core.candidate_sampling.hits import Hits
from tfsampled._core.sampled_loss import chunked as blocks
from tfsampled._core.sampled_loss.loss_functions import Loss


def fused(
    loss: Loss,
    true_logits: tf.Tensor,
    inputs: tf.Tensor,
    rows: tf.Tensor,
    biases: tf.Tensor | None,
    correction: tf.Tensor,
    hits: Hits | None,
) -> tf.Tensor:
    """`loss.composed` of sampled logits that do not exist as a whole.

    Its gradient is written out in `blocks`; derivatives of that gradient are those of
    the composed loss, which makes the `[batch, num_sampled]` logits.

    Args:
      loss: which loss.
      true_logits: `[batch, num_true]`, corrected.
      inputs: `[batch, dim]`.
      rows: `[num_sampled, dim]`.
      biases: `[num_sampled]`, or None for none.
      correction: added to the sampled logits, `[num_sampled]`, `[1, num_sampled]` or
        `[batch, num_sampled]`, a constant.
      hits: what to leave out, or None for nothing.

    Returns:
      `[batch]`, in the dtype of `true_logits`.
    """
    operands = (true_logits, inputs, rows, *([] if biases is None else [biases]))

    def sampled(
        inputs: tf.Tensor, rows: tf.Tensor, *biases: tf.Tensor
    ) -> blocks.Sampled:
        return blocks.Sampled(inputs, rows, sum(biases, start=correction), hits)

    def composed(
        true_logits: tf.Tensor, inputs: tf.Tensor, rows: tf.Tensor, *biases: tf.Tensor
    ) -> tf.Tensor:
        rows = tf.cast(rows, correction.dtype)  # products of one dtype are all smooth
        return loss.composed(true_logits, sampled(inputs, rows, *biases).logits())

    @tf.custom_gradient
    def whole(*operands: tf.Tensor) -> tuple[tf.Tensor, Any]:
        # Not for the tapes around: they would have loops keep all that they make.
        true_logits, *others = map(tf.stop_gradient, operands)
        parts = sampled(*others)
        plan = blocks.plan(parts)
        outcome = blocks.forward(loss, true_logits, parts, plan)

        @tf.custom_gradient
        def gradient(upstream: tf.Tensor, *operands: tf.Tensor) -> tuple:
            ups = tf.stop_gradient(upstream)
            by_true = outcome.true_slopes * ups[:, tf.newaxis]
            by_parts = blocks.backward(loss, parts, plan, outcome, ups)
            by_others = [
                tf.cast(slope, operand.dtype)
                for slope, operand in zip(by_parts, others, strict=False)
            ]
            return (by_true, *by_others), lambda *directions: _derivative(
                composed, upstream, operands, directions
            )

        return outcome.loss, lambda upstream: gradient(upstream, *operands)

    return whole(*operands)


def _derivative(
    function: Callable[..., tf.Tensor],
    upstream: tf.Tensor,
    operands: Sequence[tf.Tensor],
    directions: Sequence[tf.Tensor | None],
) -> list[tf.Tensor]:
    """Derivatives of the gradient of `function`, by `upstream` and each operand.

    Args:
      function: of the operands.
      upstream: derivatives by its result.
      directions: derivatives by its gradient; None for 0.
    """

    # A graph of its own, as nothing is recorded in forward-mode differentiation.
    @tf.function(autograph=False)
    def twice(upstream: tf.Tensor, operands: Any, directions: Any) -> list[tf.Tensor]:
        first = tf.gradients(function(*operands), operands, upstream)
        pairs = [
            pair for pair in zip(first, directions, strict=True) if pair[1] is not None
        ]
        return tf.gradients(
            [slope for slope, _ in pairs],
            [upstream, *operands],
            [direction for _, direction in pairs],
            unconnected_gradients="zero",
        )

    return twice(upstream, list(operands), list(directions))
