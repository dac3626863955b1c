"""A loss of sampled logits and its gradient, a chunk of examples at a time.

Shapes: `N` examples, `D` features, `S` sampled classes. Tensors of `[N, S]` are what
costs. Three matrix products are needed: for the logits, for the gradient of the inputs
and for that of the rows. Between them stand the passes of `LossFunction` alone.

The derivatives by the logits of the first examples are saved for the backward pass, as
many as fit into `MAX_LOGITS`. Those of the others are computed again there, chunk by
chunk: memory is bounded by two chunks, whatever the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

import tensorflow as tf

from tfsampled._core.candidate_sampling.accidental_hits import AccidentalHits
from tfsampled._core.embedding import matmul
from tfsampled._core.embedding.class_logits import cap_derivative, cap_logits
from tfsampled._core.sampled_loss.loss_functions import LossFunction
from tfsampled._core.static_ops import maximum, minimum, num_rows
from tfsampled._core.xla import tracing_for_xla

Size: TypeAlias = int | tf.Tensor
Chunk: TypeAlias = tuple[Size, Size]  # (start, size), of examples

# So many logits (64 MiB in float32) are saved, and so many computed at a time.
MAX_LOGITS = 1 << 24
# Fewer logits than this are computed in one chunk.
MIN_OVERLAP = 1 << 17


class SampledLogits(NamedTuple):
    """Sampled logits before they are multiplied.

    Attributes:
        inputs: `[N, D]`, in the dtype of `offset`.
        rows: `[S, D]`, of the sampled classes, in the table's dtype or that of
            `offset`.
        offset: `[S]`, `[1, S]` or `[N, S]`: biases minus log expected counts; with a
            `soft_cap` without the biases.
        hits: What to mask, None for nothing.
        num_hard: How many logits of each example stay, the greatest; None for all.
        soft_cap: Caps the logits, before `offset` is added; None for no cap.
        biases: `[S]`, added before the cap; or None.
    """

    inputs: tf.Tensor
    rows: tf.Tensor
    offset: tf.Tensor
    hits: AccidentalHits | None
    num_hard: int | None = None
    soft_cap: float | None = None
    biases: tf.Tensor | None = None

    def compute(self) -> tuple[tf.Tensor, tf.Tensor | None]:
        """Computes the logits `[N, S]`, and their derivatives by uncapped ones.

        Both are in the dtype of `offset`. Without a cap there are no derivatives.
        """
        logits, derivative = (
            matmul.logits(self.inputs, self.rows, self.offset.dtype),
            None,
        )
        if self.soft_cap is not None:
            logits = logits if self.biases is None else logits + self.biases
            logits = cap_logits(logits, self.soft_cap)
            derivative = cap_derivative(logits, self.soft_cap)
        num_sampled = tf.compat.dimension_value(self.rows.shape[0])
        if num_sampled and self.offset.shape.rank == 1:
            # Fused with the product; the fused kernel crashes without columns.
            logits = tf.nn.bias_add(logits, self.offset)
        elif num_sampled != 0:
            logits += self.offset
        if self.hits is not None:
            logits = self.hits.mask(logits)
        if self.num_hard is not None:
            logits = _greatest(logits, self.num_hard)
        return logits, derivative

    def slice(self, start: Size, size: Size) -> SampledLogits:
        """Returns the logits of `size` examples from `start` on."""
        inputs = _slice(self.inputs, start, size)
        if inputs is self.inputs:
            return self
        hits = None if self.hits is None else self.hits.slice(start, size)
        is_shared = self.offset.shape.rank == 1 or self.offset.shape[0] == 1
        offset = self.offset if is_shared else _slice(self.offset, start, size)
        return self._replace(inputs=inputs, offset=offset, hits=hits)


class ChunkPlan(NamedTuple):
    """How the examples are cut into chunks, in the forward and the backward pass.

    Attributes:
        sampled: The logits of all examples.
        saved: Those of the chunks whose derivatives are saved.
        chunks: The examples of these chunks.
        recomputed: The examples after them, whose derivatives are computed again; None
            if there are none.
    """

    sampled: SampledLogits
    saved: tuple[SampledLogits, ...]
    chunks: tuple[Chunk, ...]
    recomputed: Chunk | None


class Residuals(NamedTuple):
    """What the backward pass reads.

    Attributes:
        d_true_logits: `[N, T]`, the derivatives of the loss by the labels' logits.
        d_partial: `[N]`, by the sum over sampled logits, see `LossFunction`.
        d_logits: `[n, S]` of each saved chunk, by the sampled logits.
    """

    d_true_logits: tf.Tensor
    d_partial: tf.Tensor
    d_logits: tuple[tf.Tensor, ...]


class Gradients(NamedTuple):
    """Gradients by the fields of `SampledLogits`; `offset` is summed to `[S]`."""

    inputs: tf.Tensor
    rows: tf.Tensor
    offset: tf.Tensor


def plan_chunks(sampled: SampledLogits) -> ChunkPlan:
    """Decides what is saved, for a loss that is computed now."""
    batch, num_saved = num_rows(sampled.inputs), _chunk_size(sampled)
    all_saved = isinstance(num_saved, int) and num_saved == batch
    if sampled.hits is not None and (_overlaps(sampled) or not all_saved):
        sampled = sampled._replace(hits=sampled.hits.with_row_splits(batch))
    chunks: tuple[Chunk, ...] = ((0, num_saved),)
    if _overlaps(sampled):
        half = num_saved // 2
        chunks = ((0, half), (half, num_saved - half))
    saved = tuple(sampled.slice(*chunk) for chunk in chunks)
    recomputed = None if all_saved else (num_saved, batch - num_saved)
    return ChunkPlan(sampled, saved, chunks, recomputed)


def _overlaps(sampled: SampledLogits) -> bool:
    """Tells whether to compute two chunks at once, off XLA on a CPU.

    One computes while the other waits for memory. Small ones are not worth it.
    """
    if tf.executing_eagerly() or tracing_for_xla():
        return False
    if tf.config.list_physical_devices("GPU"):
        return False
    batch, num_sampled = num_rows(sampled.inputs), num_rows(sampled.rows)
    if isinstance(batch, int) and isinstance(num_sampled, int):
        return batch * num_sampled >= MIN_OVERLAP
    return True


def forward(
    loss_function: LossFunction,
    true_logits: tf.Tensor,
    label_weights: tf.Tensor | None,
    plan: ChunkPlan,
) -> tuple[tf.Tensor, Residuals]:
    """Computes the loss `[N]` from the labels' logits `[N, T]` and sampled logits."""
    partials, d_logits = [], []
    for chunk in plan.saved:
        partial, d_chunk = _reduce(loss_function, chunk)
        partials.append(partial)
        d_logits.append(d_chunk)
    if plan.recomputed is not None:

        def chunk_fn(start: Size, size: Size) -> tuple[tf.Tensor, tuple[()]]:
            return _reduce(loss_function, plan.sampled.slice(start, size))[0], ()

        partial = tf.zeros([plan.recomputed[1]], true_logits.dtype)
        size = _chunk_size(plan.sampled)
        partial, _ = _scan_chunks(plan.recomputed, size, chunk_fn, partial, ())
        partials.append(partial)
    loss, d_true_logits, d_partial = loss_function.combine(
        true_logits, _concat(partials), label_weights
    )
    return loss, Residuals(d_true_logits, d_partial, tuple(d_logits))


def backward(
    loss_function: LossFunction,
    plan: ChunkPlan,
    residuals: Residuals,
    dy: tf.Tensor,
) -> Gradients:
    """Computes the gradients for the cotangent `dy` `[N]` of the loss."""
    dy = tf.expand_dims(dy * residuals.d_partial, 1)
    transposed = matmul.is_transposed(plan.sampled.inputs)
    parts = [
        _chunk_gradients(sampled, d_logits, _slice(dy, *chunk), transposed)
        for sampled, d_logits, chunk in zip(
            plan.saved, residuals.d_logits, plan.chunks, strict=True
        )
    ]
    inputs, *sums = map(list, zip(*parts, strict=True))
    carry = tuple(map(tf.add_n, sums))
    if plan.recomputed is None:
        return Gradients(_concat(inputs), *matmul.rows_gradient(*carry))

    def chunk_fn(start: Size, size: Size) -> tuple[tf.Tensor, tuple[tf.Tensor, ...]]:
        chunk = plan.sampled.slice(start, size)
        _, d_logits = _reduce(loss_function, chunk)
        dy_chunk = _slice(dy, start, size)
        d_inputs, *sums = _chunk_gradients(chunk, d_logits, dy_chunk, transposed)
        return d_inputs, tuple(sums)

    d_inputs = tf.zeros_like(_slice(plan.sampled.inputs, *plan.recomputed))
    size = _chunk_size(plan.sampled)
    d_inputs, carry = _scan_chunks(plan.recomputed, size, chunk_fn, d_inputs, carry)
    d_inputs = _concat([*inputs, d_inputs])
    return Gradients(d_inputs, *matmul.rows_gradient(*carry))


def _reduce(
    loss_function: LossFunction, sampled: SampledLogits
) -> tuple[tf.Tensor, tf.Tensor]:
    """Computes what the loss needs of the logits, and its derivatives by `x W^T`."""
    logits, derivative = sampled.compute()
    partial, d_logits = loss_function.reduce_sampled(logits)
    if derivative is not None:
        d_logits *= derivative
    return partial, matmul.cast_residuals(d_logits, sampled.rows)


def _chunk_gradients(
    sampled: SampledLogits, d_logits: tf.Tensor, dy: tf.Tensor, transposed: bool
) -> tuple[tf.Tensor, ...]:
    """Computes the gradient of a chunk's inputs, and its `row_sums`; `dy` `[n, 1]`."""
    inputs = dy * matmul.inputs_gradient(d_logits, sampled.rows, dy.dtype)
    # The factor scales the inputs, not the derivatives `[n, S]`.
    scaled_inputs = dy * sampled.inputs
    return inputs, *matmul.row_sums(d_logits, scaled_inputs, dy, transposed)


def _scan_chunks(
    examples: Chunk,
    size: Size,
    chunk_fn: Callable[[Size, Size], tuple[tf.Tensor, tuple[tf.Tensor, ...]]],
    results: tf.Tensor,
    carry: tuple[tf.Tensor, ...],
) -> tuple[tf.Tensor, tuple[tf.Tensor, ...]]:
    """Calls `chunk_fn(start, size)` on one chunk of the examples after the other.

    Args:
        examples: `(start, total)` of the examples to go over.
        size: The number of examples in a chunk; the last may have fewer.
        chunk_fn: Returns `[size, ...]` results, and what is added to `carry`.
        results: `[total, ...]`, to be overwritten.
        carry: The initial sums.

    Returns:
        The results and the sums.
    """
    # examples = (3, 8), size = 3: chunks (3, 3), (6, 3) in the loop, then (9, 2)
    start, total = examples
    size = minimum(size, total)  # XLA compiles the loop, if it has no chunk too

    def add_chunk(offset: Size, size: Size, results: tf.Tensor, carry: tuple) -> tuple:
        result, updates = chunk_fn(start + offset, size)
        rows = offset + tf.range(size)
        results = tf.tensor_scatter_nd_update(results, tf.expand_dims(rows, 1), result)
        return results, tuple(map(tf.add, carry, updates))

    in_loop = total // maximum(size, 1) * size
    _, results, carry = tf.while_loop(
        lambda offset, *_: offset < in_loop,
        lambda offset, *values: (offset + size, *add_chunk(offset, size, *values)),
        (0, results, carry),
        parallel_iterations=1,
    )
    return add_chunk(in_loop, total - in_loop, results, carry)


def _greatest(logits: tf.Tensor, count: int) -> tf.Tensor:
    """Sets all but the greatest logits of each row to minus infinity; ties stay."""
    # logits = [[3, 1, 2]], count = 2 -> [[3, -inf, 2]]
    num_sampled = tf.compat.dimension_value(logits.shape[1])
    count = minimum(count, tf.shape(logits)[1] if num_sampled is None else num_sampled)
    least = tf.math.top_k(logits, count).values[:, -1:]
    minus_infinity = tf.constant(float("-inf"), logits.dtype)
    return tf.where(logits < least, minus_infinity, logits)


def _chunk_size(sampled: SampledLogits) -> Size:
    """Returns the number of examples whose logits fit into `MAX_LOGITS`, at least 1."""
    batch, num_sampled = num_rows(sampled.inputs), num_rows(sampled.rows)
    return minimum(maximum(MAX_LOGITS // maximum(num_sampled, 1), 1), batch)


def _slice(tensor: tf.Tensor, start: Size, size: Size) -> tf.Tensor:
    """Returns `size` rows from `start` on; the tensor itself if these are all."""
    if isinstance(size, int) and size == tf.compat.dimension_value(tensor.shape[0]):
        return tensor
    others = tensor.shape.as_list()[1:]
    sizes = [size, *(-1 if n is None else n for n in others)]
    return tf.slice(tensor, [start, *[0] * len(others)], sizes)


def _concat(parts: Sequence[tf.Tensor]) -> tf.Tensor:
    return parts[0] if len(parts) == 1 else tf.concat(parts, axis=0)
