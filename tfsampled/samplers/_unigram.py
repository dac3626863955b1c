"""The samplers by counts: given ones, or those of the labels so far."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfsampled._core import replicas
from tfsampled._core.candidate_sampling import alias_method, distributions, samplers
from tfsampled._core.candidate_sampling.distributions import Distribution
from tfsampled._core.candidate_sampling.samplers import Draw
from tfsampled.samplers import _counts
from tfsampled.samplers._base import Sampler, variable

# A step that needs more proposals takes seconds.
_MAX_TRIES = 2**24


@keras.saving.register_keras_serializable(package="tfsampled")
class FixedUnigram(Sampler):
    """Draws classes in proportion to `counts[c] ** distortion`.

    The counts are not embedded in a traced graph, which only refers to a table computed
    from them. They are part of the config, compressed, and so of a `.keras` file.

    Args:
        counts: `[num_classes]`, at least 0 and finite: how often each class occurs. A
            class of count 0 is never drawn, and must not be a label either, unless
            `distortion` is 0.
        distortion: The power; 0.75 is word2vec's, 0 makes all classes equally likely.
        seed: See `Sampler`.
        **kwargs: `per_replica`, see `Sampler`, and arguments of `keras.layers.Layer`.

    Raises:
        ValueError: If `counts` is no vector of such numbers.

    Example:
        >>> from tfsampled.samplers import FixedUnigram
        >>> sampler = FixedUnigram([1.0, 8.0, 1.0, 2.0])
        >>> ids, of_labels, of_ids = sampler.sample([[1]], 4, num_sampled=4)
        >>> sorted(ids.numpy().tolist())
        [0, 1, 2, 3]
    """

    unsupported_label_message = (
        "`labels` must be classes whose count in FixedUnigram is above 0. Received: a "
        "class that is never drawn. Give every class that can be a label a count above "
        "0."
    )

    def __init__(
        self,
        counts: Any,
        distortion: float = 1.0,
        seed: int | keras.random.SeedGenerator | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(seed, **kwargs)
        self.counts = _counts.as_counts(counts)
        try:
            self.distortion = float(distortion)
        except (TypeError, ValueError):
            raise ValueError(
                f"`distortion` must be a number. Received: distortion={distortion!r}."
            ) from None
        self._distribution: Any = None
        self._validate_weights(num_sampled=1)

    def validate(self, num_classes: int, num_sampled: int | None) -> None:
        """See `Sampler.validate`; there must be one count for each class."""
        super().validate(num_classes, num_sampled)
        _counts.validate_num_classes(self.counts, num_classes)
        self._validate_weights(num_sampled or 0)

    def build(self, num_classes: int) -> None:
        """See `Sampler.build`."""
        super().build(num_classes)
        weights = self._weights()
        # Classes are drawn by a float64 sum. TensorFlow's op reports probabilities by a
        # float32 sum, which stops growing.
        share = (weights / np.sum(weights, dtype=np.float64)).astype(np.float32)
        table = alias_method.alias_table(weights)._replace(probability=share)
        self._distribution = distributions.fixed_unigram(table)

    def _distribution_over(self, num_classes: int) -> Distribution:
        del num_classes
        return self._distribution

    def supports(self, labels: tf.Tensor) -> tf.Tensor:
        """Returns where a label has a probability above 0."""
        return self._distribution.probability(labels) > 0

    def get_config(self) -> dict[str, Any]:
        """See `Sampler.get_config`; the counts are compressed."""
        return {
            **super().get_config(),
            "counts": _counts.encode(self.counts),
            "distortion": self.distortion,
        }

    def _weights(self) -> np.ndarray:
        return alias_method.class_weights(self.counts, self.distortion)

    def _validate_weights(self, num_sampled: int) -> None:
        weights = self._weights()
        alias_method.validate_weights(weights, num_sampled, _MAX_TRIES, "counts")


@keras.saving.register_keras_serializable(package="tfsampled")
class LearnedUnigram(Sampler):
    """Draws classes in proportion to 1 plus how often they were labels so far.

    The counts are a variable of `num_classes` numbers, `class_weights`, saved with
    the head. Summing them up is the work of each step. Under a distribution strategy
    every replica counts the labels of all. Counting stops when labels and classes add
    up to `2**31`.

    `num_sampled` must be well below the number of classes that occur: finding a class
    that has never occurred takes ever more tries.

    Args:
        seed: See `Sampler`.
        **kwargs: `per_replica`, see `Sampler`, and arguments of `keras.layers.Layer`.

    Example:
        >>> from tfsampled.samplers import LearnedUnigram
        >>> sampler = LearnedUnigram()
        >>> _ = sampler.sample([[1], [1]], num_classes=3, num_sampled=2)
        >>> sampler.class_weights.numpy().tolist()
        [1, 3, 1]
    """

    class_weights: Any = None

    def build(self, num_classes: int) -> None:
        """See `Sampler.build`."""
        super().build(num_classes)
        self.class_weights = variable(np.ones(num_classes), "weights")

    def draw(
        self,
        labels: tf.Tensor,
        label_mask: tf.Tensor | None,
        num_classes: int,
        num_sampled: int,
    ) -> Draw:
        """See `Sampler.draw`; then counts the labels."""
        labels, label_mask = replicas.all_gather(labels, label_mask)
        stream = self._next_stream(labels, num_sampled)
        counts = replicas.own_copy(self.class_weights)
        return samplers.draw_and_learn(counts, labels, label_mask, num_sampled, stream)

    def state(self) -> dict[str, tf.Variable]:
        """Returns the position and the counts."""
        if self.class_weights is None:
            return {}
        return {**super().state(), "class_weights": self.class_weights}
