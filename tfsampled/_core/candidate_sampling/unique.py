"""Tries -> the sampled classes and the number of tries they took."""

import tensorflow as tf

from tfsampled._core.static_ops import first_occurrences, places_of


def select(draw, source, num_sampled, unique, range_max, tries):
    """Draws until `num_sampled` classes are found.

    One batch of tries nearly always suffices; a loop draws more where it does not.

    Args:
      draw: A distribution of `draws`.
      source: A `philox.Stream`.
      num_sampled: Python int.
      unique: Python bool: keep each class once.
      range_max: Python int.
      tries: Python int, a multiple of four: how many tries to make at once.

    Returns:
      The classes, `[num_sampled]` int64, and how many tries TensorFlow's loop would
      have counted, `[]` int32; None where every try is kept.
    """
    first = draw(source, 0, tries)
    if not unique and first.valid is None:
        return first.ids[:num_sampled], None

    def keep(ids, valid):
        marks = first_occurrences(ids, valid, range_max) if unique else valid
        places, found = places_of(marks, num_sampled)
        return tf.gather(ids, tf.minimum(places, ids.shape[0] - 1)), found, places[-1]

    def count(valid, length, last):
        """Tries up to place `last`, or all of them where it is past the end."""
        if valid is None:
            return tf.minimum(last, length - 1) + 1
        upto = tf.range(length) <= last
        return tf.reduce_sum(tf.cast(valid & upto, tf.int32))

    ids, found, last = keep(first.ids, first.valid)
    state = (
        ids,
        found,
        count(first.valid, first.ids.shape[0], last),
        tf.convert_to_tensor(first.next_word, tf.int64),
    )

    def draw_more(kept, found, num_tries, next_word):
        more = draw(source, next_word, tries)
        length = more.ids.shape[0]
        valid = tf.ones([length], tf.bool) if more.valid is None else more.valid
        ids, now, last = keep(
            tf.concat([kept, more.ids], axis=0),
            tf.concat([tf.range(num_sampled) < found, valid], axis=0),
        )
        num_tries += count(more.valid, length, last - num_sampled)
        return ids, now, num_tries, tf.convert_to_tensor(more.next_word, tf.int64)

    ids, _, num_tries, _ = tf.while_loop(
        lambda _, found, __, ___: found < num_sampled, draw_more, state
    )
    return ids, num_tries if unique else None
