"""First occurrences in a list of ids, with static shapes and without a sort."""

import tensorflow as tf

# A table of this many int32 is cheaper to fill than a second round of hashing.
_DIRECT_TABLE = 1 << 18
# A hash table has at least this many slots an id.
_SLOTS_PER_ID = 8
# Odd 64-bit constants: the golden ratio's fraction, and a step that makes each
# round's multiplier another odd number.
_MULTIPLIER = 0x9E3779B97F4A7C15
_MULTIPLIER_STEP = 0xD1B54A32D192ED02


def first_occurrences(ids, valid, id_range):
    """Marks each id that did not stand further to the front.

    All ids of one value fall into the same slot of a table, which keeps the smallest
    index; whoever finds its own index there is the first of its value. Where the
    slots are hashes, an index found there may be that of another value: such ids are
    hashed again, differently, until none is left.

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
    return _by_hashing(ids, valid, index)


def _by_hashing(ids, valid, index):
    n = ids.shape[0]
    bits = (_SLOTS_PER_ID * n - 1).bit_length()
    unsigned = tf.cast(ids, tf.uint64)

    def one_round(multiplier, undecided, first):
        slots = tf.cast(
            tf.bitwise.right_shift(
                unsigned * multiplier, tf.constant(64 - bits, tf.uint64)
            ),
            tf.int32,
        )
        front = tf.math.unsorted_segment_min(
            index, tf.where(undecided, slots, -1), 1 << bits
        )
        winner = tf.gather(front, slots)
        same = tf.equal(tf.gather(ids, tf.minimum(winner, n - 1)), ids)
        settled = undecided & same
        return (
            multiplier + tf.constant(_MULTIPLIER_STEP, tf.uint64),
            undecided & ~settled,
            first | (settled & tf.equal(winner, index)),
        )

    undecided = tf.ones([n], tf.bool) if valid is None else valid
    state = (tf.constant(_MULTIPLIER, tf.uint64), undecided, tf.zeros([n], tf.bool))
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
