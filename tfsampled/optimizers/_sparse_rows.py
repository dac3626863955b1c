"""Rows of a table: repeated ones summed, some of them read and written in place.

Nothing here costs what the table costs: only as many rows are read, computed and
written as a gradient has.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from tfsampled._core import static_ops, validation, xla


def name_of(table: Any) -> str:
    """What a variable of Keras's or TensorFlow's is called."""
    return getattr(table, "path", table.name)


def checked(slices: tf.IndexedSlices, table: Any) -> tf.IndexedSlices:
    """The gradient, of tensors, if it can be the table's as far as that is known.

    Args:
      slices: the gradient.
      table: the variable that it is of.

    Raises:
      ValueError: ids that are no vector of int32 or int64, or values that are not as
        many rows of the table's shape, or not floating.
    """
    name, ids = name_of(table), tf.convert_to_tensor(slices.indices)
    values = tf.convert_to_tensor(slices.values)
    allowed = f"[n, {', '.join(map(str, table.shape[1:]))}]".replace(", ]", "]")
    if not values.shape.is_compatible_with([None, *table.shape[1:]]):
        raise ValueError(
            f"The gradient of {name} has values of shape {values.shape}, but the "
            f"table, {tuple(table.shape)}, takes {allowed}: pass each gradient with "
            "the variable that it is of."
        )
    if not ids.shape.is_compatible_with(values.shape[:1]):
        raise ValueError(
            f"The gradient of {name} has ids of shape {ids.shape} for values of shape "
            f"{values.shape}, but takes [n] and {allowed}: pass an id for each row."
        )
    if ids.dtype not in (tf.int32, tf.int64) or not values.dtype.is_floating:
        raise ValueError(
            f"The gradient of {name} has ids of {ids.dtype.name} and values of "
            f"{values.dtype.name}, but takes int32 or int64 and a floating dtype: "
            "cast them."
        )
    values = tf.ensure_shape(values, [None, *table.shape[1:]])
    return tf.IndexedSlices(values, ids, slices.dense_shape)


def widened(slices: tf.IndexedSlices, table: Any) -> tf.IndexedSlices:
    """The gradient in float32, in which sums of 16-bit numbers are not rounded to them.

    In float64 where the gradient or the table is.
    """
    values = tf.cast(slices.values, wide(slices.values.dtype, table.dtype))
    return tf.IndexedSlices(values, slices.indices, slices.dense_shape)


def wide(*dtypes: Any) -> tf.DType:
    """float32, or float64 where one of these is."""
    return tf.float64 if tf.float64 in map(tf.as_dtype, dtypes) else tf.float32


def sum_duplicates(slices: tf.IndexedSlices, table: Any) -> tf.IndexedSlices:
    """A gradient in which every row stands once, as the sum of its copies.

    Off XLA the rows are the distinct ones, `k <= n`. Under XLA, where no shape may
    depend on data, `k = n`: a row's other copies become zeros whose id is `num_rows`,
    which `write` and `add` leave out there; so becomes what lies outside the table.

    Args:
      slices: values `[n, ...]`, ids `[n]`, in any order and any number of times.
      table: the variable whose gradient it is, `[num_rows, ...]`.

    Returns:
      Values `[k, ...]`, `widened`, and ids `[k]`.

    Raises:
      tf.errors.InvalidArgumentError: an id lies outside the table (not under XLA).
    """
    slices = widened(slices, table)
    ids, values = slices.indices, slices.values
    if xla.tracing_for_xla():
        ids, values = _sum_in_place(ids, values, table.shape[0])
    else:
        # The checks come after: what is computed from ids alone, TensorFlow computes
        # once for all tables from which these ids were gathered.
        inside = assert_inside(ids, table)
        ids, position = tf.unique(ids)
        with tf.control_dependencies(inside):
            ids = tf.identity(ids)
        values = tf.math.unsorted_segment_sum(values, position, tf.size(ids))
    return tf.IndexedSlices(values, ids, slices.dense_shape)


def assert_inside(ids: tf.Tensor, table: Any) -> list[Any]:
    """Ops that fail unless every id is a row of the table; none in eager execution."""
    name = name_of(table)
    message = (
        f"The gradient of {name} must have row ids in [0, {{}}). "
        "Received: ids from {} to {}."
    )
    return validation.assert_all(
        [validation.ids_check(ids, table.shape[0], "indices", message)]
    )


def read(variable: Any, ids: tf.Tensor | None) -> tf.Tensor:
    """The rows `[k, ...]` of a variable, `wide`; all of them where `ids` is None."""
    found = tf.convert_to_tensor(variable) if ids is None else tf.gather(variable, ids)
    return tf.cast(found, found.dtype if found.dtype.is_integer else wide(found.dtype))


def write(variable: Any, ids: tf.Tensor | None, values: tf.Tensor) -> None:
    """Replaces these rows of a variable, in place; all of them where `ids` is None."""
    values = tf.cast(values, variable.dtype)
    if ids is None:
        variable.assign(values)
    else:
        variable.scatter_update(tf.IndexedSlices(values, ids))


def add(variable: Any, ids: tf.Tensor | None, values: tf.Tensor) -> None:
    """Adds to these distinct rows of a variable, in place; to all if `ids` is None."""
    if ids is not None and xla.tracing_for_xla():
        values = tf.cast(values, variable.dtype)
        variable.scatter_add(tf.IndexedSlices(values, ids))
    else:
        # TensorFlow's scatter_add takes twice as long as the two together.
        write(variable, ids, read(variable, ids) + values)


def per_row(numbers: tf.Tensor, rows: tf.Tensor) -> tf.Tensor:
    """`[k]` as `[k, 1, ...]`, of the rank of `rows`."""
    shape = tf.concat([tf.shape(numbers), [1] * (rows.shape.rank - 1)], 0)
    return tf.reshape(numbers, shape)


def _sum_in_place(
    ids: tf.Tensor, values: tf.Tensor, num_rows: int
) -> tuple[tf.Tensor, tf.Tensor]:
    n = tf.shape(ids)[0]
    inside = validation.in_range(ids, num_rows)
    first = static_ops.index_of_first(ids)
    kept = inside & tf.equal(first, tf.range(n))
    once = tf.where(kept, ids, tf.cast(num_rows, ids.dtype))
    # What is of segment -1 is of none.
    place = tf.where(inside, first, -1)
    return once, tf.math.unsorted_segment_sum(values, place, n)
