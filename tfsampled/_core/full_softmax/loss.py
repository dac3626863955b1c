"""The exact softmax loss, differentiable twice, without a tensor of all the logits."""

from __future__ import annotations

import dataclasses
from typing import Any

import tensorflow as tf

from tfsampled._core.full_softmax import derivatives
from tfsampled._core.full_softmax.chunks import compute_dtype
from tfsampled._core.full_softmax.derivatives import Targets
from tfsampled._core.full_softmax.shards import Part, parts_of

Tensors = tuple[tf.Tensor, ...]


def loss(
    inputs: tf.Tensor,
    weights: Any,
    biases: Any,
    labels: tf.Tensor,
    shares: tf.Tensor | None = None,
) -> tf.Tensor:
    """Cross entropy `[N]` of labels `[N, T]`, of `shares` `[N, T]` or `1 / T` each.

    A label outside `[0, V)` makes its example and its gradient NaN: only the caller
    knows how it wants to report it.

    Args:
      inputs: `[N, D]`, floating.
      weights: `[V, D]`, a tensor or a `Table`.
      biases: `[V]`, likewise, or `None`.
      labels: integers `[N, T]`.
      shares: those of an example add up to 1. They get no gradient.

    Returns:
      float64 for inputs of float64, else float32.
    """
    parts = parts_of(weights, biases)
    inputs = tf.cast(inputs, compute_dtype(inputs.dtype))
    if shares is None:
        shares = tf.ones_like(labels, inputs.dtype) / labels.shape[1]
    targets = Targets(tf.cast(labels, tf.int64), tf.cast(shares, inputs.dtype))
    return _loss(parts, Targets(*_constant(*targets)), inputs, *_tables(parts))


# Below, each sweep over the blocks reads constants (`stop_gradient`): neither a tape
# nor a graph then keeps its blocks; derivatives come from the formulas alone.


def _loss(parts: list[Part], targets: Targets, *sources: tf.Tensor) -> tf.Tensor:
    @tf.custom_gradient
    def forward(*sources: tf.Tensor) -> Any:
        inputs, *tables = _constant(*sources)
        losses, softmax = derivatives.losses(inputs, _filled(parts, tables), targets)

        def gradient(upstream: tf.Tensor) -> Tensors:
            return _gradients(parts, targets, softmax, upstream, *sources)

        return losses, gradient

    return forward(*sources)


def _gradients(
    parts: list[Part],
    targets: Targets,
    softmax: derivatives.Softmax,
    *sources: tf.Tensor,
) -> Tensors:
    @tf.custom_gradient
    def backward(*sources: tf.Tensor) -> Any:
        upstream, inputs, *tables = _constant(*sources)
        slopes = derivatives.first(
            inputs, _filled(parts, tables), targets, softmax, upstream
        )

        def gradient(*directions: tf.Tensor) -> Tensors:
            return _curvatures(parts, targets, softmax, *sources, *directions)

        return (slopes.inputs, *_tables(slopes.parts)), gradient

    return backward(*sources)


def _curvatures(
    parts: list[Part],
    targets: Targets,
    softmax: derivatives.Softmax,
    *sources: tf.Tensor,
) -> Tensors:
    @tf.custom_gradient
    def backward(*sources: tf.Tensor) -> Any:
        upstream, *values = _constant(*sources)
        middle = len(values) // 2
        of_upstream, slopes = derivatives.second(
            derivatives.Point(values[0], _filled(parts, values[1:middle])),
            derivatives.Point(values[middle], _filled(parts, values[middle + 1 :])),
            targets,
            softmax,
            upstream,
        )

        def gradient(*_: tf.Tensor) -> Tensors:
            raise NotImplementedError(
                "the exact softmax loss has a first and a second derivative; a third "
                "was asked for."
            )

        return (of_upstream, slopes.inputs, *_tables(slopes.parts)), gradient

    return backward(*sources)


def _constant(*tensors: tf.Tensor) -> list[tf.Tensor]:
    return [tf.stop_gradient(tensor) for tensor in tensors]


def _tables(parts: list[Part]) -> list[tf.Tensor]:
    """The weights of all parts, then the biases if any."""
    biases = [part.biases for part in parts if part.biases is not None]
    return [part.weights for part in parts] + biases


def _filled(parts: list[Part], tables: list[tf.Tensor]) -> list[Part]:
    """The parts with other tables, in the order of `_tables`."""
    biases = tables[len(parts) :] or [None] * len(parts)
    return [
        dataclasses.replace(part, weights=weight, biases=bias)
        for part, weight, bias in zip(parts, tables, biases, strict=False)
    ]
