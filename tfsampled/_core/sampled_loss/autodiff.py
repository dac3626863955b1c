"""The loss of sampled logits, with a gradient that is computed in chunks."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from tfsampled._core.candidate_sampling.accidental_hits import AccidentalHits
from tfsampled._core.sampled_loss import chunked_gradient
from tfsampled._core.sampled_loss.loss_functions import LossFunction
from tfsampled._core.xla import traced_as, tracing_for_xla


def sampled_loss_with_gradient(
    loss_function: LossFunction,
    true_logits: tf.Tensor,
    inputs: tf.Tensor,
    rows: tf.Tensor,
    biases: tf.Tensor | None,
    log_q_correction: tf.Tensor,
    hits: AccidentalHits | None,
    label_weights: tf.Tensor | None = None,
    num_hard: int | None = None,
    soft_cap: float | None = None,
    num_valid: tf.Tensor | None = None,
) -> tf.Tensor:
    """Computes the loss without a tensor of all the sampled logits.

    The gradient is that of `chunked_gradient`. The gradient of the gradient is that of
    `loss_function.from_logits`, which makes the logits `[batch, num_sampled]`.

    Args:
        true_logits: `[batch, num_true]`, corrected.
        inputs: `[batch, dim]`.
        rows: `[num_sampled, dim]`, of the sampled classes.
        biases: `[num_sampled]`, or None for no bias.
        log_q_correction: Added to the sampled logits; `[num_sampled]`,
            `[1, num_sampled]` or `[batch, num_sampled]`. A constant.
        hits: The logits to mask, or None for none.
        label_weights: `[batch, num_true]`, see `loss_functions`. A constant.
        num_hard: How many sampled classes of the highest logits enter an example's
            loss; None for all.
        soft_cap: Caps the sampled logits before they are corrected.
        num_valid: How many examples are needed, see `loss_from_candidates`.

    Returns:
        `[batch]`, in the dtype of `true_logits`.
    """
    operands = (true_logits, inputs, rows, *([] if biases is None else [biases]))
    constants = (log_q_correction, hits, label_weights, num_hard, soft_cap)
    for_xla = tracing_for_xla()

    @tf.custom_gradient
    def forward(*operands: tf.Tensor) -> tuple[tf.Tensor, Callable[..., Any]]:
        # Hidden from outer tapes, which would save every intermediate of a loop.
        true_logits, *others = map(tf.stop_gradient, operands)
        sampled = _sampled_logits(others, log_q_correction, hits, num_hard, soft_cap)
        plan = chunked_gradient.plan_chunks(loss_function, sampled, num_valid)
        loss, residuals = chunked_gradient.forward(
            loss_function, true_logits, label_weights, plan
        )

        @tf.custom_gradient
        def backward(dy: tf.Tensor, *operands: tf.Tensor) -> tuple:
            constant_dy = tf.stop_gradient(dy)
            d_true_logits = residuals.d_true_logits * tf.expand_dims(constant_dy, 1)
            chunks, has_left = plan, for_xla and not tracing_for_xla()
            with traced_as(for_xla):
                if has_left:  # there the sizes of `plan` are no constants for XLA
                    chunks = chunked_gradient.plan_chunks(
                        loss_function, sampled, num_valid
                    )
                d_others = chunked_gradient.backward(chunks, residuals, constant_dy)
            gradients = [
                tf.cast(gradient, operand.dtype)
                for gradient, operand in zip(d_others, others, strict=False)
            ]

            def backward_vjp(*cotangents: tf.Tensor | None) -> list[tf.Tensor]:
                with traced_as(for_xla):
                    vjp = _gradient_vjp(loss_function, tracing_for_xla())
                    return vjp(dy, list(operands), list(cotangents), *constants)

            return (d_true_logits, *gradients), backward_vjp

        # `tf.gather` of losses has a `tf.IndexedSlices` as its gradient.
        return loss, lambda dy: backward(tf.convert_to_tensor(dy), *operands)

    return forward(*operands)


def _sampled_logits(
    operands: Sequence[tf.Tensor],
    log_q_correction: tf.Tensor,
    hits: AccidentalHits | None,
    num_hard: int | None,
    soft_cap: float | None,
) -> chunked_gradient.SampledLogits:
    inputs, rows, *biases = operands
    if soft_cap is None:  # one addition does for both
        biases, log_q_correction = [], sum(biases, start=log_q_correction)
    return chunked_gradient.SampledLogits(
        inputs, rows, log_q_correction, hits, num_hard, soft_cap, *biases
    )


@functools.cache
def _gradient_vjp(loss_function: LossFunction, for_xla: bool) -> Any:
    """Returns the function that differentiates the gradient of a loss.

    It is a `tf.function`, traced once for each set of shapes, because `tf.gradients`
    needs a graph and tapes record nothing in forward-mode differentiation.

    Args:
        for_xla: Whether the function is traced for XLA, whose operations differ.
    """
    del for_xla  # a key of the cache

    @tf.function(autograph=False)
    def gradient_vjp(
        dy: tf.Tensor,
        operands: list[tf.Tensor],
        cotangents: list[tf.Tensor | None],
        log_q_correction: tf.Tensor,
        hits: AccidentalHits | None,
        label_weights: tf.Tensor | None,
        num_hard: int | None,
        soft_cap: float | None,
    ) -> list[tf.Tensor]:
        """Returns the derivatives of the gradient by `dy` and by each operand."""
        true_logits, inputs, rows, *biases = operands
        rows = tf.cast(rows, true_logits.dtype)  # so that products keep their digits
        sampled = _sampled_logits(
            [inputs, rows, *biases], log_q_correction, hits, num_hard, soft_cap
        )
        logits, _ = sampled.compute()
        loss = loss_function.from_logits(true_logits, logits, label_weights)
        gradients = tf.gradients(loss, operands, dy)
        pairs = [
            (gradient, cotangent)
            for gradient, cotangent in zip(gradients, cotangents, strict=True)
            if gradient is not None and cotangent is not None
        ]
        return tf.gradients(
            [gradient for gradient, _ in pairs],
            [dy, *operands],
            [cotangent for _, cotangent in pairs],
            unconnected_gradients="zero",
        )

    return gradient_vjp
