"""Accidental hits: sampled classes that are a label of the example beside them."""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

from tfsampled._core.candidate_sampling.accidental_hits import compute_accidental_hits
from tfsampled._core.xla import tracing_for_xla


class Hits(NamedTuple):
    """Which sampled classes are left out of which examples, in the order of examples.

    Attributes:
      rows: `int64` `[num_hits]`, ascending.
      places: `int64` `[num_hits]`, positions among the sampled classes.
      weights: `float32` `[num_hits]`, minus infinity; 0 for one that is none.
      each: how many an example has, where that does not depend on data.
    """

    rows: tf.Tensor
    places: tf.Tensor
    weights: tf.Tensor
    each: int | None

    def of(self, first: int | tf.Tensor, size: int | tf.Tensor) -> Hits:
        """Those of `size` examples from `first` on, which is row 0 of the result."""
        first = tf.cast(first, tf.int64)
        if self.each is None:
            ends = tf.stack([first, first + tf.cast(size, tf.int64)])
            low, high = tf.unstack(tf.searchsorted(self.rows, ends))
            count = high - low
        else:
            low, count = tf.cast(first, tf.int32) * self.each, size * self.each
        rows, places, weights = (tf.slice(x, [low], [count]) for x in self[:3])
        return Hits(rows - first, places, weights, self.each)

    def mask(self, logits: tf.Tensor) -> tf.Tensor:
        """Sampled logits `[batch, num_sampled]`, minus infinity at the hits."""
        # Adding, not writing: where it is minus infinity there is no gradient.
        indices = tf.stack([self.rows, self.places], axis=1)
        updates = tf.cast(self.weights, logits.dtype)
        if tracing_for_xla():
            return tf.tensor_scatter_nd_add(logits, indices, updates)
        # This one adds in place where nobody else has the logits.
        return tf.raw_ops.ScatterNdNonAliasingAdd(
            input=logits, indices=indices, updates=updates
        )


def find(labels: tf.Tensor, sampled: tf.Tensor) -> Hits:
    """The hits of labels `[batch, num_true]` among sampled classes `[num_sampled]`.

    Of a class that was sampled more than once TensorFlow leaves out the last copy only,
    and so does this.
    """
    rows, places, weights = compute_accidental_hits(labels, sampled, labels.shape[1])
    # Code made for XLA has a weight of 0 and a place past the end where there is no
    # hit, and may run off XLA after all.
    places = tf.minimum(places, tf.size(sampled, tf.int64) - 1)
    weights = tf.where(weights < 0, -float("inf"), 0.0)
    columns = tf.compat.dimension_value(labels.shape[1])
    each = columns if tracing_for_xla() else None
    return Hits(tf.cast(rows, tf.int64), places, weights, each)
