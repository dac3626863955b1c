"""The full softmax loss and its gradient, without a tensor of all the logits.

With logits `l = x W^T + b` of `N` examples and `V` classes, `p = softmax(l)`, label
weights `y` (as if `[N, V]`; those of an example add up to 1) and the gradient `dy` of
the losses,

    loss = log(sum_j exp(l_j)) - sum_j y_j l_j
    dl   = dy (p - y),      dx = dl W,   dW = dl^T x,   db = sum_n dl

The forward pass saves `max = max_j l_j` and `sum_exp = sum_j exp(l_j - max)`. The
backward pass computes each chunk of `exp(l - max)` again and does not divide it by
`sum_exp`: the factor `dy / sum_exp` of an example is put on `x` before the product for
`dW`, and on `dx` after the last chunk.

`LossOptions` change this. A soft cap `c` makes the logits `c tanh(l / c)`, and their
derivative multiplies `dl`. Label smoothing replaces `y` by `(1 - s) y + s / V`. With
`log_z = log(sum_j exp(l_j))` a z-loss adds `z log_z^2`, and `2 z log_z p` to `p - y`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import tensorflow as tf

from tfsampled._core import validation
from tfsampled._core.embedding.class_logits import cap_derivative, cap_logits
from tfsampled._core.embedding.matmul import is_transposed, row_sums, rows_gradient
from tfsampled._core.embedding.sharded_table import Table, unit_rows_gradient
from tfsampled._core.full_softmax.class_chunks import (
    Carry,
    bitcast,
    chunk_logits,
    chunk_rows,
    chunk_size,
    empty_like,
    find_in_chunk,
    scan_chunks,
    scan_shards,
    update_rows_inplace,
)
from tfsampled._core.full_softmax.shards import Shard, replace_tables, shards_of
from tfsampled._core.static_ops import compute_dtype
from tfsampled._core.xla import traced_as, tracing_for_xla


class Targets(NamedTuple):
    """Labels int64 `[N, T]`, and how much each weighs in its example, `[N, T]`."""

    labels: tf.Tensor
    label_weights: tf.Tensor


class LossOptions(NamedTuple):
    """Options that modify the cross entropy.

    Attributes:
        label_smoothing: The share of the target that is spread evenly over all classes.
        soft_cap: Caps the logits; None for no cap.
        z_loss: The weight of the squared log of the softmax's denominator.
        logsumexp: Whether the result is the logsumexp alone; label weights are then 0.
    """

    label_smoothing: float = 0.0
    soft_cap: float | None = None
    z_loss: float = 0.0
    logsumexp: bool = False


class Normalizer(NamedTuple):
    """What makes probabilities of logits: `exp(logits - max) / sum_exp`.

    Attributes:
        max: `[N, 1]`, the greatest logit; NaN where a label id is out of range.
        sum_exp: `[N, 1]`, at least 1.
    """

    max: tf.Tensor
    sum_exp: tf.Tensor


def full_softmax_loss(
    inputs: tf.Tensor,
    weights: Table,
    biases: Table | None,
    labels: tf.Tensor,
    label_weights: tf.Tensor | None = None,
    options: LossOptions = LossOptions(),  # noqa: B008 - it cannot be changed
) -> tf.Tensor:
    """Computes the cross entropy of each example over all classes.

    A label outside `[0, V)` makes its example and its gradient NaN: the caller decides
    how to report it.

    Args:
        inputs: `[N, D]`, floating.
        weights: `V` rows `[D]`.
        biases: `V` rows `[]`, or None.
        labels: Integers `[N, T]`.
        label_weights: `[N, T]`; those of an example add up to 1. None for `1 / T`. They
            get no gradient.

    Returns:
        `[N]`; float64 for inputs of float64, else float32.
    """
    shards = shards_of(weights, biases)
    inputs = tf.ensure_shape(inputs, [None, None])
    inputs = tf.cast(inputs, compute_dtype(inputs.dtype))
    if label_weights is None:
        label_weights = tf.ones_like(labels, inputs.dtype) / labels.shape[1]
    targets = Targets(
        tf.stop_gradient(tf.cast(labels, tf.int64)),
        tf.stop_gradient(tf.cast(label_weights, inputs.dtype)),
    )

    for_xla = tracing_for_xla()
    if weights.devices is not None:
        return _without_gradient(inputs, shards, targets, options)

    # The scans read constants (`stop_gradient`), so that neither a tape nor a graph
    # saves their chunks: the derivatives come from the formulas alone.
    @tf.custom_gradient
    def forward(*operands: tf.Tensor) -> Any:
        inputs, *tables = map(tf.stop_gradient, operands)
        losses, normalizer = _forward(
            inputs, replace_tables(shards, tables), targets, options
        )

        @tf.custom_gradient
        def backward(*operands: tf.Tensor) -> Any:
            dy, inputs, *tables = map(tf.stop_gradient, operands)
            own_shards = replace_tables(shards, tables)
            with traced_as(for_xla):
                gradients = _backward(
                    dy, inputs, own_shards, targets, options, normalizer
                )
            return gradients, _refuse_second_derivative

        # `tf.gather` of losses has a `tf.IndexedSlices` as its gradient.
        return losses, lambda dy: backward(tf.convert_to_tensor(dy), *operands)

    return forward(inputs, *(table for shard in shards for table in shard.tables))


def _without_gradient(
    inputs: tf.Tensor, shards: list[Shard], targets: Targets, options: LossOptions
) -> tf.Tensor:
    """Computes losses for evaluation.

    A custom gradient of the tables would copy them from their devices.
    """

    def refuse(*_: tf.Tensor) -> Any:
        raise NotImplementedError(
            "The exact loss of a table that is divided among devices has no gradient. "
            "Train with `sampled_loss`."
        )

    @tf.custom_gradient
    def forward(inputs: tf.Tensor) -> Any:
        return _forward(tf.stop_gradient(inputs), shards, targets, options)[0], refuse

    return forward(inputs)


def full_logsumexp(
    inputs: tf.Tensor, weights: Table, biases: Table | None, soft_cap: float | None
) -> tf.Tensor:
    """Computes `log(sum_j exp(l_j))` over all classes, `[N]`.

    Arguments are those of `full_softmax_loss`.
    """
    label = tf.zeros_like(inputs[:, :1], tf.int64)
    label_weights = tf.zeros_like(inputs[:, :1])
    options = LossOptions(soft_cap=soft_cap, logsumexp=True)
    return full_softmax_loss(inputs, weights, biases, label, label_weights, options)


def _refuse_second_derivative(*_: tf.Tensor) -> Any:
    raise NotImplementedError(
        "The full softmax loss can be differentiated once, in reverse mode. Received: "
        "a request for its second derivative, or for its forward-mode derivative."
    )


def _forward(
    inputs: tf.Tensor, shards: list[Shard], targets: Targets, options: LossOptions
) -> tuple[tf.Tensor, Normalizer]:
    """Computes the losses `[N]`, and what the backward pass needs."""
    # logits [1, 3, 2], label 2, chunks of two classes:
    # [1, 3] -> max 3, sum_exp exp(-2) + 1;  [2] -> max 3, sum_exp + exp(-1), label 2
    # loss = log(sum_exp) - (2 - 3)
    dtype = inputs.dtype
    zeros = tf.zeros_like(inputs[:, :1])
    max_logit, sum_exp = zeros + dtype.min, zeros  # finite, as logits may be -inf
    label_logits = tf.zeros_like(targets.label_weights)
    # Logits are summed for label smoothing alone.
    logit_sum = [zeros] if options.label_smoothing else []

    def body_of(shard: Shard) -> Callable[..., Carry]:
        rows = shard.row_of(targets.labels)

        def body(start: Any, size: Any, *carry: Any) -> Carry:
            max_logit, sum_exp, label_logits, *logit_sum = carry
            logits, _ = chunk_logits(inputs, shard, start, size)
            logits = cap_logits(logits, options.soft_cap)
            logit_sum = [
                total + tf.reduce_sum(logits, axis=1, keepdims=True)
                for total in logit_sum
            ]
            in_chunk, columns = find_in_chunk(rows, start, size)
            chunk_label_logits = tf.gather(logits, columns, batch_dims=1)
            label_logits = tf.where(in_chunk, chunk_label_logits, label_logits)
            chunk_max = tf.reduce_max(logits, axis=1, keepdims=True)
            with tf.control_dependencies([label_logits, chunk_max, *logit_sum]):
                # The softmax may overwrite the logits, which these read. Its
                # greatest value is 1 / sum_j exp(l_j - chunk_max).
                inverse = tf.reduce_max(tf.nn.softmax(logits), axis=1, keepdims=True)
            new_max = tf.maximum(max_logit, chunk_max)
            chunk_sum = tf.exp(chunk_max - new_max) / inverse
            chunk_sum = tf.where(chunk_max < dtype.min, zeros, chunk_sum)
            sum_exp = sum_exp * tf.exp(max_logit - new_max) + chunk_sum
            return new_max, sum_exp, label_logits, *logit_sum

        return body

    no_classes = max_logit, sum_exp, label_logits, *logit_sum
    max_logit, sum_exp, label_logits, *logit_sum = scan_shards(
        shards, chunk_size(inputs), body_of, no_classes, _merge
    )
    in_range = validation.in_range(targets.labels, _num_classes(shards, tf.int64))
    nan = tf.constant(float("nan"), dtype)
    max_logit = tf.where(tf.reduce_all(in_range, axis=1, keepdims=True), max_logit, nan)
    # Near a loss of 0 this keeps the digits that `log(sum_exp) + max - ...` would lose.
    shifted = tf.reduce_sum(
        targets.label_weights * (label_logits - max_logit), axis=1, keepdims=True
    )
    for total in logit_sum:
        mean = total / _num_classes(shards, dtype) - max_logit
        shifted += options.label_smoothing * (mean - shifted)
    log_sum_exp = tf.math.log(sum_exp)
    losses = log_sum_exp + max_logit if options.logsumexp else log_sum_exp - shifted
    if options.z_loss:
        losses += options.z_loss * tf.square(log_sum_exp + max_logit)
    return losses[:, 0], Normalizer(max_logit, sum_exp)


def _merge(one: Carry, other: Carry) -> Carry:
    """Merges what `_forward` knows of different classes."""
    # max 3, sum_exp 1.1; max 2, sum_exp 1 -> max 3, sum_exp 1.1 + exp(-1)
    (max_logit, sum_exp, *sums), (other_max, other_sum_exp, *other_sums) = one, other
    new_max = tf.maximum(max_logit, other_max)
    sum_exp = sum_exp * tf.exp(max_logit - new_max)
    sum_exp += other_sum_exp * tf.exp(other_max - new_max)
    return new_max, sum_exp, *map(tf.add, sums, other_sums)


def _num_classes(shards: list[Shard], dtype: tf.DType) -> tf.Tensor:
    return tf.add_n([tf.cast(shard.num_rows, dtype) for shard in shards])


def _backward(
    dy: tf.Tensor,
    inputs: tf.Tensor,
    shards: list[Shard],
    targets: Targets,
    options: LossOptions,
    normalizer: Normalizer,
) -> list[tf.Tensor]:
    """Computes the gradients of the inputs and of each shard's tables."""
    factor = dy[:, tf.newaxis] / normalizer.sum_exp
    scaled_inputs = inputs * factor
    smoothing, cap, z_loss, _ = options
    label_exp = (1 - smoothing) * targets.label_weights * normalizer.sum_exp
    transposed = is_transposed(inputs)
    if z_loss:
        log_z = tf.math.log(normalizer.sum_exp) + normalizer.max
        exp_factor = 1 + 2 * z_loss * log_z
    if smoothing:
        smooth_exp = smoothing / _num_classes(shards, inputs.dtype) * normalizer.sum_exp
    d_inputs, d_tables = tf.zeros_like(inputs), []
    for shard in shards:
        rows = shard.row_of(targets.labels)

        def body(
            start: Any, size: Any, d_inputs: Any, *filled: Any, shard=shard, rows=rows
        ) -> Carry:
            logits, weights = chunk_logits(inputs, shard, start, size)
            logits = cap_logits(logits, cap)
            # The maximum is no column of the product, which a GPU rounds to TF32.
            d_logits = tf.exp(logits - normalizer.max)
            if z_loss:
                d_logits *= exp_factor
            if smoothing:
                d_logits -= smooth_exp
            in_chunk, columns = find_in_chunk(rows, start, size)
            amounts = tf.where(in_chunk, label_exp, tf.zeros_like(label_exp))
            d_logits = _subtract_at(d_logits, columns, amounts)
            if cap is not None:
                d_logits *= cap_derivative(logits, cap)
            # times `factor`, these are the gradients of `x W^T`
            d_rows, d_biases = rows_gradient(
                *row_sums(d_logits, scaled_inputs, factor, transposed)
            )
            if shard.normalize:
                stored = chunk_rows(shard.weights, start, size, inputs.dtype)
                d_rows = unit_rows_gradient(stored, d_rows)
            d_tables = [d_rows, d_biases][: len(filled)]
            updated = [
                update_rows_inplace(table, start, rows, like.dtype)
                for table, rows, like in zip(
                    filled, d_tables, shard.tables, strict=True
                )
            ]
            return d_inputs + tf.matmul(d_logits, weights), *updated

        carry = d_inputs, *map(empty_like, shard.tables)
        d_inputs, *filled = scan_chunks(shard, chunk_size(inputs), body, carry)
        d_tables += [
            bitcast(d_table, table.dtype)
            for d_table, table in zip(filled, shard.tables, strict=True)
        ]
    return [d_inputs * factor, *d_tables]


def _subtract_at(
    values: tf.Tensor, columns: tf.Tensor, amounts: tf.Tensor
) -> tf.Tensor:
    """Subtracts `amounts` `[N, T]` from `values` `[N, size]` at `columns` `[N, T]`."""
    # values = [[5, 6]], columns = [[1, 0]], amounts = [[1, 0]] -> [[5, 5]]
    examples = tf.cast(tf.range(tf.shape(values)[0]), tf.int64)
    examples = tf.broadcast_to(examples[:, tf.newaxis], tf.shape(columns))
    indices = tf.stack([examples, columns], axis=-1)
    return tf.tensor_scatter_nd_sub(values, indices, amounts)
