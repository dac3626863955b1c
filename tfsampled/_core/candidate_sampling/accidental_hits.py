"""`compute_accidental_hits`: TensorFlow's op off XLA, static shapes under it."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from tfsampled._core import validation
from tfsampled._core.candidate_sampling import static_hits
from tfsampled._core.convert import as_class_ids
from tfsampled._core.xla import tracing_for_xla


@tf.autograph.experimental.do_not_convert
def compute_accidental_hits(
    true_classes, sampled_candidates, num_true, seed=None, name=None
):
    """Finds the sampled classes that are a label of the example they stand beside.

    As triples: row `indices[h]` has a label that stands at place `ids[h]` of the
    sampled classes, and `weights[h]`, added to that logit, removes it. Of a class that
    was sampled more than once the last copy is reported.

    Under XLA the number of hits cannot depend on data. There each of the `batch *
    num_true` labels has a triple; that of a label that was not sampled has weight 0
    and the id `num_sampled`, one past the end. XLA leaves out writes past the end, so
    what is done with the triples - `sparse_to_dense` or a scatter, then an addition
    to the logits - has the same result. A function traced for XLA keeps them when it
    runs without.

    Args:
      true_classes: int64 `[batch, num_true]`.
      sampled_candidates: int64 `[num_sampled]`.
      num_true: int, the labels of an example.
      seed: int, without effect: nothing is drawn. As in TensorFlow, a call without it
        moves on the seeds of the operations that follow in a graph.
      name: A name for the operation.

    Returns:
      indices: int32 `[num_hits]`, rows of `true_classes`.
      ids: int64 `[num_hits]`, positions in `sampled_candidates`.
      weights: float32 `[num_hits]`, the lowest float32.

    Raises:
      ValueError: `true_classes` does not have `num_true` columns, or
        `sampled_candidates` is not a vector.

    Example:
      >>> import tensorflow as tf
      >>> import tfsampled
      >>> hits = tfsampled.nn.compute_accidental_hits(
      ...     true_classes=[[7], [2], [5]], sampled_candidates=[5, 1, 7], num_true=1)
      >>> hits[0].numpy().tolist(), hits[1].numpy().tolist()
      ([0, 2], [2, 0])

    Reference:
      `Candidate Sampling Algorithms
      <https://www.tensorflow.org/extras/candidate_sampling.pdf>`_
    """
    num_true = validation.positive_int(num_true, "num_true")
    true_classes = as_class_ids(true_classes, "true_classes")
    sampled = as_class_ids(sampled_candidates, "sampled_candidates")
    if not true_classes.shape.is_compatible_with([None, num_true]):
        raise ValueError(
            f"true_classes has shape {true_classes.shape}; it must be "
            f"[batch, num_true] with num_true = {num_true}."
        )
    if not sampled.shape.is_compatible_with([None]):
        raise ValueError(
            f"sampled_candidates has shape {sampled.shape}; it must be "
            "[num_sampled], as a candidate sampler returns it."
        )
    seeds = tf.compat.v1.random.get_seed(seed)
    if tracing_for_xla():
        with tf.name_scope(name or "ComputeAccidentalHits"):
            return _static(true_classes, sampled)
    seed1, seed2 = (0 if part is None else part for part in seeds)
    return tf.raw_ops.ComputeAccidentalHits(
        true_classes=true_classes,
        sampled_candidates=sampled,
        num_true=num_true,
        seed=seed1,
        seed2=seed2,
        name=name,
    )


def _static(true_classes: tf.Tensor, sampled: tf.Tensor) -> tuple[Any, Any, Any]:
    place = static_hits.positions(true_classes, sampled)
    rows = tf.broadcast_to(tf.range(tf.shape(place)[0])[:, tf.newaxis], tf.shape(place))
    hit = place >= 0
    return (
        tf.reshape(rows, [-1]),
        tf.reshape(
            tf.where(hit, tf.cast(place, tf.int64), tf.size(sampled, tf.int64)), [-1]
        ),
        tf.reshape(tf.where(hit, tf.float32.min, 0.0), [-1]),
    )
