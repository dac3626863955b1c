"""Accidental hits: sampled classes that are a label of the example they are scored for.

Without XLA, TensorFlow's own operation finds them. XLA has no such operation and only
static shapes: there every label has an entry, which has no effect if its class was not
sampled.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from tfsampled._core import validation
from tfsampled._core.static_ops import searchsorted_right
from tfsampled._core.xla import on_host, tracing_for_xla


class AccidentalHits(NamedTuple):
    """Logits to mask, in the order of their rows.

    Attributes:
        indices: int64 `[num_hits, 2]`: an example, ascending, and a position among the
            sampled classes.
        is_hit: bool `[num_hits]`, False for an entry without effect; None without XLA,
            where all are hits.
        hits_per_row: The number of entries of each example; None without XLA, where it
            depends on data.
        row_splits: int32 `[batch + 1]`, the entries before each example; None until
            `with_row_splits`, and under XLA.
    """

    indices: tf.Tensor
    is_hit: tf.Tensor | None
    hits_per_row: Any
    row_splits: tf.Tensor | None = None

    @on_host()
    def with_row_splits(self, batch: int | tf.Tensor) -> AccidentalHits:
        """Returns hits that can be sliced; they know where each example's begin."""
        if self.is_hit is not None:
            return self
        # rows = [0, 0, 2], batch 3 -> examples = [0, 1, 2, 3], splits = [0, 2, 2, 3]
        examples = tf.range(batch + 1, dtype=tf.int64)
        splits = tf.raw_ops.LowerBound(  # tf.searchsorted is 20 operations more
            sorted_inputs=self.indices[tf.newaxis, :, 0],
            values=tf.expand_dims(examples, 0),
        )
        return self._replace(row_splits=tf.squeeze(splits, 0))

    @on_host()
    def split(self, sizes: np.ndarray | tf.Tensor) -> list[AccidentalHits]:
        """Cuts the hits of the first examples into those of chunks of some sizes."""
        # rows = [0, 0, 2], row_splits = [0, 2, 2, 3], sizes = [1, 2]
        # ends = [1, 3] -> counts = [2, 1]; row 2 becomes row 1 of the second chunk
        # Under XLA, with 2 hits per row and sizes = [1, 2] -> counts = [2, 4]
        ends = tf.cumsum(sizes)
        if self.row_splits is None:
            counts = sizes * self.hits_per_row
            total = tf.reduce_sum(counts)
            masks = tf.split(tf.slice(self.is_hit, [0], [total]), counts)
        else:
            last = tf.gather(self.row_splits, ends)
            counts, total = last - tf.pad(last[:-1], [[1, 0]]), last[-1]
            masks = [None] * sizes.shape[0]
        starts = tf.cast(ends - sizes, tf.int64)
        first_rows = tf.unstack(tf.pad(starts[:, tf.newaxis], [[0, 0], [0, 1]]))
        indices = tf.split(tf.slice(self.indices, [0, 0], [total, 2]), counts)
        parts = zip(indices, first_rows, masks, strict=True)
        return [
            AccidentalHits(indices - first_row, is_hit, self.hits_per_row)
            for indices, first_row, is_hit in parts
        ]

    def slice(self, start: int | tf.Tensor, size: int | tf.Tensor) -> AccidentalHits:
        """Returns the hits of `size` examples; example `start` becomes row 0."""
        first = start if isinstance(start, int) else tf.cast(start, tf.int64)
        first_row = tf.convert_to_tensor([first, 0], tf.int64)
        if self.row_splits is not None:
            low, high = self.row_splits[start], self.row_splits[start + size]
            return AccidentalHits(self.indices[low:high] - first_row, None, None)
        low, count = start * self.hits_per_row, size * self.hits_per_row
        indices = tf.slice(self.indices, [low, 0], [count, 2]) - first_row
        is_hit = tf.slice(self.is_hit, [low], [count])
        return AccidentalHits(indices, is_hit, self.hits_per_row)

    def mask(self, logits: tf.Tensor) -> tf.Tensor:
        """Adds minus infinity to the hits among logits `[batch, num_sampled]`."""
        minus_infinity = tf.constant(-float("inf"), logits.dtype)
        if self.is_hit is None:
            updates = tf.fill(tf.shape(self.indices)[:1], minus_infinity)
        else:
            updates = tf.where(self.is_hit, minus_infinity, 0)
        if tracing_for_xla():
            return tf.tensor_scatter_nd_add(logits, self.indices, updates)
        # Adds in place if nothing else reads the logits.
        return tf.raw_ops.ScatterNdNonAliasingAdd(
            input=logits, indices=self.indices, updates=updates
        )


@on_host()
def find_accidental_hits(labels: tf.Tensor, sampled: tf.Tensor) -> AccidentalHits:
    """Finds the hits of labels `[batch, num_true]` among sampled classes.

    Args:
        sampled: int64 `[num_sampled]`. If it repeats a class, the last copy is the hit,
            as in TensorFlow.
    """
    num_true = labels.shape[1]
    if tracing_for_xla():
        rows, columns, is_hit = _static_hits(labels, sampled)
        return AccidentalHits(tf.stack([rows, columns], axis=1), is_hit, num_true)
    rows, columns, _ = tf.raw_ops.ComputeAccidentalHits(
        true_classes=labels, sampled_candidates=sampled, num_true=num_true
    )
    indices = tf.stack([tf.cast(rows, tf.int64), columns], axis=1)
    return AccidentalHits(indices, None, None)


@tf.autograph.experimental.do_not_convert
def compute_accidental_hits(
    true_classes, sampled_candidates, num_true, seed=None, name=None
):
    """Finds the sampled classes that are a label of the example they are scored for.

    Hit `h` is at row `indices[h]` and column `ids[h]` of the sampled logits; adding
    `weights[h]` to that logit removes it. If `sampled_candidates` repeats a class, the
    last copy is reported.

    Under XLA the number of hits cannot depend on data. There each of the
    `batch * num_true` labels has an entry. If the label was not sampled, its weight is
    0 and its id is `num_sampled`, one past the end, where XLA drops what is written: a
    scatter followed by an addition to the logits gives the same result.

    Args:
        true_classes: int64 `[batch, num_true]`.
        sampled_candidates: int64 `[num_sampled]`.
        num_true: An `int`, the number of labels of an example.
        seed: An `int` without effect, since nothing is drawn. As in TensorFlow, a call
            without it advances the seeds of the operations that follow in a graph.
        name: A name for the operation.

    Returns:
        indices: int32 `[num_hits]`, rows of `true_classes`.
        ids: int64 `[num_hits]`, positions in `sampled_candidates`.
        weights: float32 `[num_hits]`, the lowest float32.

    Raises:
        ValueError: If `true_classes` does not have `num_true` columns, or
            `sampled_candidates` is not a vector.

    Example:
        >>> import tensorflow as tf
        >>> import tfsampled
        >>> hits = tfsampled.nn.compute_accidental_hits(
        ...     true_classes=[[7], [2], [5]], sampled_candidates=[5, 1, 7], num_true=1)
        >>> hits[0].numpy().tolist(), hits[1].numpy().tolist()
        ([0, 2], [2, 0])

    Reference:
        Candidate Sampling Algorithms Reference,
        https://www.tensorflow.org/extras/candidate_sampling.pdf
    """
    num_true = validation.positive_int(num_true, "num_true")
    true_classes = validation.as_class_ids(true_classes, "true_classes")
    sampled = validation.as_class_ids(sampled_candidates, "sampled_candidates")
    if not true_classes.shape.is_compatible_with([None, num_true]):
        raise ValueError(
            "`true_classes` must have the shape [batch, num_true]. Received: "
            f"true_classes.shape={true_classes.shape}, num_true={num_true}."
        )
    if not sampled.shape.is_compatible_with([None]):
        raise ValueError(
            "`sampled_candidates` must have the shape [num_sampled]. Received: "
            f"sampled_candidates.shape={sampled.shape}."
        )
    seed, seed2 = tf.compat.v1.random.get_seed(seed)
    if tracing_for_xla():
        with tf.name_scope(name or "ComputeAccidentalHits"):
            rows, columns, is_hit = _static_hits(true_classes, sampled)
            past_the_end = tf.size(sampled, tf.int64)
            return (
                tf.cast(rows, tf.int32),
                tf.where(is_hit, columns, past_the_end),
                tf.where(is_hit, tf.float32.min, 0.0),
            )
    return tf.raw_ops.ComputeAccidentalHits(
        true_classes=true_classes,
        sampled_candidates=sampled,
        num_true=num_true,
        seed=seed or 0,
        seed2=seed2 or 0,
        name=name,
    )


def _static_hits(
    labels: tf.Tensor, sampled: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Returns `(rows, columns, is_hit)`, `[batch * num_true]` each.

    Sorts the sampled classes once and finds every label by binary search, so that no
    tensor of `batch * num_true * num_sampled` elements is made.
    """
    # labels = [[7], [2]], sampled = [5, 7, 1, 7]
    # order = [2, 0, 1, 3], ascending = [1, 5, 7, 7]
    # position = [3, 0]: the last element <= label; -1 if there is none
    # is_hit = [True, False], columns = [3, 2]
    flat = tf.reshape(labels, [-1])
    batch, num_true = tf.shape(labels)[0], labels.shape[1]
    rows = tf.repeat(tf.range(tf.cast(batch, tf.int64)), num_true)
    if sampled.shape[0] == 0:  # XLA gathers from no empty tensor
        return rows, tf.zeros_like(rows), tf.zeros_like(rows, tf.bool)
    order = tf.argsort(sampled, stable=True)
    ascending = tf.gather(sampled, order)
    position = searchsorted_right(ascending, flat) - 1
    nearest = tf.maximum(position, 0)
    is_hit = (position >= 0) & tf.equal(tf.gather(ascending, nearest), flat)
    columns = tf.cast(tf.gather(order, nearest), tf.int64)
    return rows, columns, is_hit
