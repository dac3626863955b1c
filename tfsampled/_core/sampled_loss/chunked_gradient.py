"""A loss of sampled logits and its gradient, a chunk of examples at a time.

Shapes: `N` examples, `D` features, `S` sampled classes. Tensors of shape `[N, S]`
dominate the cost. Three matrix products are needed: for the logits, for the gradient of
the inputs and for that of the rows. Most other passes over these tensors are those of
`LossFunction`.

The derivatives by the logits of the first examples are saved for the backward pass, as
many as fit into `MAX_LOGITS`. Those of the others are computed again there, chunk by
chunk: memory is bounded by two chunks, whatever the batch. Where the graph does not
know the batch, it decides between one chunk and several when it runs. If only the first
examples are needed, XLA computes chunks of equal size until there are that many.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import tensorflow as tf

from tfsampled._core.candidate_sampling.accidental_hits import AccidentalHits
from tfsampled._core.embedding import matmul
from tfsampled._core.embedding.class_logits import cap_derivative, cap_logits
from tfsampled._core.sampled_loss.loss_functions import LossFunction
from tfsampled._core.static_ops import (
    Size,
    maximum,
    minimum,
    num_columns,
    num_rows,
    slice_rows,
)
from tfsampled._core.xla import can_branch_on_data, tracing_for_xla

Sizes: TypeAlias = np.ndarray | tf.Tensor  # int32 `[number of chunks]`

# At most this many logits (64 MiB in float32) are saved, and computed at a time.
MAX_LOGITS = 1 << 24
# Up to this many logits are reduced with the labels' logits, in few operations.
MAX_COMBINED = 1 << 15
# Up to this many logits form a single chunk, even where two chunks could overlap.
MIN_OVERLAP = 1 << 17


# XLA cuts a batch of so many examples, or one of more than `MAX_LOGITS`, into at least
# so many chunks, of which it computes those that are needed.
MIN_VALID = 1024
MIN_VALID_CHUNKS = 16
# Of inputs with up to so many features only a quarter of these chunks is saved: XLA
# fills what is saved with zeros first, which takes longer than to compute the logits
# again. Measured on 2 cores with AVX2.
MAX_UNSAVED_DIM = 128


def num_valid_chunks(batch: Size, num_sampled: Size) -> Size:
    """Returns into how many chunks XLA cuts a batch of which not all is needed.

    It is the same for a batch that was rounded up to chunks of equal size.
    """
    max_rows = maximum(_num_rows(MAX_LOGITS, num_sampled, batch), 1)
    several = maximum(MIN_VALID_CHUNKS, -(-batch // max_rows))
    if isinstance(batch, int) and isinstance(max_rows, int):
        return 1 if batch < MIN_VALID and batch <= max_rows else several
    return tf.where((batch < MIN_VALID) & (batch <= max_rows), 1, several)


class SampledLogits(NamedTuple):
    """Sampled logits before they are multiplied.

    Attributes:
        inputs: `[N, D]`, in the dtype of `offset`.
        rows: `[S, D]`, of the sampled classes, in the dtype in which they are
            multiplied.
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
        derivative = None
        logits = matmul.logits(self.inputs, self.rows, self.offset.dtype)
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
        offset, hits = self.offset, self.hits
        return self._replace(
            inputs=slice_rows(self.inputs, start, size),
            offset=offset if self._shares_offset() else slice_rows(offset, start, size),
            hits=None if hits is None else hits.slice(start, size),
        )

    def split(self, total: Size, sizes: Sizes) -> list[SampledLogits]:
        """Cuts the logits of the first `total` examples into chunks."""
        inputs = _split(self.inputs, total, sizes)
        if inputs[0] is self.inputs:
            return [self]
        chunks = [self._replace(inputs=chunk) for chunk in inputs]
        if not self._shares_offset():
            offsets = zip(chunks, _split(self.offset, total, sizes), strict=True)
            chunks = [chunk._replace(offset=offset) for chunk, offset in offsets]
        if self.hits is not None:
            hits = zip(chunks, self.hits.split(sizes), strict=True)
            chunks = [chunk._replace(hits=own) for chunk, own in hits]
        return chunks

    def _shares_offset(self) -> bool:
        return self.offset.shape.rank == 1 or self.offset.shape[0] == 1


class ChunkPlan(NamedTuple):
    """How the examples are cut into chunks, in the forward and the backward pass.

    Attributes:
        loss_function: The loss.
        sampled: The logits of all examples.
        reduce: Computes what the loss needs of the logits of a chunk, see `_reduce`.
        is_whole: Whether all examples are one chunk.
        saved: If there are several chunks, the logits of those whose derivatives are
            saved; empty before `cut`.
        sizes: The number of examples in each saved chunk.
        num_saved: The number of examples in all saved chunks, which come first.
        num_recomputed: The number of the other examples, whose derivatives are computed
            again. It is the int 0 if it is known that there are none.
    """

    loss_function: LossFunction
    sampled: SampledLogits
    reduce: Callable[[SampledLogits], tuple[tf.Tensor, tf.Tensor]]
    is_whole: bool | tf.Tensor
    saved: list[SampledLogits]
    sizes: Sizes
    num_saved: Size
    num_recomputed: Size

    @property
    def is_known(self) -> bool:
        """Whether the graph knows the number of chunks."""
        return isinstance(self.is_whole, bool)

    @property
    def is_small(self) -> bool:
        """Whether operations take longer than passes over the logits."""
        batch, num_sampled = num_rows(self.sampled.inputs), num_rows(self.sampled.rows)
        return self.is_whole is True and batch * num_sampled <= MAX_COMBINED

    @property
    def recomputes(self) -> bool:
        """Whether there may be examples whose derivatives are computed again."""
        return not isinstance(self.num_recomputed, int) or self.num_recomputed > 0

    def cut(self) -> ChunkPlan:
        """Returns the plan with its saved chunks, and logits that can be sliced."""
        if self.saved:
            return self
        sampled, hits = self.sampled, self.sampled.hits
        if hits is not None:
            hits = hits.with_row_splits(num_rows(sampled.inputs))
            sampled = sampled._replace(hits=hits)
        saved = sampled.split(self.num_saved, self.sizes)
        return self._replace(sampled=sampled, saved=saved)

    def choose(
        self, whole: Callable[..., Any], chunks: Callable[..., Any], *args: Any
    ) -> Any:
        """Computes one chunk, or several, by functions of a plan and `args`."""
        if self.is_known:
            return (whole if self.is_whole else chunks)(self, *args)
        specs = tuple(
            (x.dtype, *x.shape.as_list()) if tf.is_tensor(x) else x
            for x in tf.nest.flatten((self.sampled, args))
        )
        limits = MAX_LOGITS, MIN_OVERLAP
        function = _chunks_of_specs(chunks, self.loss_function, limits, specs)
        # Called itself, it would warn of retracing.
        function = function.get_concrete_function(self.sampled, *args)
        return tf.cond(
            self.is_whole,
            lambda: whole(self, *args),
            lambda: function(self.sampled, *args),
        )


class ValidChunks(NamedTuple):
    """Chunks of equal size for XLA, of which those with a valid example are computed.

    Attributes:
        sampled: The logits of all examples, the valid ones first.
        reduce: As in `ChunkPlan`.
        size: The number of examples in each chunk.
        num_chunks: The number of chunks.
        num_saved: The number of chunks whose derivatives are saved, the first ones.
        num_used: `[]` int32, the number of chunks with a valid example.
    """

    sampled: SampledLogits
    reduce: Callable[[SampledLogits], tuple[tf.Tensor, tf.Tensor]]
    size: Size
    num_chunks: Size
    num_saved: Size
    num_used: tf.Tensor

    def reduce_chunks(self) -> tuple[tf.Tensor, tuple[tf.Tensor]]:
        """Computes what the loss needs of the logits, and what is saved of them."""
        dtype, num_sampled = self.sampled.offset.dtype, num_rows(self.sampled.rows)

        def reduce(i: tf.Tensor) -> tuple:
            return self.reduce(self._chunk(i)), ()

        def reduce_unsaved(i: tf.Tensor) -> tuple:
            return self.reduce(self._chunk(i))[:1], ()

        partial = tf.zeros([self.num_chunks, self.size], dtype)
        d_logits = tf.zeros([self.num_saved, self.size, num_sampled], dtype)
        d_logits = matmul.cast_residuals(d_logits, self.sampled.rows)
        results = partial, d_logits
        (partial, d_logits), _ = self._scan(reduce, reduce_unsaved, results, ())
        return tf.reshape(partial, [-1]), (d_logits,)

    def gradient(self, dy: tf.Tensor, d_logits: tf.Tensor) -> tuple[tf.Tensor, ...]:
        """Computes the gradients as `backward`, for `dy` `[N, 1]`."""

        def gradients(i: tf.Tensor, d_logits: tf.Tensor | None = None) -> tuple:
            chunk = self._chunk(i)
            if d_logits is None:
                _, d_logits = self.reduce(chunk)
            dy_chunk = slice_rows(dy, i * self.size, self.size)
            inputs, *sums = _chunk_gradients(chunk, d_logits, dy_chunk, True)
            return (inputs,), tuple(sums)

        def gradients_of_saved(i: tf.Tensor) -> tuple:
            return gradients(i, tf.gather(d_logits, i))

        dim = num_columns(self.sampled.inputs)
        inputs = tf.zeros([self.num_chunks, self.size, dim], dy.dtype)
        sums = tf.zeros([dim + 1, num_rows(self.sampled.rows)], dy.dtype)
        (inputs,), sums = self._scan(gradients_of_saved, gradients, (inputs,), (sums,))
        return tf.reshape(inputs, [-1, dim]), *matmul.rows_gradient(*sums)

    def _chunk(self, i: tf.Tensor) -> SampledLogits:
        return self.sampled.slice(i * self.size, self.size)

    def _scan(
        self,
        of_saved: Callable[[tf.Tensor], tuple],
        of_others: Callable[[tf.Tensor], tuple],
        results: tuple[tf.Tensor, ...],
        carry: tuple[tf.Tensor, ...],
    ) -> tuple[tuple[tf.Tensor, ...], tuple[tf.Tensor, ...]]:
        """Calls one of two functions with the number of each chunk in use.

        Args:
            of_saved: Returns what to write at the chunk's number into each of
                `results`, and what to add to each of `carry`.
            of_others: The same for the chunks that are not saved, may leave out the
                last results.
        """

        def loop(function: Callable, start: Size, end: Size, *values: Any) -> Any:
            if isinstance(start, int) and isinstance(end, int) and start == end:
                return values

            def body(i: tf.Tensor, results: tuple, carry: tuple) -> tuple:
                written, added = function(i)
                updated = [
                    tf.tensor_scatter_nd_update(old, [[i]], new[tf.newaxis])
                    for old, new in zip(results, written, strict=False)
                ]
                updated += results[len(updated) :]
                return i + 1, tuple(updated), tuple(map(tf.add, carry, added))

            end = tf.minimum(self.num_used, end)
            return tf.while_loop(lambda i, *_: i < end, body, (start, *values))[1:]

        values = loop(of_saved, 0, self.num_saved, results, carry)
        return loop(of_others, self.num_saved, self.num_chunks, *values)


class Residuals(NamedTuple):
    """What the backward pass reads.

    Attributes:
        d_true_logits: `[N, T]`, the derivatives of the loss by the labels' logits.
        d_partial: `[N]`, by the sum over sampled logits, see `LossFunction`; ones if
            `combine` took the logits.
        d_logits: `[n, S]` of each saved chunk, by the sampled logits. If all examples
            are one chunk, the first is theirs, and others are empty.
    """

    d_true_logits: tf.Tensor
    d_partial: tf.Tensor
    d_logits: tuple[tf.Tensor, ...]


def plan_chunks(
    loss_function: LossFunction,
    sampled: SampledLogits,
    num_valid: tf.Tensor | None = None,
) -> ChunkPlan | ValidChunks:
    """Decides what is saved, for a loss that is computed now."""
    batch, num_sampled = num_rows(sampled.inputs), num_rows(sampled.rows)
    reduce: Any = functools.partial(_reduce, loss_function)
    if num_valid is not None:
        count = num_valid_chunks(batch, num_sampled)
        size, dim = batch // count, num_columns(sampled.inputs)
        saves_all = not isinstance(dim, int) or dim > MAX_UNSAVED_DIM
        num_saved = _num_rows(MAX_LOGITS, num_sampled, batch) // maximum(size, 1)
        num_saved = maximum(minimum(num_saved, count // (1 if saves_all else 4)), 1)
        num_used = -(-num_valid // maximum(size, 1))
        return ValidChunks(sampled, reduce, size, count, num_saved, num_used)
    num_saved = _num_rows(MAX_LOGITS, num_sampled, batch)
    # Without XLA on a CPU one of two chunks computes while the other waits for memory.
    overlaps = can_branch_on_data() and not tf.executing_eagerly()
    max_whole = min(MIN_OVERLAP, MAX_LOGITS) if overlaps else MAX_LOGITS
    num_whole = _num_rows(max_whole, num_sampled, batch)
    half = num_saved // 2
    sizes: Any = [half, num_saved - half] if overlaps else [num_saved]
    if isinstance(batch, int) and isinstance(num_sampled, int):
        is_whole, sizes = num_whole == batch, np.array(sizes, np.int32)
    else:
        # XLA compiles for one batch, and has no use for both.
        is_whole = False if tracing_for_xla() else tf.equal(num_whole, batch)
        sizes = tf.stack(sizes)
    num_recomputed = batch - num_saved
    plan = ChunkPlan(
        loss_function=loss_function,
        sampled=sampled,
        reduce=reduce,
        is_whole=is_whole,
        saved=[],
        sizes=sizes,
        num_saved=num_saved,
        num_recomputed=num_recomputed,
    )
    if plan.recomputes and not tf.executing_eagerly() and not tracing_for_xla():
        # Of an unknown batch traced once, for every chunk and both loops.
        plan = plan._replace(reduce=tf.function(reduce, autograph=False))
    return plan.cut() if is_whole is False else plan


def _num_rows(limit: int, num_sampled: Size, batch: Size) -> Size:
    """Returns how many examples have up to `limit` logits, at least 1 of a batch."""
    return minimum(maximum(limit // maximum(num_sampled, 1), 1), batch)


def forward(
    loss_function: LossFunction,
    true_logits: tf.Tensor,
    label_weights: tf.Tensor | None,
    plan: ChunkPlan | ValidChunks,
) -> tuple[tf.Tensor, Residuals]:
    """Computes the loss `[N]` from the labels' logits `[N, T]` and sampled logits."""
    if isinstance(plan, ValidChunks):
        partial, d_logits = plan.reduce_chunks()
    elif loss_function.combines_logits and plan.is_small:
        logits, derivative = plan.sampled.compute()
        loss, d_true_logits, d_logits = loss_function.combine(
            true_logits, logits, label_weights
        )
        d_logits = _residuals(d_logits, derivative, plan.sampled.rows)
        return loss, Residuals(d_true_logits, tf.ones_like(loss), (d_logits,))
    else:
        partial, d_logits = plan.choose(_reduce_whole, _reduce_chunks)
    loss, d_true_logits, d_partial = loss_function.combine(
        true_logits, partial, label_weights
    )
    return loss, Residuals(d_true_logits, d_partial, d_logits)


def backward(
    plan: ChunkPlan | ValidChunks, residuals: Residuals, dy: tf.Tensor
) -> tuple[tf.Tensor, ...]:
    """Computes the gradients for the cotangent `dy` `[N]` of the loss.

    Returns:
        The gradients of the inputs `[N, D]`, of the rows `[S, D]`, and of the offset,
        summed to `[S]`.
    """
    dy = tf.expand_dims(dy * residuals.d_partial, 1)
    if isinstance(plan, ValidChunks):
        return plan.gradient(dy, *residuals.d_logits)
    return plan.choose(_gradient_of_whole, _gradient_of_chunks, dy, residuals.d_logits)


@functools.cache
def _chunks_of_specs(
    chunks: Callable[..., Any], loss_function: LossFunction, limits: Any, specs: Any
) -> Any:
    """Returns a function of `SampledLogits` that cuts them, and calls `chunks`.

    It is traced once in a process for all losses of the same shapes and dtypes. A small
    batch skips one operation; inlined, it would skip each of them.

    Args:
        limits: What else the trace depends on, a key of the cache.
        specs: Dtypes and shapes, a key too: a `tf.function` also takes what it has
            traced for more general shapes.
    """
    del limits, specs

    @tf.function(autograph=False, experimental_attributes={"_noinline": True})
    def function(sampled: SampledLogits, *args: Any) -> Any:
        return chunks(plan_chunks(loss_function, sampled), *args)

    return function


def _reduce_whole(plan: ChunkPlan) -> tuple[tf.Tensor, tuple[tf.Tensor, ...]]:
    partial, d_logits = plan.reduce(plan.sampled)
    if plan.is_known:
        return partial, (d_logits,)
    empty = [d_logits[:0]] * (plan.sizes.shape[0] - 1)
    return partial, (d_logits, *empty)


def _reduce_chunks(plan: ChunkPlan) -> tuple[tf.Tensor, tuple[tf.Tensor, ...]]:
    plan = plan.cut()
    partials, d_logits = map(list, zip(*map(plan.reduce, plan.saved), strict=True))
    if plan.recomputes:

        def chunk_fn(start: Size, size: Size) -> tuple[tf.Tensor, tuple[()]]:
            return plan.reduce(plan.sampled.slice(start, size))[0], ()

        partial = tf.zeros([plan.num_recomputed], partials[0].dtype)
        partial, _ = _scan_chunks(plan, chunk_fn, partial, ())
        partials.append(partial)
    return tf.concat(partials, axis=0), tuple(d_logits)


def _gradient_of_whole(
    plan: ChunkPlan, dy: tf.Tensor, d_logits: tuple[tf.Tensor, ...]
) -> tuple[tf.Tensor, ...]:
    # Where the graph does not know the batch, this runs for few logits only.
    transposed = plan.is_known and matmul.is_transposed(plan.sampled.inputs)
    inputs, *sums = _chunk_gradients(plan.sampled, d_logits[0], dy, transposed)
    return inputs, *matmul.rows_gradient(*sums)


def _gradient_of_chunks(
    plan: ChunkPlan, dy: tf.Tensor, d_logits: tuple[tf.Tensor, ...]
) -> tuple[tf.Tensor, ...]:
    plan, transposed = plan.cut(), matmul.is_transposed(plan.sampled.inputs)
    dy_chunks = _split(dy, plan.num_saved, plan.sizes)
    parts = [
        _chunk_gradients(*chunk, transposed)
        for chunk in zip(plan.saved, d_logits, dy_chunks, strict=True)
    ]
    inputs, *sums = map(list, zip(*parts, strict=True))
    carry = tuple(map(tf.add_n, sums))
    if plan.recomputes:

        def chunk_fn(start: Size, size: Size) -> tuple:
            chunk = plan.sampled.slice(start, size)
            _, d_logits = plan.reduce(chunk)
            dy_chunk = slice_rows(dy, start, size)
            d_inputs, *sums = _chunk_gradients(chunk, d_logits, dy_chunk, transposed)
            return d_inputs, tuple(sums)

        shape = [plan.num_recomputed, num_columns(inputs[0])]
        d_inputs = tf.zeros(shape, inputs[0].dtype)
        d_inputs, carry = _scan_chunks(plan, chunk_fn, d_inputs, carry)
        inputs.append(d_inputs)
    return tf.concat(inputs, axis=0), *matmul.rows_gradient(*carry)


def _reduce(
    loss_function: LossFunction, sampled: SampledLogits
) -> tuple[tf.Tensor, tf.Tensor]:
    """Computes what the loss needs of the logits, and its derivatives by `x W^T`."""
    logits, derivative = sampled.compute()
    partial, d_logits = loss_function.reduce_sampled(logits)
    return partial, _residuals(d_logits, derivative, sampled.rows)


def _residuals(
    d_logits: tf.Tensor, derivative: tf.Tensor | None, rows: tf.Tensor
) -> tf.Tensor:
    """Returns derivatives by `x W^T` from those by capped logits."""
    if derivative is not None:
        d_logits *= derivative
    return matmul.cast_residuals(d_logits, rows)


def _chunk_gradients(
    sampled: SampledLogits, d_logits: tf.Tensor, dy: tf.Tensor, transposed: bool
) -> tuple[tf.Tensor, ...]:
    """Computes the gradient of a chunk's inputs, and its `row_sums`; `dy` `[n, 1]`."""
    inputs = dy * matmul.inputs_gradient(d_logits, sampled.rows, dy.dtype)
    # The factor scales the inputs, not the derivatives `[n, S]`.
    scaled_inputs = dy * sampled.inputs
    return inputs, *matmul.row_sums(d_logits, scaled_inputs, dy, transposed)


def _scan_chunks(
    plan: ChunkPlan,
    chunk_fn: Callable[[Size, Size], tuple[tf.Tensor, tuple[tf.Tensor, ...]]],
    results: tf.Tensor,
    carry: tuple[tf.Tensor, ...],
) -> tuple[tf.Tensor, tuple[tf.Tensor, ...]]:
    """Calls `chunk_fn(start, size)` for each recomputed chunk in turn.

    Args:
        plan: The plan. A chunk has `num_saved` examples; the last may have fewer.
        chunk_fn: Returns `[size, ...]` results, and what is added to `carry`.
        results: `[num_recomputed, ...]`, to be overwritten.

    Returns:
        The results and the sums.
    """
    # 3 saved, 8 recomputed -> chunks (3, 3), (6, 3), (9, 2); under XLA, whose sizes
    # are constants, the last is computed after the loop
    start, total = plan.num_saved, plan.num_recomputed
    size, in_loop, xla = start, total, tracing_for_xla()
    if xla:
        size = minimum(size, total)  # the loop is compiled, if it has no chunk too
        in_loop = total // maximum(size, 1) * size

    def add_chunk(offset: Size, size: Size, results: tf.Tensor, carry: tuple) -> tuple:
        result, updates = chunk_fn(start + offset, size)
        rows = offset + tf.range(size)
        results = tf.tensor_scatter_nd_update(results, tf.expand_dims(rows, 1), result)
        return results, tuple(map(tf.add, carry, updates))

    def loop_body(offset: tf.Tensor, *values: Any) -> tuple:
        chunk = size if xla else tf.minimum(size, total - offset)
        return offset + size, *add_chunk(offset, chunk, *values)

    _, *values = tf.while_loop(
        lambda offset, *_: offset < in_loop,
        loop_body,
        (0, results, carry),
        parallel_iterations=1,
    )
    return add_chunk(in_loop, total - in_loop, *values) if xla else tuple(values)


def _greatest(logits: tf.Tensor, count: int) -> tf.Tensor:
    """Sets all but the greatest logits of each row to minus infinity; ties stay."""
    # logits = [[3, 1, 2]], count = 2 -> [[3, -inf, 2]]
    count = minimum(count, num_columns(logits))
    least = tf.math.top_k(logits, count).values[:, -1:]
    minus_infinity = tf.constant(float("-inf"), logits.dtype)
    return tf.where(logits < least, minus_infinity, logits)


def _split(tensor: tf.Tensor, total: Size, sizes: Sizes) -> list[tf.Tensor]:
    """Cuts the first `total` rows into parts of some sizes, their sum."""
    is_all = isinstance(total, int) and total == tensor.shape[0]
    rows = tensor if is_all else slice_rows(tensor, 0, total)
    return [rows] if sizes.shape[0] == 1 else tf.split(rows, sizes)
