"""The exact softmax loss and its derivatives, each as sweeps over blocks of classes.

With logits `l = x W^T + b` of `N` examples and `V` classes, `p = softmax(l)`, labels of
shares `y` (as if `[N, V]`; a row adds up to 1), and `g` the gradient of the losses,

    loss = log(sum_j exp(l_j)) - sum_j y_j l_j
    dl   = g (p - y),      dx = dl W,   dW = dl^T x,   db = sum_n dl

and along a direction (u, U, c) of (x, W, b), with `t = u W^T + x U^T + c`,

    dl'  = g p (t - sum_j p_j t_j),    dg' = sum_j (p_j - y_j) t_j
    dx'  = dl' W + dl U,    dW' = dl'^T x + dl^T u,    db' = sum_n dl'

What is kept from one sweep for the next is `top = max_j l_j` and `total = sum_j E_j` of
`E = exp(l - top)`; each sweep computes its blocks of `E` again, and never divides them
by `total`: the factor `g / total` of a row is put on `x` before the product for `dW`,
and on `dx` when all its blocks are summed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import tensorflow as tf

from tfsampled._core.full_softmax.chunks import (
    State,
    block_logits,
    sweep,
    unwritten,
    width_of,
    written,
)
from tfsampled._core.full_softmax.shards import Part


class Targets(NamedTuple):
    """Labels int64 `[N, T]` and their shares `[N, T]`, which add up to 1 in a row."""

    labels: tf.Tensor
    shares: tf.Tensor


class Softmax(NamedTuple):
    """What makes logits probabilities: `exp(logits - top) / total`.

    Attributes:
      top: `[N, 1]`, the greatest logit of the row; NaN where a label is no class.
      total: `[N, 1]`, at least 1.
    """

    top: tf.Tensor
    total: tf.Tensor


class Point(NamedTuple):
    """Inputs `[N, D]` and tables; or a gradient, or a direction, of them."""

    inputs: tf.Tensor
    parts: list[Part]


def losses(
    inputs: tf.Tensor, parts: list[Part], targets: Targets
) -> tuple[tf.Tensor, Softmax]:
    """The losses `[N]`."""
    dtype, width = inputs.dtype, width_of(inputs)
    zeros = tf.zeros_like(inputs[:, :1])
    top, total = zeros + dtype.min, zeros  # a finite top, as logits may be -inf
    own = tf.zeros_like(targets.shares)
    known = tf.zeros_like(targets.labels, tf.bool)
    for part in parts:
        rows = part.row_of(targets.labels)
        known |= rows >= 0

        def visit(
            start: Any, size: Any, top: Any, total: Any, own: Any, part=part, rows=rows
        ) -> State:
            logits, _ = block_logits(inputs, part, start, size)
            own = _picked(own, logits, rows - start, size)
            highest = tf.reduce_max(logits, axis=1, keepdims=True)
            with tf.control_dependencies([own, highest]):  # which read the logits
                # One op for three; its greatest is 1 / sum_j exp(l_j - highest).
                inverse = tf.reduce_max(tf.nn.softmax(logits), axis=1, keepdims=True)
            higher = tf.maximum(top, highest)
            here = tf.exp(highest - higher) / inverse
            here = tf.where(highest < dtype.min, tf.zeros_like(here), here)
            return higher, total * tf.exp(top - higher) + here, own

        top, total, own = sweep(part, width, visit, (top, total, own))
    nan = tf.constant(float("nan"), dtype)
    top = tf.where(tf.reduce_all(known, axis=1, keepdims=True), top, nan)
    # Near a loss of 0 this keeps the digits that `log(total) + top - own` would lose.
    below = tf.reduce_sum(targets.shares * (own - top), axis=1)
    return tf.math.log(total[:, 0]) - below, Softmax(top, total)


def first(
    inputs: tf.Tensor,
    parts: list[Part],
    targets: Targets,
    softmax: Softmax,
    upstream: tf.Tensor,
) -> Point:
    """The gradients of `losses` along `upstream` `[N]`."""
    factor = upstream[:, tf.newaxis] / softmax.total
    scaled = inputs * factor

    def block(
        index: int, columns: tf.Tensor, start: Any, size: Any
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        part = parts[index]
        logits, weights = block_logits(inputs, part, start, size, softmax.top)
        slope = _less(tf.exp(logits), targets.shares * softmax.total, columns, size)
        of_weights = tf.matmul(slope, scaled, transpose_a=True)
        return tf.matmul(slope, weights), of_weights, slope

    return _gathered(Point(inputs, parts), targets, factor, block)


def second(
    point: Point,
    direction: Point,
    targets: Targets,
    softmax: Softmax,
    upstream: tf.Tensor,
) -> tuple[tf.Tensor, Point]:
    """The gradients of the sum of `first` at `point` times `direction`.

    Returns:
      The gradient of `upstream`, `[N]`, and that of `point`.
    """
    factor = upstream[:, tf.newaxis] / softmax.total
    mean, own = _mean_slope(point, direction, targets, softmax)
    inputs, along = point.inputs * factor, direction.inputs * factor

    def block(
        index: int, columns: tf.Tensor, start: Any, size: Any
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        powers, slope, weights, directions = _both(
            point, direction, index, softmax, start, size
        )
        slope = powers * (slope - mean)
        powers = _less(powers, targets.shares * softmax.total, columns, size)
        of_weights = tf.matmul(slope, inputs, transpose_a=True)
        of_weights += tf.matmul(powers, along, transpose_a=True)
        of_inputs = tf.matmul(slope, weights) + tf.matmul(powers, directions)
        return of_inputs, of_weights, slope

    of_upstream = mean[:, 0] - tf.reduce_sum(targets.shares * own, axis=1)
    return of_upstream, _gathered(point, targets, factor, block)


def _gathered(
    point: Point,
    targets: Targets,
    factor: tf.Tensor,
    block: Callable[..., tuple[tf.Tensor, tf.Tensor, tf.Tensor]],
) -> Point:
    """The gradients of a point, of which each block of classes gives its own.

    Args:
      factor: `[N, 1]`, of each example.
      block: for the number of a part, the columns `[N, T]` of the labels in the block,
        its start and its size: what it adds to the gradient of the inputs `[N, D]`,
        which is then times `factor`; the gradient of its weights `[size, D]`; and the
        slopes `[N, size]` whose sums, times `factor`, are the gradient of its biases.
    """
    of_inputs, of_parts = tf.zeros_like(point.inputs), []
    for index, part in enumerate(point.parts):
        rows = part.row_of(targets.labels)

        def visit(
            start: Any,
            size: Any,
            of_inputs: Any,
            *tables: Any,
            index=index,
            part=part,
            rows=rows,
        ) -> State:
            added, of_weights, slope = block(index, rows - start, start, size)
            pieces = [of_weights]
            if part.biases is not None:
                pieces.append(tf.matmul(slope, factor, transpose_a=True)[:, 0])
            return of_inputs + added, *_write(tables, pieces, start, size)

        state = of_inputs, *_unwritten(part)
        of_inputs, *tables = sweep(part, width_of(point.inputs), visit, state)
        of_parts.append(_replaced(part, tables))
    return Point(of_inputs * factor, of_parts)


def _mean_slope(
    point: Point, direction: Point, targets: Targets, softmax: Softmax
) -> tuple[tf.Tensor, tf.Tensor]:
    """`sum_j p_j t_j` `[N, 1]`, and the labels' `t` `[N, T]`."""
    total, own = tf.zeros_like(softmax.total), tf.zeros_like(targets.shares)
    for index, part in enumerate(point.parts):
        rows = part.row_of(targets.labels)

        def visit(
            start: Any, size: Any, total: Any, own: Any, index=index, rows=rows
        ) -> State:
            powers, slope, _, _ = _both(point, direction, index, softmax, start, size)
            total += tf.reduce_sum(powers * slope, axis=1, keepdims=True)
            return total, _picked(own, slope, rows - start, size)

        total, own = sweep(part, width_of(point.inputs), visit, (total, own))
    return total / softmax.total, own


def _both(
    point: Point,
    direction: Point,
    index: int,
    softmax: Softmax,
    start: Any,
    size: Any,
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
    """`E` and `t` of a block `[N, size]`, its rows of `W` and of `U` `[size, D]`."""
    inputs, tangent = point.inputs, direction.parts[index]
    logits, weights = block_logits(inputs, point.parts[index], start, size)
    slope, directions = block_logits(inputs, tangent, start, size)
    slope += tf.matmul(direction.inputs, weights, transpose_b=True)
    return tf.exp(logits - softmax.top), slope, weights, directions


def _here(columns: tf.Tensor, size: Any) -> tuple[tf.Tensor, tf.Tensor]:
    """Which of the columns `[N, T]` lie in a block, and the columns, 0 elsewhere."""
    here = (columns >= 0) & (columns < size)
    return here, tf.where(here, columns, 0)


def _picked(
    own: tf.Tensor, logits: tf.Tensor, columns: tf.Tensor, size: Any
) -> tf.Tensor:
    """`own` `[N, T]`, and the block's logits where `columns` `[N, T]` lie in it."""
    here, columns = _here(columns, size)
    return tf.where(here, tf.gather(logits, columns, batch_dims=1), own)


def _less(
    powers: tf.Tensor, amounts: tf.Tensor, columns: tf.Tensor, size: Any
) -> tf.Tensor:
    """`powers` `[N, size]` less `amounts` `[N, T]` where `columns` lie in the block."""
    here, columns = _here(columns, size)
    examples = tf.broadcast_to(
        tf.range(tf.shape(powers)[0])[:, tf.newaxis], tf.shape(columns)
    )
    return tf.tensor_scatter_nd_sub(
        powers,
        tf.stack([examples, columns], axis=-1),
        tf.where(here, amounts, tf.zeros_like(amounts)),
    )


def _unwritten(part: Part) -> list[tf.Tensor]:
    tables = [unwritten(part.weights)]
    return tables if part.biases is None else [*tables, unwritten(part.biases)]


def _write(tables: Any, pieces: list[tf.Tensor], start: Any, size: Any) -> State:
    return tuple(
        written(table, start, size, piece)
        for table, piece in zip(tables, pieces, strict=True)
    )


def _replaced(part: Part, tables: list[tf.Tensor]) -> Part:
    weights, biases = tables if len(tables) > 1 else (tables[0], None)
    return dataclasses.replace(part, weights=weights, biases=biases)
