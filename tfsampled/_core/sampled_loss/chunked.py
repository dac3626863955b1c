"""A loss of sampled logits and its gradient, a block of examples at a time.

Shapes: `N` examples, `D` features, `S` sampled classes. `[N, S]` is the size that
costs: each pass over it, and each tensor of it. Three matrix products are needed, for
the logits, for the gradient of the inputs and for that of the rows; between them stand
the passes of `losses.Loss`, and nothing else.

While slopes of that size are no burden they are kept for the backward pass. Larger ones
are made anew there, block after block.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias

import tensorflow as tf

from tfsampled._core.candidate_sampling.hits import Hits
from tfsampled._core.sampled_loss import matmul
from tfsampled._core.sampled_loss.loss_functions import Loss
from tfsampled._core.xla import tracing_for_xla

Size: TypeAlias = int | tf.Tensor

# As many logits are held at a time (64 MiB in float32), and slopes kept.
BLOCK = 1 << 24


class Sampled(NamedTuple):
    """Sampled logits before they are multiplied.

    Attributes:
      inputs: `[N, D]`, in the dtype of `offset`.
      rows: `[S, D]`, of the sampled classes, as they stand in the table.
      offset: `[S]`, or `[N, S]`, or `[1, S]`: biases less log expected counts.
      hits: what to leave out, or None for nothing.
    """

    inputs: tf.Tensor
    rows: tf.Tensor
    offset: tf.Tensor
    hits: Hits | None

    def logits(self) -> tf.Tensor:
        """`[N, S]`, in the dtype of `offset`."""
        logits = matmul.logits(self.inputs, self.rows, self.offset.dtype)
        width = tf.compat.dimension_value(self.rows.shape[0])
        if width and self.offset.shape.rank == 1:
            # One operation with the product; without columns it ends the process.
            logits = tf.nn.bias_add(logits, self.offset)
        elif width != 0:
            logits += self.offset
        return logits if self.hits is None else self.hits.mask(logits)

    def of(self, first: Size, size: Size) -> Sampled:
        """The same of `size` examples from `first` on."""
        inputs = _rows(self.inputs, first, size)
        if inputs is self.inputs:
            return self
        hits = None if self.hits is None else self.hits.of(first, size)
        shared = self.offset.shape.rank == 1 or self.offset.shape.as_list()[0] == 1
        offset = self.offset if shared else _rows(self.offset, first, size)
        return Sampled(inputs, self.rows, offset, hits)


class Plan(NamedTuple):
    """How examples are gone through, forward and backward alike.

    Attributes:
      kept: whether slopes are kept.
      stretches: of examples, `(first, size)`, whose slopes are kept.
    """

    kept: bool | tf.Tensor
    stretches: tuple[tuple[Size, Size], ...]


class Outcome(NamedTuple):
    """A loss, and what its gradient is computed from.

    Attributes:
      loss: `[N]`.
      true_slopes: `[N, T]`, derivatives by the logits of the labels.
      scales: of each stretch of examples `[n]`, see `losses.Loss`.
      slopes: of each stretch `[n, S]`, or `[0, S]` where they are not kept.
    """

    loss: tf.Tensor
    true_slopes: tf.Tensor
    scales: tuple[tf.Tensor, ...]
    slopes: tuple[tf.Tensor, ...]


class Gradients(NamedTuple):
    """Derivatives by the parts of `Sampled`; `offset` `[S]`, a sum over examples."""

    inputs: tf.Tensor
    rows: tf.Tensor
    offset: tf.Tensor


def plan(sampled: Sampled) -> Plan:
    """The plan for a loss that is computed here and now."""
    return Plan(_are_kept(sampled), _stretches(sampled))


def forward(
    loss: Loss, true_logits: tf.Tensor, sampled: Sampled, plan: Plan
) -> Outcome:
    """The loss of logits of the labels `[N, T]` and of sampled logits."""

    def keeping() -> Outcome:
        kept, joined = [], []
        for first, size in plan.stretches:
            sums, slopes = loss.summed(sampled.of(first, size).logits())
            kept.append(matmul.cast_residuals(slopes, sampled.rows))
            joined.append(loss.joined(_rows(true_logits, first, size), sums))
        losses, true_slopes, scales = zip(*joined, strict=True)
        return Outcome(_concat(losses), _concat(true_slopes), scales, tuple(kept))

    def passing() -> Outcome:
        def one(first: Size, size: Size) -> tuple[tf.Tensor, tuple[()]]:
            return loss.summed(sampled.of(first, size).logits())[0], ()

        sums, _ = _in_order(sampled, one, ())
        losses, true_slopes, scales = loss.joined(true_logits, sums)
        nothing = tf.zeros([0, _size(sampled.rows)], sums.dtype)
        nothing = matmul.cast_residuals(nothing, sampled.rows)
        return Outcome(
            losses,
            true_slopes,
            tuple(_rows(scales, *stretch) for stretch in plan.stretches),
            tuple(nothing for _ in plan.stretches),
        )

    return _either(plan.kept, keeping, passing)


def backward(
    loss: Loss, sampled: Sampled, plan: Plan, outcome: Outcome, upstream: tf.Tensor
) -> Gradients:
    """The gradients for derivatives `upstream` `[N]` by the loss."""

    def keeping() -> Gradients:
        parts = [
            _gradients(sampled.of(*stretch), slopes, scales * _rows(upstream, *stretch))
            for stretch, scales, slopes in zip(
                plan.stretches, outcome.scales, outcome.slopes, strict=True
            )
        ]
        inputs, rows, offset = zip(*parts, strict=True)
        return Gradients(_concat(inputs), tf.add_n(rows), tf.add_n(offset))

    def passing() -> Gradients:
        scales = _concat(outcome.scales) * upstream

        def one(first: Size, size: Size) -> tuple[tf.Tensor, tuple[tf.Tensor, ...]]:
            block = sampled.of(first, size)
            _, slopes = loss.summed(block.logits())
            slopes = matmul.cast_residuals(slopes, block.rows)
            inputs, *others = _gradients(block, slopes, _rows(scales, first, size))
            return inputs, tuple(others)

        rows = tf.zeros_like(sampled.rows, scales.dtype)
        offset = tf.zeros([_size(rows)], scales.dtype)
        inputs, others = _in_order(sampled, one, (rows, offset))
        return Gradients(inputs, *others)

    return _either(plan.kept, keeping, passing)


def _gradients(sampled: Sampled, slopes: tf.Tensor, scales: tf.Tensor) -> Gradients:
    column = scales[:, tf.newaxis]
    inputs = column * matmul.inputs_gradient(slopes, sampled.rows, scales.dtype)
    return Gradients(inputs, *matmul.rows_gradient(slopes, sampled.inputs, column))


def _are_kept(sampled: Sampled) -> bool | tf.Tensor:
    batch, width = _size(sampled.inputs), _size(sampled.rows)
    if isinstance(batch, int) and isinstance(width, int):
        return batch * width <= BLOCK
    if tracing_for_xla():
        return True  # its shapes have to be the same either way
    return tf.cast(batch, tf.int64) * tf.cast(width, tf.int64) <= BLOCK


def _stretches(sampled: Sampled) -> tuple[tuple[Size, Size], ...]:
    batch = _size(sampled.inputs)
    one_at_a_time = tf.executing_eagerly() or tracing_for_xla()
    if one_at_a_time or tf.config.list_physical_devices("GPU"):
        return ((0, batch),)
    # Two, of which one computes while the other waits for memory.
    return (0, batch // 2), (batch // 2, batch - batch // 2)


def _in_order(
    sampled: Sampled,
    one: Callable[[Size, Size], tuple[tf.Tensor, tuple[tf.Tensor, ...]]],
    totals: tuple[tf.Tensor, ...],
) -> tuple[tf.Tensor, tuple[tf.Tensor, ...]]:
    """`one(first, size)` of a block after another: results in a row, and summed.

    Args:
      one: gives a result of `[size, ...]`, and what is to be added to `totals`.
      totals: what the sums start from.
    """
    batch = _size(sampled.inputs)
    width = _size(sampled.rows)
    larger = max if isinstance(width, int) else tf.maximum
    size: Any = larger(BLOCK // larger(width, 1), 1)
    count = batch // size

    def body(index: tf.Tensor, results: Any, totals: Any) -> tuple[Any, Any, Any]:
        result, added = one(index * size, size)
        totals = tuple(map(tf.add, totals, added))
        return index + 1, results.write(index, result), totals

    results = tf.TensorArray(sampled.offset.dtype, count)
    _, results, totals = tf.while_loop(
        lambda index, *_: index < count,
        body,
        (0, results, totals),
        parallel_iterations=1,
    )
    stacked = results.stack()
    joined = tf.reshape(stacked, tf.concat([[count * size], tf.shape(stacked)[2:]], 0))
    rest, added = one(count * size, batch - count * size)
    totals = tuple(map(tf.add, totals, added))
    return tf.concat([joined, rest], axis=0), totals


def _rows(tensor: tf.Tensor, first: Size, size: Size) -> tf.Tensor:
    """`size` rows from `first` on; the tensor itself where that is all of them."""
    if isinstance(size, int) and size == tf.compat.dimension_value(tensor.shape[0]):
        return tensor
    others = [-1 if n is None else n for n in tensor.shape.as_list()[1:]]
    return tf.slice(tensor, [first, *[0] * len(others)], [size, *others])


def _concat(parts: Sequence[tf.Tensor]) -> tf.Tensor:
    return parts[0] if len(parts) == 1 else tf.concat(parts, axis=0)


def _size(tensor: tf.Tensor) -> Size:
    """The first dimension, as an `int` where it is known."""
    known = tf.compat.dimension_value(tensor.shape[0])
    return tf.shape(tensor)[0] if known is None else known


def _either(condition: bool | tf.Tensor, yes: Any, no: Any) -> Any:
    if isinstance(condition, bool):
        return yes() if condition else no()
    return tf.cond(condition, yes, no)
