"""Row-sparse gradients: duplicates summed, values clipped, rows read and written.

The cost of everything here depends on the number of rows in the gradient, not on the
size of the table.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import tensorflow as tf

from tfsampled._core import static_ops, validation
from tfsampled._core.xla import on_host, server_of, tracing_for_xla

Gradient: TypeAlias = "tf.Tensor | tf.IndexedSlices"


def name_of(variable: Any) -> str:
    """Returns the name of a Keras or TensorFlow variable."""
    return getattr(variable, "path", variable.name)


def accumulation_dtype(*dtypes: Any) -> tf.DType:
    """Returns float64 if one of the dtypes is, else float32."""
    return tf.float64 if tf.float64 in map(tf.as_dtype, dtypes) else tf.float32


def validate_gradient(gradient: Any, variable: Any) -> Gradient | None:
    """Converts a gradient to tensors; None stays None.

    Raises:
        ValueError: If shapes or dtypes do not fit the variable, as far as known before
            running.
    """
    if gradient is None:
        return None
    name, shape = name_of(variable), variable.shape
    if not isinstance(gradient, tf.IndexedSlices):
        gradient = tf.convert_to_tensor(gradient)
        is_floating = gradient.dtype.is_floating
        if not is_floating or not gradient.shape.is_compatible_with(shape):
            raise ValueError(
                f"The gradient of {name} must be floating and have the shape "
                f"{tuple(shape)}. Received: dtype={gradient.dtype.name}, "
                f"shape={gradient.shape}."
            )
        return tf.ensure_shape(gradient, shape)
    values = tf.convert_to_tensor(gradient.values)
    ids = tf.convert_to_tensor(gradient.indices)
    value_shape = tf.TensorShape([None, *shape[1:]])
    if not values.shape.is_compatible_with(value_shape) or not (
        ids.shape.is_compatible_with(values.shape[:1])
    ):
        raise ValueError(
            f"The gradient of {name} must have ids [n] and values {value_shape}. "
            f"Received: ids.shape={ids.shape}, values.shape={values.shape}."
        )
    if ids.dtype not in (tf.int32, tf.int64) or not values.dtype.is_floating:
        raise ValueError(
            f"The gradient of {name} must have ids of int32 or int64 and floating "
            f"values. Received: ids of {ids.dtype.name}, values of "
            f"{values.dtype.name}."
        )
    values = tf.ensure_shape(values, value_shape)
    return tf.IndexedSlices(values, ids, gradient.dense_shape)


def assert_rows_in_bounds(
    gradients: Sequence[Any], variables: Sequence[Any]
) -> list[Any]:
    """Returns ops that fail unless every id of row-sparse gradients is a row."""
    sparse = [
        (gradient.indices, variable)
        for gradient, variable in zip(gradients, variables, strict=True)
        if isinstance(gradient, tf.IndexedSlices)
    ]
    if not sparse:
        return []
    # The host reads the conditions at once: a GPU has computed the gradients.
    conditions = [
        tf.reduce_all(validation.in_range(ids, variable.shape[0]))
        for ids, variable in sparse
    ]
    stacked = tf.stack(conditions)
    with on_host():
        conditions = tf.unstack(stacked)
    checks = []
    for condition, (ids, variable) in zip(conditions, sparse, strict=True):
        message = (
            f"The gradient of {name_of(variable)} must have row ids in "
            f"[0, {variable.shape[0]}). Received: ids from {{}} to {{}}."
        )

        def values(ids: tf.Tensor = ids) -> tuple[tf.Tensor, tf.Tensor]:
            return tf.reduce_min(ids), tf.reduce_max(ids)

        checks.append(validation.Check(condition, message, values))
    return validation.assert_all(checks)


def map_values(
    function: Callable[[tf.Tensor], tf.Tensor], gradient: Gradient
) -> Gradient:
    """Applies a function to the values of a gradient."""
    if not isinstance(gradient, tf.IndexedSlices):
        return function(gradient)
    values = function(gradient.values)
    return tf.IndexedSlices(values, gradient.indices, gradient.dense_shape)


def upcast(gradient: tf.IndexedSlices, table: Any) -> tf.IndexedSlices:
    """Casts values to float32, so that sums of 16-bit numbers keep their digits.

    To float64 if the gradient or the table is float64.
    """
    dtype = accumulation_dtype(gradient.values.dtype, table.dtype)
    return map_values(lambda values: tf.cast(values, dtype), gradient)


def sum_duplicates(gradient: tf.IndexedSlices, table: Any) -> tf.IndexedSlices:
    """Sums the copies of repeated rows.

    Without XLA the result has the distinct rows, `k <= n`. Under XLA, whose shapes are
    static, `k = n`: the other copies of a row become zeros with the id
    `num_rows`, which `write` and `add` drop there. So do ids out of range, and rows
    whose sum is 0: a lookup in shards makes such a row for an id of another shard.

    Args:
        gradient: Values `[n, ...]`, ids `[n]`, in any order. Without XLA the caller
            asserts that the ids are in range.
        table: The variable `[num_rows, ...]`.

    Returns:
        Values `[k, ...]` in `accumulation_dtype`, and ids `[k]`.
    """
    # ids = [7, 7, 2], values = [[1], [3], [5]]
    # without XLA: ids = [7, 2], values = [[4], [5]]
    # under XLA, 9 rows: ids = [7, 9, 2], values = [[4], [0], [5]]
    gradient = upcast(gradient, table)
    ids, values = gradient.indices, gradient.values
    if not tracing_for_xla():
        ids, segments = tf.unique(ids)
        values = tf.math.unsorted_segment_sum(values, segments, tf.size(ids))
        return tf.IndexedSlices(values, ids, gradient.dense_shape)
    n, num_rows = tf.shape(ids)[0], table.shape[0]
    in_bounds = validation.in_range(ids, num_rows)
    first = static_ops.index_of_first(ids)
    segments = tf.where(in_bounds, first, -1)  # segment -1 is dropped
    values = tf.math.unsorted_segment_sum(values, segments, n)  # 0 for other copies
    axes = list(range(1, values.shape.rank))
    is_row = in_bounds & tf.reduce_any(tf.not_equal(values, 0), axes)
    ids = tf.where(is_row, ids, tf.cast(num_rows, ids.dtype))
    return tf.IndexedSlices(values, ids, gradient.dense_shape)


def global_clip_factor(gradients: Sequence[Gradient], limit: float) -> tf.Tensor:
    """Returns the factor that clips all gradients to a joint norm of `limit`.

    The rows of row-sparse gradients must be distinct.
    NaN if the norm is not finite, as in TensorFlow.
    """
    values = [g.values if isinstance(g, tf.IndexedSlices) else g for g in gradients]
    dtype = accumulation_dtype(*(x.dtype for x in values))  # float16 squares overflow
    squares = [tf.reduce_sum(tf.square(tf.cast(x, dtype))) for x in values]
    norm = tf.sqrt(tf.add_n(squares))
    return limit * tf.minimum(1.0 / norm, 1.0 / limit) + (norm - norm)


def read(variable: Any, ids: tf.Tensor | None) -> tf.Tensor:
    """Reads rows `[k, ...]`, floating ones upcast; all rows if `ids` is None."""
    rows = tf.convert_to_tensor(variable) if ids is None else tf.gather(variable, ids)
    return (
        rows if rows.dtype.is_integer else tf.cast(rows, accumulation_dtype(rows.dtype))
    )


def write(
    variable: Any, ids: tf.Tensor | None, rows: tf.Tensor, old: tf.Tensor | None = None
) -> None:
    """Replaces rows of a variable, in place; all rows if `ids` is None.

    Given the `old` rows, those on a parameter server get the difference added: what
    another worker has written since they were read is not lost.
    """
    if old is not None and server_of(variable):
        change = tf.where(tf.equal(rows, old), tf.zeros_like(rows), rows - old)
        add(variable, ids, change)  # 0, not NaN, where both are infinite
        return
    rows = tf.cast(rows, variable.dtype)
    if ids is None:
        variable.assign(rows)
    else:
        variable.scatter_update(tf.IndexedSlices(rows, ids))


def add(variable: Any, ids: tf.Tensor | None, rows: tf.Tensor) -> None:
    """Adds to distinct rows of a variable, in place; to all rows if `ids` is None."""
    if server_of(variable):  # these two lock the variable, scatter_add does not
        rows = tf.cast(rows, variable.dtype)
        if ids is None:
            variable.assign_add(rows)
        else:  # an eager one of another machine fails in TensorFlow
            tf.function(variable.scatter_nd_add)(ids[:, tf.newaxis], rows)
    elif ids is not None and tracing_for_xla():
        rows = tf.cast(rows, variable.dtype)
        variable.scatter_add(tf.IndexedSlices(rows, ids))
    else:
        # TensorFlow's scatter_add takes twice as long as these two.
        write(variable, ids, read(variable, ids) + rows)


def expand_to_rank(numbers: tf.Tensor, rows: tf.Tensor) -> tf.Tensor:
    """Reshapes `[k]` to `[k, 1, ...]`, with the rank of `rows`; a scalar stays one."""
    rank = rows.shape.rank
    return tf.reshape(numbers, [-1] + [1] * (rank - 1)) if rank else numbers
