"""What the graph knows before it runs; first occurrences of ids, with static shapes."""

from __future__ import annotations

from typing import TypeAlias

import tensorflow as tf

Size: TypeAlias = int | tf.Tensor  # an int where the graph knows it, else `[]`

# A table of this many int32 is cheaper to fill than a second round of hashing.
_DIRECT_TABLE = 1 << 18
# A hash table has this many slots an id.
_SLOTS_PER_ID = 8
# Odd 64-bit constants: the golden ratio's fraction, and a step that makes each
# round's multiplier another odd number.
_MULTIPLIER = 0x9E3779B97F4A7C15
_MULTIPLIER_STEP = 0xD1B54A32D192ED02


def compute_dtype(dtype: tf.DType) -> tf.DType:
    """Returns the dtype in which logits of inputs of `dtype` are computed."""
    return tf.float64 if dtype == tf.float64 else tf.float32


def num_rows(x: tf.Tensor) -> Size:
    """Returns the first dimension: an int where the graph knows it, else int32 `[]`."""
    static = tf.compat.dimension_value(x.shape[0])
    return tf.shape(x)[0] if static is None else static


def num_columns(x: tf.Tensor) -> Size:
    """Returns the second dimension, as `num_rows` the first."""
    static = tf.compat.dimension_value(x.shape[1])
    return tf.shape(x)[1] if static is None else static


def slice_rows(tensor: tf.Tensor, start: Size, size: Size) -> tf.Tensor:
    """Returns `size` rows from `start` on; the graph still knows their other axes."""
    others = tensor.shape.as_list()[1:]
    sizes = [size, *(-1 if n is None else n for n in others)]
    return tf.slice(tensor, [start, *[0] * len(others)], sizes)


def minimum(a: Size, b: Size) -> Size:
    """Returns the lesser of two numbers: an int if both are ints."""
    return tf.minimum(a, b) if tf.is_tensor(a) or tf.is_tensor(b) else min(a, b)


def maximum(a: Size, b: Size) -> Size:
    """Returns the greater of two numbers: an int if both are ints."""
    return tf.maximum(a, b) if tf.is_tensor(a) or tf.is_tensor(b) else max(a, b)


def first_occurrences(
    ids: tf.Tensor, valid: tf.Tensor | None, num_ids: int
) -> tf.Tensor:
    """Marks where a valid id occurs for the first time.

    In a table with a slot for each possible id, or a hash table where there are many,
    each slot holds the smallest index of its ids.

    Args:
        ids: `[n]` int64 in `[0, num_ids)`.
        valid: `[n]` bool, or None if all ids are valid.

    Returns:
        `[n]` bool.
    """
    # ids = [3, 1, 3] -> slots = [., 1, ., 0] -> [True, True, False]
    n = ids.shape[0]
    index = tf.range(n)
    if num_ids > max(_DIRECT_TABLE, _SLOTS_PER_ID * n):
        return tf.equal(index_of_first(ids, valid), index)
    slots = tf.cast(ids, tf.int32)
    if valid is not None:
        slots = tf.where(valid, slots, -1)
    smallest = tf.math.unsorted_segment_min(index, slots, num_ids)
    first = tf.equal(tf.gather(smallest, tf.maximum(slots, 0)), index)
    return first if valid is None else first & valid


def index_of_first(ids: tf.Tensor, valid: tf.Tensor | None = None) -> tf.Tensor:
    """Finds for each id the index of the first id that equals it.

    Equal ids share a slot of a hash table, which holds their smallest index. Where the
    index is that of another id, the id is hashed again with another multiplier, until
    all are settled: the id with the smallest index of a slot always is.

    Args:
        ids: `[n]` of any integer dtype.
        valid: `[n]` bool, or None if all ids are valid.

    Returns:
        `[n]` int32, -1 where an id is not valid.
    """
    # ids = [3, 1, 3] -> [0, 1, 0]. If 3 and 1 share a slot in the first round, it holds
    # 0: both 3s are settled, 1 goes to the second round.
    unsigned = tf.cast(ids, tf.uint64)
    half_word = tf.constant(32, tf.uint64)

    def hash_round(
        multiplier: tf.Tensor, pending: tf.Tensor, first: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        # Taken from the shape here: XLA wants the size of the table as a constant.
        n = tf.shape(ids)[0]
        num_slots = _SLOTS_PER_ID * n
        high = tf.bitwise.right_shift(unsigned * multiplier, half_word)
        slots = tf.bitwise.right_shift(high * tf.cast(num_slots, tf.uint64), half_word)
        slots = tf.where(pending, tf.cast(slots, tf.int32), -1)
        smallest = tf.math.unsorted_segment_min(tf.range(n), slots, num_slots)
        winner = tf.gather(smallest, tf.maximum(slots, 0))
        is_same = tf.equal(tf.gather(ids, tf.minimum(winner, n - 1)), ids)
        settled = pending & is_same
        return (
            multiplier + tf.constant(_MULTIPLIER_STEP, tf.uint64),
            pending & ~settled,
            tf.where(settled, winner, first),
        )

    state = (
        tf.constant(_MULTIPLIER, tf.uint64),
        tf.ones_like(ids, tf.bool) if valid is None else valid,
        -tf.ones_like(ids, tf.int32),
    )
    return tf.while_loop(
        lambda _, pending, __: tf.reduce_any(pending), hash_round, state
    )[2]


def first_k_indices(marks: tf.Tensor, k: Size) -> tuple[tf.Tensor, tf.Tensor]:
    """Finds the first `k` marks.

    Args:
        marks: `[n]` bool.

    Returns:
        A tuple `(indices, count)`: `[k]` int32, past the end for marks that are not
        there, and how many are there, `[]` int32.
    """
    # marks = [0, 1, 0, 1, 1], k = 2 -> running = [0, 1, 1, 2, 3],
    # rank = [-1, 0, -1, 1, -1] -> indices = [1, 3], count = 2
    bits = tf.cast(marks, tf.int32)
    running = tf.cumsum(bits)
    rank = tf.where(marks & (running <= k), running - 1, -1)
    # No two marks have one rank: the minimum is that of one number.
    indices = tf.math.unsorted_segment_min(tf.range(num_rows(marks)), rank, k)
    return indices, tf.minimum(tf.reduce_sum(bits), k)


def searchsorted_right(ascending: tf.Tensor, numbers: tf.Tensor) -> tf.Tensor:
    """Finds the first position whose element exceeds each number, by binary search.

    `tf.searchsorted` compiles to a comparison of every number with every element.

    Args:
        ascending: `[n]`, in ascending order.
        numbers: Any shape, of the same dtype.

    Returns:
        int32 positions shaped like `numbers`; `n` where no element exceeds it.
    """
    n = num_rows(ascending)
    num_bits = n.bit_length() if isinstance(n, int) else 31
    low = tf.zeros(tf.shape(numbers), tf.int32)
    # ascending = [1, 5, 7, 7], number = 5: n = 4, so bits 2, 1, 0 are tried.
    # bit 2: element 3 is 7 > 5, low = 0; bit 1: element 1 is 5 <= 5, low = 2;
    # bit 0: element 2 is 7 > 5, low = 2.
    for bit in reversed(range(num_bits)):
        middle = low + ((1 << bit) - 1)
        element = tf.gather(ascending, tf.minimum(middle, n - 1))
        low = tf.where((middle < n) & (element <= numbers), middle + 1, low)
    return low
