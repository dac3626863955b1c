"""What the graph knows before it runs; first occurrences of ids, with static shapes."""

from __future__ import annotations

import tensorflow as tf

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


def num_rows(x: tf.Tensor) -> int | tf.Tensor:
    """Returns the first dimension: an int where the graph knows it, else int32 `[]`."""
    static = tf.compat.dimension_value(x.shape[0])
    return tf.shape(x)[0] if static is None else static


def minimum(a: int | tf.Tensor, b: int | tf.Tensor) -> int | tf.Tensor:
    """Returns the lesser of two numbers: an int if both are ints."""
    both_ints = isinstance(a, int) and isinstance(b, int)
    return min(a, b) if both_ints else tf.minimum(a, b)


def maximum(a: int | tf.Tensor, b: int | tf.Tensor) -> int | tf.Tensor:
    """Returns the greater of two numbers: an int if both are ints."""
    both_ints = isinstance(a, int) and isinstance(b, int)
    return max(a, b) if both_ints else tf.maximum(a, b)


def first_occurrences(ids, valid, id_range):
    """Marks each id that did not stand further to the front.

    In a table with a slot for each possible id, or a hash table where there are many,
    a slot keeps the smallest index: who finds its own there is the first of its value.

    Args:
      ids: `[n]` int64 in `[0, id_range)`.
      valid: `[n]` bool: the ids that count, or None for all.
      id_range: Python int.

    Returns:
      `[n]` bool.
    """
    n = ids.shape[0]
    index = tf.range(n)
    if id_range <= max(_DIRECT_TABLE, _SLOTS_PER_ID * n):
        slots = tf.cast(ids, tf.int32)
        if valid is not None:
            slots = tf.where(valid, slots, -1)
        front = tf.math.unsorted_segment_min(index, slots, id_range)
        first = tf.equal(tf.gather(front, tf.maximum(slots, 0)), index)
        return first if valid is None else first & valid
    return tf.equal(index_of_first(ids, valid), index)


def index_of_first(ids, valid=None):
    """For each id the index of the first that equals it.

    Equal ids fall into the same slot of a hash table, which keeps the smallest index.
    Where that index is of another id, the id is hashed again, differently, until
    none is left: the smallest index of a slot always settles.

    Args:
      ids: `[n]` of any integer dtype.
      valid: `[n]` bool: the ids that count, or None for all.

    Returns:
      `[n]` int32, -1 for ids that do not count.
    """
    unsigned = tf.cast(ids, tf.uint64)
    half = tf.constant(32, tf.uint64)

    def one_round(multiplier, undecided, first):
        # Taken from the shape here: XLA wants the size of the table as a constant.
        n = tf.shape(ids)[0]
        size = _SLOTS_PER_ID * n
        high = tf.bitwise.right_shift(unsigned * multiplier, half)
        slots = tf.bitwise.right_shift(high * tf.cast(size, tf.uint64), half)
        slots = tf.where(undecided, tf.cast(slots, tf.int32), -1)
        front = tf.math.unsorted_segment_min(tf.range(n), slots, size)
        winner = tf.gather(front, tf.maximum(slots, 0))
        same = tf.equal(tf.gather(ids, tf.minimum(winner, n - 1)), ids)
        settled = undecided & same
        return (
            multiplier + tf.constant(_MULTIPLIER_STEP, tf.uint64),
            undecided & ~settled,
            tf.where(settled, winner, first),
        )

    state = (
        tf.constant(_MULTIPLIER, tf.uint64),
        tf.ones_like(ids, tf.bool) if valid is None else valid,
        -tf.ones_like(ids, tf.int32),
    )
    return tf.while_loop(
        lambda _, undecided, __: tf.reduce_any(undecided), one_round, state
    )[2]


def places_of(marks, count):
    """Where the first `count` marks stand.

    Args:
      marks: `[n]` bool.
      count: Python int.

    Returns:
      `[count]` int32, past the end for those that are not there, and how many of them
      are there, `[]` int32.
    """
    n = marks.shape[0]
    running = tf.cumsum(tf.cast(marks, tf.int32))
    rank = tf.where(marks & (running <= count), running - 1, -1)
    # No two marks have one rank: the minimum is that of one number.
    places = tf.math.unsorted_segment_min(tf.range(n), rank, count)
    return places, tf.minimum(running[-1], count)


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
