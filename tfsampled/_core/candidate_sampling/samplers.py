"""Candidate samplers: labels to sampled classes and their expected counts.

`sample` serves the mirrors of `tf.random`: TensorFlow's op without XLA, and under XLA,
which has no such op, tensor code that draws the same ids from the same seeds. `draw` is
the tensor code alone, for callers that own the sampler's state.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from tfsampled._core import replicas, validation
from tfsampled._core.candidate_sampling import (
    alias_method,
    distributions,
    philox,
    state,
)
from tfsampled._core.candidate_sampling.distributions import Distribution
from tfsampled._core.candidate_sampling.expected_count import expected_count
from tfsampled._core.candidate_sampling.unique import sample_static, sample_unique
from tfsampled._core.static_ops import num_rows
from tfsampled._core.xla import tracing_for_xla

_MAX_CLASSES = {"LearnedUnigram": 2**31 - 2}  # it keeps an int32 sum of weights


class Candidates(NamedTuple):
    """What a sampler returns.

    Attributes:
        sampled_candidates: `[num_sampled]` int64 class ids.
        true_expected_count: `[batch, num_true]` float32.
        sampled_expected_count: `[num_sampled]` float32.
    """

    sampled_candidates: tf.Tensor
    true_expected_count: tf.Tensor
    sampled_expected_count: tf.Tensor


class Draw(NamedTuple):
    """Classes that were drawn, and how likely each class was to be among them.

    Attributes:
        ids: `[num_sampled]` int64 class ids.
        expected_count: Maps class ids of any shape to their expected counts, float32.
        is_drawn: bool `[num_sampled]`, False where `ids` holds an arbitrary class that
            was not drawn; None if all were drawn.
    """

    ids: tf.Tensor
    expected_count: Callable[[tf.Tensor], tf.Tensor]
    is_drawn: tf.Tensor | None = None


@tf.autograph.experimental.do_not_convert
def sample(
    sampler: str,
    true_classes: Any,
    num_true: Any,
    num_sampled: Any,
    unique: bool,
    range_max: Any,
    seed: int | None,
    name: str | None = None,
    **options: Any,
) -> Candidates:
    """Samples candidates as TensorFlow's op does.

    Args:
        sampler: "Uniform", "LogUniform", "LearnedUnigram", "FixedUnigram" or "All".
        true_classes: Integers `[batch, num_true]`, the labels.
        seed: The seed of the operation. A refused call takes no seed: that would change
            the seeds of the operations that follow.
        **options: Of "FixedUnigram"; see `tfsampled.random`.

    Raises:
        ValueError: If an argument is invalid.
        tf.errors.InvalidArgumentError: If a label is out of range. Under XLA its
            expected count is NaN instead.
    """
    num_true = validation.positive_int(num_true, "num_true")
    num_sampled = validation.positive_int(num_sampled, "num_sampled")
    range_max = validation.positive_int(range_max, "range_max")
    true_classes = validation.as_class_ids(true_classes, "true_classes")
    if unique and num_sampled > range_max:
        raise ValueError(
            "`num_sampled` must be at most `range_max` if `unique` is True. "
            f"Received: num_sampled={num_sampled}, range_max={range_max}."
        )
    if range_max > (limit := _MAX_CLASSES.get(sampler, 2**63 - 1)):
        raise ValueError(
            f"`range_max` must be at most {limit}. Received: range_max={range_max}."
        )
    if not true_classes.shape.is_compatible_with([None, num_true]):
        raise ValueError(
            "`true_classes` must have shape (batch, num_true). "
            f"Received: shape={true_classes.shape}, num_true={num_true}."
        )
    weights: Any = None
    if sampler == "FixedUnigram":
        weights = _fixed_weights(range_max, num_sampled if unique else 1, **options)
        options["unigrams"] = [float(weight) for weight in options["unigrams"]]
    first, second = tf.compat.v1.random.get_seed(seed)
    seeds = first or 0, second or 0
    if not tracing_for_xla():
        if sampler != "All":
            options["range_max"] = range_max
        kernel = getattr(tf.raw_ops, f"{sampler}CandidateSampler")
        return Candidates(
            *kernel(
                true_classes=true_classes,
                num_true=num_true,
                num_sampled=num_sampled,
                unique=bool(unique),
                seed=seeds[0],
                seed2=seeds[1],
                name=name,
                **options,
            )
        )
    with tf.name_scope(name or f"{sampler}CandidateSampler"):
        if sampler == "All":
            ones = tf.ones(tf.shape(true_classes), tf.float32)
            return Candidates(
                tf.range(num_sampled, dtype=tf.int64),
                validation.nan_if_out_of_range(ones, true_classes, num_sampled),
                tf.ones([num_sampled], tf.float32),
            )
        step = philox.blocks_per_call(num_sampled)
        position = state.traced_variable(0, "sampler_position")
        stream = next_stream(position, state.random_if_0(seeds), step)
        if sampler == "LearnedUnigram":
            ones = np.ones([range_max], np.int64)
            counts = state.traced_variable(ones, "class_weights")
            drawn = draw_and_learn(
                counts, true_classes, None, num_sampled, stream, unique
            )
            return with_counts(drawn, true_classes)
        if sampler == "Uniform":
            distribution = distributions.uniform(range_max)
        elif sampler == "LogUniform":
            distribution = distributions.log_uniform(range_max)
        else:
            table = alias_method.alias_table(weights)
            distribution = distributions.fixed_unigram(table)
        drawn = draw(distribution, range_max, num_sampled, stream, unique)
        return with_counts(drawn, true_classes)


def _fixed_weights(
    range_max: int, num_distinct: int, *, vocab_file: str, unigrams: Any, **options: Any
) -> Any:
    """Reads and validates the weights of a fixed unigram sampler, `[range_max]`."""
    unigrams = alias_method.read_weights(vocab_file, unigrams)
    weights = alias_method.class_weights(unigrams, **options)
    if len(weights) != range_max:
        raise ValueError(
            "`range_max` must be the number of weights, reserved ids included. "
            f"Received: range_max={range_max}, {len(weights)} weights."
        )
    name = "vocab_file" if vocab_file else "unigrams"
    max_tries = alias_method.MAX_KERNEL_TRIES
    alias_method.validate_weights(weights, num_distinct, max_tries, name)
    return weights


def next_stream(
    position: tf.Variable, seeds: tuple[int, int], step: int, per_replica: bool = False
) -> philox.Stream:
    """Counts a call and returns the random words that it reads.

    Args:
        position: `[]` int64, the number of calls so far.
        seeds: The pair of `tf.compat.v1.random.get_seed`.
        step: The blocks between two calls; see `philox`.
        per_replica: Whether the replicas make one call each, in their order.
    """
    # 2 replicas, position 6: replica 1 makes call 7, and the position becomes 8
    num_calls, own_call = 1, 0
    if per_replica:
        num_calls, own_call = replicas.num_replicas(), replicas.replica_id()
    calls = position.assign_add(num_calls, read_value=True)
    return philox.stream(seeds, calls - (num_calls - own_call), step)


def draw(
    distribution: Distribution,
    num_classes: int,
    num_sampled: int,
    stream: philox.Stream,
    unique: bool = True,
) -> Draw:
    """Draws classes in tensor code.

    Args:
        unique: Draw without replacement. False needs XLA.
    """
    num_proposals = distribution.initial_proposals(num_sampled, bool(unique))
    propose = distribution.propose
    if tracing_for_xla():
        ids, num_tries = sample_static(
            propose, stream, num_sampled, unique, num_classes, num_proposals
        )
    else:
        ids, num_tries = sample_unique(propose, stream, num_sampled, num_proposals)

    def count(classes: tf.Tensor) -> tf.Tensor:
        probability = distribution.probability(classes)
        counts = expected_count(probability, num_sampled, num_tries)
        if counts.shape.rank == 0:  # that of every class
            counts = tf.fill(tf.shape(classes), counts)
        if tracing_for_xla():
            counts = validation.nan_if_out_of_range(counts, classes, num_classes)
        return counts

    return Draw(ids, count)


def draw_and_learn(
    class_weights: tf.Variable,
    labels: tf.Tensor,
    label_mask: tf.Tensor | None,
    num_sampled: int,
    stream: philox.Stream,
    unique: bool = True,
) -> Draw:
    """Draws in proportion to `class_weights`, then adds 1 to the weight of each label.

    Args:
        class_weights: int64 `[num_classes]`, ones at first.
        labels: int64 `[batch, num_true]`.
        label_mask: bool, of the labels' shape: False for those not to count; or None.
        unique: See `draw`.
    """
    weights = tf.identity(class_weights)
    distribution, total = distributions.learned_unigram(weights)
    drawn = draw(distribution, weights.shape[0], num_sampled, stream, unique)
    with tf.control_dependencies([weights, drawn.ids]):
        update = state.count_labels(class_weights, labels, label_mask, total)

    def count(classes: tf.Tensor) -> tf.Tensor:
        with tf.control_dependencies([update]):  # a v1 graph runs what is asked for
            return tf.identity(drawn.expected_count(classes))

    with tf.control_dependencies([update]):
        return Draw(tf.identity(drawn.ids), count)


def as_draw(drawn: Draw | tuple) -> Draw:
    """Returns a sampler's result as a `Draw`."""
    ids, *rest = drawn
    return Draw(tf.cast(ids, tf.int64), *rest)


def with_counts(drawn: Draw, true_classes: tf.Tensor) -> Candidates:
    """Returns the ids of a draw, and the expected counts of labels and of these ids."""
    ids = drawn.ids
    both = tf.concat([tf.reshape(true_classes, [-1]), ids], axis=0)
    num_sampled = num_rows(ids)
    true_count, sampled_count = tf.split(drawn.expected_count(both), [-1, num_sampled])
    if drawn.is_drawn is not None:
        sampled_count = tf.where(drawn.is_drawn, sampled_count, float("inf"))
    true_count = tf.reshape(true_count, tf.shape(true_classes))
    return Candidates(ids, true_count, sampled_count)
