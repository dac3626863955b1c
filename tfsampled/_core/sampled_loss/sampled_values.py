"""Candidates that the caller drew: `sampled_values`, converted and checked."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from tfsampled._core.candidate_sampling.samplers import Candidates
from tfsampled._core.convert import as_tensor
from tfsampled._core.loss_arguments import Arguments


def convert(
    sampled_values: Any, arguments: Arguments, num_sampled: int | None
) -> Candidates:
    """The three tensors of a candidate sampler as `Candidates`.

    Args:
      sampled_values: `(sampled_candidates, true_expected_count,
        sampled_expected_count)`; counts of any shape that broadcasts to
        `[batch, num_true]` and `[batch, num_sampled]`.
      num_sampled: how many candidates there must be, `None` for any number.

    Raises:
      ValueError: not three tensors, or of shapes that do not fit.
    """
    try:
        ids, true_count, sampled_count = sampled_values
    except (TypeError, ValueError):
        raise ValueError(
            "sampled_values must be the three tensors (sampled_candidates, "
            "true_expected_count, sampled_expected_count) that a candidate sampler "
            f"returns; got {sampled_values!r}."
        ) from None
    ids = tf.cast(as_tensor(ids, tf.int64), tf.int64)
    if ids.shape.rank not in (1, None):
        raise ValueError(
            "sampled_values: sampled_candidates must be [num_sampled], the same for "
            f"every example; got shape {ids.shape}."
        )
    if num_sampled is not None and not ids.shape.is_compatible_with([num_sampled]):
        raise ValueError(
            f"sampled_values hold {ids.shape[0]} candidates, but num_sampled is "
            f"{num_sampled}: they must agree."
        )
    ids = tf.ensure_shape(ids, [None])
    batch = arguments.static_batch
    return Candidates(
        tf.stop_gradient(ids),
        _count(true_count, "true_expected_count", [batch, arguments.num_true]),
        _count(sampled_count, "sampled_expected_count", [batch, *ids.shape.dims]),
    )


def _count(count: Any, name: str, shape: list[Any]) -> tf.Tensor:
    count = tf.stop_gradient(as_tensor(count, tf.float32))
    target = tf.TensorShape(shape)
    try:
        fits = tf.broadcast_static_shape(count.shape, target).is_compatible_with(target)
    except ValueError:
        fits = False
    if not fits:
        raise ValueError(
            f"sampled_values: {name} of shape {count.shape} does not broadcast to "
            f"{target}, a count for each example and class."
        )
    return count
