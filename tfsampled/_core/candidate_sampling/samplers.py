"""Candidate samplers: labels in; ids and expected counts out.

There are two ways down, chosen where a call is traced. Off XLA it is TensorFlow's own
op. On the way to XLA, which has no such op, and for callers that own the sampler's
state, it is tensor code that draws the same ids from the same seeds.

Every function takes `seeds`, the pair that `tf.compat.v1.random.get_seed` returns, or
a function that takes it: called once, and only if the other arguments are sound,
because taking seeds moves on those of whatever is seeded next.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from tfsampled._core import validation
from tfsampled._core.candidate_sampling import alias_method as alias
from tfsampled._core.candidate_sampling import distributions as draws
from tfsampled._core.candidate_sampling import expected_count as counts
from tfsampled._core.candidate_sampling import philox, state
from tfsampled._core.candidate_sampling.unique import select
from tfsampled._core.xla import tracing_for_xla

Seeds = tuple[Any, Any] | Callable[[], tuple[Any, Any]]
_INT64_MAX = 2**63 - 1
Probability = Callable[[tf.Tensor], tf.Tensor]


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


class Request(NamedTuple):
    """What every sampler is asked for, converted and checked."""

    true_classes: tf.Tensor
    num_true: int
    num_sampled: int
    unique: bool
    range_max: int
    seeds: Seeds
    position: tf.Variable | None

    def take_seeds(self) -> tuple[Any, Any]:
        """The pair of seeds; to be called once."""
        return self.seeds() if callable(self.seeds) else self.seeds

    @property
    def ours(self) -> bool:
        """Whether our tensor code answers, and not TensorFlow's op."""
        return self.position is not None or tracing_for_xla()

    def op(self, kernel: Callable[..., Any], name: str | None, **more: Any) -> Any:
        """The answer of one of TensorFlow's ops."""
        seed, seed2 = (0 if seed is None else seed for seed in self.take_seeds())
        return Candidates(
            *kernel(
                true_classes=self.true_classes,
                num_true=self.num_true,
                num_sampled=self.num_sampled,
                unique=self.unique,
                seed=seed,
                seed2=seed2,
                name=name,
                **more,
            )
        )


@tf.autograph.experimental.do_not_convert
def log_uniform(
    true_classes: Any,
    num_true: Any,
    num_sampled: Any,
    unique: bool,
    range_max: Any,
    seeds: Seeds,
    *,
    name: str | None = None,
    position: tf.Variable | None = None,
) -> Candidates:
    """Candidates of `P(v) = log((v + 2) / (v + 1)) / log(range_max + 1)`.

    Args:
      true_classes: int64 `[batch, num_true]`.
      num_true: int, the labels of an example.
      num_sampled: int, how many classes to draw.
      unique: Draw without replacement.
      range_max: int, the number of classes.
      seeds: The pair of `tf.compat.v1.random.get_seed`, or a function that takes it.
      name: Of the op or of the name scope.
      position: An int64 scalar variable that the caller owns, 0 at first; it counts
        the calls, and our code draws on XLA and off it. By default the count is kept
        where TensorFlow keeps it (off XLA) or with the traced function.

    Returns:
      `Candidates`. Under XLA the expected count of a label outside `[0, range_max)`
      is NaN.

    Raises:
      ValueError: shapes or numbers that cannot be right.
      tf.errors.InvalidArgumentError: off XLA, a label outside `[0, range_max)`.
    """
    ask = _request(
        true_classes, num_true, num_sampled, unique, range_max, seeds, position
    )
    if not ask.ours:
        kernel = tf.raw_ops.LogUniformCandidateSampler
        return ask.op(kernel, name, range_max=ask.range_max)
    with tf.name_scope(name or "LogUniformCandidateSampler"):
        return _draw(
            ask,
            draws.log_uniform(ask.range_max),
            _tries("log_uniform", ask.num_sampled, ask.unique, ask.range_max),
            lambda ids: counts.log_uniform_probability(ids, ask.range_max),
        )


@tf.autograph.experimental.do_not_convert
def uniform(
    true_classes: Any,
    num_true: Any,
    num_sampled: Any,
    unique: bool,
    range_max: Any,
    seeds: Seeds,
    *,
    name: str | None = None,
    position: tf.Variable | None = None,
) -> Candidates:
    """Candidates of `P(v) = 1 / range_max`; see `log_uniform`."""
    ask = _request(
        true_classes, num_true, num_sampled, unique, range_max, seeds, position
    )
    if not ask.ours:
        kernel = tf.raw_ops.UniformCandidateSampler
        return ask.op(kernel, name, range_max=ask.range_max)
    with tf.name_scope(name or "UniformCandidateSampler"):
        return _draw(
            ask,
            draws.uniform(ask.range_max),
            _tries("uniform", ask.num_sampled, ask.unique, ask.range_max),
            lambda ids: counts.uniform_probability(ids, ask.range_max),
        )


@tf.autograph.experimental.do_not_convert
def learned_unigram(
    true_classes: Any,
    num_true: Any,
    num_sampled: Any,
    unique: bool,
    range_max: Any,
    seeds: Seeds,
    *,
    name: str | None = None,
    position: tf.Variable | None = None,
    class_weights: tf.Variable | None = None,
) -> Candidates:
    """Candidates in proportion to how often a class was a label before, plus one.

    After the draw every label's weight grows by one. See `log_uniform`; beyond its
    arguments, `class_weights` is an int64 variable `[range_max]` that the caller
    owns, ones at first. It comes with `position`, or neither is given.
    """
    ask = _request(
        true_classes, num_true, num_sampled, unique, range_max, seeds, position
    )
    if ask.range_max > 2**31 - 2:
        raise ValueError(
            f"range_max is {ask.range_max}; a learned unigram sampler keeps a weight "
            f"for each class and can have at most {2**31 - 2}."
        )
    if (position is None) != (class_weights is None):
        raise ValueError(
            "learned_unigram takes position and class_weights together, or neither: "
            "both are the sampler's state."
        )
    if not ask.ours:
        kernel = tf.raw_ops.LearnedUnigramCandidateSampler
        return ask.op(kernel, name, range_max=ask.range_max)
    with tf.name_scope(name or "LearnedUnigramCandidateSampler"):
        if class_weights is None:
            class_weights = state.traced_class_weights(ask.range_max)
        weights = tf.identity(class_weights)
        draw, total = draws.learned_unigram(weights)
        drawn = _draw(
            ask,
            draw,
            draws.first_tries(ask.num_sampled, ask.unique),
            lambda ids: (
                tf.cast(counts.gather(ids, weights), tf.float32)
                / tf.cast(total, tf.float32)
            ),
        )
        with tf.control_dependencies([weights, *drawn]):
            counted = state.count_labels(class_weights, ask.true_classes, total)
        with tf.control_dependencies([counted]):  # a v1 graph runs what is asked for
            return Candidates(*map(tf.identity, drawn))


@tf.autograph.experimental.do_not_convert
def fixed_unigram(
    true_classes: Any,
    num_true: Any,
    num_sampled: Any,
    unique: bool,
    range_max: Any,
    seeds: Seeds,
    *,
    vocab_file: str = "",
    distortion: float = 1.0,
    num_reserved_ids: int = 0,
    num_shards: int = 1,
    shard: int = 0,
    unigrams: Any = (),
    name: str | None = None,
    position: tf.Variable | None = None,
) -> Candidates:
    """Candidates in proportion to given weights; see `log_uniform`.

    Beyond its arguments: a weight is the last comma-separated field of a line of
    `vocab_file`, or an item of `unigrams`, raised to the power `distortion`;
    `num_reserved_ids` classes at the front are never drawn; of all classes those
    stay whose id modulo `num_shards` is `shard`. In compiled code the table of the
    distribution is an input of the graph and no part of it.
    """
    ask = _request(
        true_classes, num_true, num_sampled, unique, range_max, seeds, position
    )
    weights = alias.class_weights(
        alias.given_weights(vocab_file, unigrams),
        distortion,
        num_reserved_ids,
        num_shards,
        shard,
    )
    alias.check_weights(weights, ask.range_max, ask.num_sampled if ask.unique else 1)
    if not ask.ours:
        return ask.op(
            tf.raw_ops.FixedUnigramCandidateSampler,
            name,
            range_max=ask.range_max,
            vocab_file=vocab_file,
            distortion=distortion,
            num_reserved_ids=num_reserved_ids,
            num_shards=num_shards,
            shard=shard,
            unigrams=[float(weight) for weight in unigrams],
        )
    table = alias.alias_table(weights)
    with tf.name_scope(name or "FixedUnigramCandidateSampler"):
        with tf.init_scope():  # Outside the graph, which only refers to them.
            keep, other, probability = (tf.constant(part) for part in table)
        return _draw(
            ask,
            draws.fixed_unigram(keep, other),
            alias.first_tries(table, ask.num_sampled, ask.unique),
            lambda ids: counts.gather(ids, probability),
        )


@tf.autograph.experimental.do_not_convert
def all_candidates(
    true_classes: Any,
    num_true: Any,
    num_sampled: Any,
    unique: bool,
    seeds: Seeds,
    *,
    name: str | None = None,
) -> Candidates:
    """Every class from 0 to `num_sampled - 1`, each expected once.

    `unique` and `seeds` have no effect; they are part of TensorFlow's op.
    """
    ask = _request(
        true_classes, num_true, num_sampled, unique, num_sampled, seeds, None
    )
    if not ask.ours:
        return ask.op(tf.raw_ops.AllCandidateSampler, name)
    ask.take_seeds()  # for nothing, as TensorFlow does
    with tf.name_scope(name or "AllCandidateSampler"):
        true_count = tf.ones(tf.shape(ask.true_classes), tf.float32)
        return Candidates(
            tf.range(ask.num_sampled, dtype=tf.int64),
            counts.nan_outside(true_count, ask.true_classes, ask.range_max),
            tf.ones([ask.num_sampled], tf.float32),
        )


def _request(
    true_classes: Any,
    num_true: Any,
    num_sampled: Any,
    unique: bool,
    range_max: Any,
    seeds: Seeds,
    position: tf.Variable | None,
) -> Request:
    num_true = validation.positive_int(num_true, "num_true")
    num_sampled = validation.positive_int(num_sampled, "num_sampled")
    range_max = validation.positive_int(range_max, "range_max")
    if unique and num_sampled > range_max:
        raise ValueError(
            f"num_sampled is {num_sampled}, but there are {range_max} classes to draw "
            "from without replacement: draw fewer, or pass unique=False."
        )
    if range_max > _INT64_MAX:
        raise ValueError(f"range_max is {range_max}; it can be at most 2**63 - 1.")
    true_classes = validation.as_class_ids(true_classes, "true_classes")
    if not true_classes.shape.is_compatible_with([None, num_true]):
        raise ValueError(
            f"true_classes has shape {true_classes.shape}; it must be "
            f"[batch, num_true] with num_true = {num_true}."
        )
    return Request(
        true_classes, num_true, num_sampled, bool(unique), range_max, seeds, position
    )


def _draw(
    ask: Request, draw: draws.Draw, tries: int, probability: Probability
) -> Candidates:
    """Our tensor code: a position in the stream, tries, classes, expected counts."""
    position = ask.position
    if position is None:
        position = state.traced_position()
    true_classes = ask.true_classes
    if not tracing_for_xla():
        sound = validation.assert_ids_in_range(
            true_classes, ask.range_max, "true_classes"
        )
        with tf.control_dependencies(sound):
            true_classes = tf.identity(true_classes)
    with tf.control_dependencies([true_classes]):
        call = state.next_call(position)
    source = philox.stream(
        *state.key_and_counter(ask.take_seeds()), call, ask.num_sampled
    )
    ids, num_tries = select(
        draw, source, ask.num_sampled, ask.unique, ask.range_max, tries
    )

    def expected(classes: tf.Tensor) -> tf.Tensor:
        return counts.expected_count(probability(classes), ask.num_sampled, num_tries)

    return Candidates(
        ids,
        counts.nan_outside(expected(true_classes), true_classes, ask.range_max),
        expected(ids),
    )


@functools.lru_cache(maxsize=64)
def _tries(distribution: str, num_sampled: int, unique: bool, range_max: int) -> int:
    if distribution == "uniform":
        chances, copies = np.array([1.0 / range_max]), np.array([float(range_max)])
    else:
        chances, copies = draws.log_uniform_chances(range_max)
    return draws.first_tries(num_sampled, unique, chances, copies)
