"""First occurrences in a list of ids, with static shapes and without a sort."""

import tensorflow as tf

# A table of this many int32 is cheaper to fill than a second round of hashing.
_DIRECT_TABLE = 1 << 18
# A hash table has this many slots an id.
_SLOTS_PER_ID = 8
# Odd 64-bit constants: the golden ratio's fraction, and a step that makes each
# round's multiplier another odd number.
_MULTIPLIER = 0x9E3779B97F4A7C15
_MULTIPLIER_STEP = 0xD1B54A32D192ED02


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
