"""Rows of a table: repeated ones summed, some of them read and written in place.

Nothing here costs what the table costs: only as many rows are read, computed and
written as a gradient has.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from tfsampled._core import xla

# A hash table has this many slots an id.
_SLOTS_PER_ID = 8
# Odd 64-bit constants: the golden ratio's fraction, and a step that makes each
# round's multiplier another odd number.
_MULTIPLIER = 0x9E3779B97F4A7C15
_MULTIPLIER_STEP = 0xD1B54A32D192ED02


def sum_duplicates(slices: tf.IndexedSlices, table: Any) -> tf.IndexedSlices:
    """A gradient in which every row stands once, as the sum of its copies.

    Off XLA the rows are the distinct ones, `k <= n`. Under XLA, where no shape may
    depend on data, `k = n`: a row's other copies become zeros whose id is `num_rows`,
    which `write` and `add` leave out there; so become the ids outside the table.

    Args:
      slices: values `[n, ...]`, ids `[n]`, in any order and any number of times.
      table: the variable whose gradient it is, `[num_rows, ...]`.

    Returns:
      Values `[k, ...]` in the table's dtype, ids `[k]`.

    Raises:
      tf.errors.InvalidArgumentError: an id lies outside the table (not under XLA).
    """
    ids, values = tf.convert_to_tensor(slices.indices), slices.values
    values = tf.cast(values, table.dtype)
    if xla.tracing_for_xla():
        ids, values = _sum_in_place(ids, values, table.shape[0])
    else:
        # The checks come after: what is computed from ids alone, TensorFlow computes
        # once for all tables from which these ids were gathered.
        inside = _assert_inside(ids, table)
        ids, position = tf.unique(ids)
        with tf.control_dependencies(inside):
            ids = tf.identity(ids)
        values = tf.math.unsorted_segment_sum(values, position, tf.size(ids))
    return tf.IndexedSlices(values, ids, slices.dense_shape)


def read(variable: Any, ids: tf.Tensor | None) -> tf.Tensor:
    """The rows `[k, ...]` of a variable; all of them where `ids` is None."""
    return tf.convert_to_tensor(variable) if ids is None else tf.gather(variable, ids)


def write(variable: Any, ids: tf.Tensor | None, values: tf.Tensor) -> None:
    """Replaces these rows of a variable, in place; all of them where `ids` is None."""
    if ids is None:
        variable.assign(values)
    else:
        variable.scatter_update(tf.IndexedSlices(values, ids))


def add(variable: Any, ids: tf.Tensor | None, values: tf.Tensor) -> None:
    """Adds to these distinct rows of a variable, in place; to all if `ids` is None."""
    if ids is None:
        variable.assign_add(values)
    elif xla.tracing_for_xla():
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
    first = _first_of_its_kind(ids)
    inside = (ids >= 0) & (ids < tf.cast(num_rows, ids.dtype))
    kept = inside & tf.equal(first, tf.range(n))
    distinct = tf.where(kept, ids, tf.cast(num_rows, ids.dtype))
    return distinct, tf.math.unsorted_segment_sum(values, first, n)


def _first_of_its_kind(ids: tf.Tensor) -> tf.Tensor:
    """For each id the index of the first that equals it, `[n]` int32, without a sort.

    Equal ids fall into the same slot of a table, which keeps the smallest index.
    Where that index is of another id, the id is hashed again, differently, until
    none is left: the smallest index of a slot always settles.
    """
    unsigned = tf.cast(ids, tf.uint64)

    def one_round(
        multiplier: tf.Tensor, undecided: tf.Tensor, first: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        # Taken from the shape here: XLA wants the size of the table as a constant.
        n = tf.shape(ids)[0]
        size = _SLOTS_PER_ID * n
        high = tf.bitwise.right_shift(unsigned * multiplier, tf.constant(32, tf.uint64))
        slots = tf.bitwise.right_shift(
            high * tf.cast(size, tf.uint64), tf.constant(32, tf.uint64)
        )
        slots = tf.where(undecided, tf.cast(slots, tf.int32), -1)
        fronts = tf.math.unsorted_segment_min(tf.range(n), slots, size)
        front = tf.gather(fronts, tf.maximum(slots, 0))
        same = tf.equal(tf.gather(ids, tf.minimum(front, n - 1)), ids)
        settled = undecided & same
        return (
            multiplier + tf.constant(_MULTIPLIER_STEP, tf.uint64),
            undecided & ~settled,
            tf.where(settled, front, first),
        )

    state = (
        tf.constant(_MULTIPLIER, tf.uint64),
        tf.ones_like(ids, tf.bool),
        tf.zeros_like(ids, tf.int32),
    )
    return tf.while_loop(
        lambda _, undecided, __: tf.reduce_any(undecided), one_round, state
    )[2]


def _assert_inside(ids: tf.Tensor, table: Any) -> list[Any]:
    """Ops that fail unless every id is a row of the table; none in eager execution."""
    num_rows = tf.cast(table.shape[0], ids.dtype)
    # Of no ids at all these are the two ends of the dtype, which pass.
    low, high = tf.reduce_min(ids), tf.reduce_max(ids)
    name = getattr(table, "path", table.name)
    told = f"The gradient of {name} has rows from "
    allowed = f", but the table has {table.shape[0]} rows, counted from 0: "
    advice = "look for ids outside that range in what was gathered from it."
    inside = (low >= 0) & (high < num_rows)
    if tf.executing_eagerly():
        if not inside:
            sentence = f"{told}{int(low)} to {int(high)}{allowed}{advice}"
            raise tf.errors.InvalidArgumentError(None, None, sentence)
        return []
    return [tf.debugging.Assert(inside, [told, low, " to ", high, allowed + advice])]
