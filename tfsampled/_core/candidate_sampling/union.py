"""Draws from several sources at once: each class once, under one expected count."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from tfsampled._core.candidate_sampling.samplers import Draw
from tfsampled._core.static_ops import index_of_first, searchsorted_right
from tfsampled._core.xla import tracing_for_xla


def distinct(
    ids: tf.Tensor, is_drawn: tf.Tensor | None
) -> tuple[tf.Tensor, tf.Tensor | None]:
    """Keeps one copy of each class.

    Without XLA, all other ids are removed; if none would be left, one is kept and
    marked as not drawn. Under XLA, whose shapes are static, the other ids come first
    and are marked as not drawn. They are set to the last id that is kept, so that no
    other row is read.

    Args:
        ids: int64 `[n]`.
        is_drawn: bool `[n]`, False for ids to leave out; None for all.

    Returns:
        Ids and whether each is drawn, as in `Draw`.
    """
    if tracing_for_xla():
        # ids = [3, 5, 3, 1], is_drawn = [1, 1, 1, 0] -> first = [0, 1, 0, -1],
        # is_kept = [1, 1, 0, 0] -> [5, 5, 3, 5], [0, 0, 1, 1]
        is_kept = tf.equal(index_of_first(ids, is_drawn), tf.range(tf.size(ids)))
        order = tf.argsort(tf.cast(is_kept, tf.int32), stable=True)
        ids, is_kept = tf.gather(ids, order), tf.gather(is_kept, order)
        return tf.where(is_kept, ids, tf.maximum(ids[-1:], 0)), is_kept
    if is_drawn is None:
        return tf.unique(ids).y, None
    ids = tf.unique(tf.boolean_mask(ids, is_drawn)).y
    is_empty = tf.equal(tf.size(ids), 0)
    ids = tf.pad(ids, [[0, tf.cast(is_empty, tf.int32)]])
    return ids, tf.fill(tf.shape(ids), ~is_empty)


def union(draws: Sequence[Draw]) -> Draw:
    """Returns the classes of independent draws.

    The expected count of a class is the probability that at least one of the draws has
    it, `1 - prod_i (1 - expected_count_i)`.
    """
    ids = tf.concat([drawn.ids for drawn in draws], axis=0)
    is_drawn = None
    if any(drawn.is_drawn is not None for drawn in draws):
        is_drawn = tf.concat(
            [
                tf.ones_like(drawn.ids, tf.bool)
                if drawn.is_drawn is None
                else drawn.is_drawn
                for drawn in draws
            ],
            axis=0,
        )

    def expected_count(classes: tf.Tensor) -> tf.Tensor:
        # A count may exceed 1 by rounding, or as TensorFlow computes it.
        counts = [
            tf.math.log1p(-tf.minimum(drawn.expected_count(classes), 1.0))
            for drawn in draws
        ]
        return -tf.math.expm1(tf.add_n(counts))

    ids, is_drawn = distinct(ids, is_drawn)
    return Draw(ids, expected_count, is_drawn)


def certain(ids: tf.Tensor, is_drawn: tf.Tensor | None) -> Draw:
    """Returns a draw of given classes, int64 `[n]`: their expected count is 1."""
    # ids = [7, 2, 4], is_drawn = [1, 1, 0], classes = [2, 4]
    # -> ascending = [-1, -1, 2, 7], position = [2, 2] -> [1, 0]
    members = ids if is_drawn is None else tf.where(is_drawn, ids, -1)
    ascending = tf.sort(tf.concat([[-1], members], axis=0))

    def expected_count(classes: tf.Tensor) -> tf.Tensor:
        position = tf.maximum(searchsorted_right(ascending, classes) - 1, 0)
        return tf.cast(tf.equal(tf.gather(ascending, position), classes), tf.float32)

    return Draw(ids, expected_count, is_drawn)
