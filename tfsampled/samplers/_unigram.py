"""Samplers by counts: given ones, or those of the labels so far."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfsampled._core.candidate_sampling import alias_method as alias
from tfsampled._core.candidate_sampling import samplers as candidates
from tfsampled._core.candidate_sampling.expected_count import gather
from tfsampled._core.candidate_sampling.samplers import Candidates
from tfsampled.samplers._base import Sampler, variable


@keras.saving.register_keras_serializable(package="tfsampled")
class FixedUnigram(Sampler):
    """`P(c)` in proportion to `counts[c] ** distortion`, for classes in any order.

    The counts are no part of a traced graph, which only refers to a table made of
    them. They are part of the config, and so of a `.keras` file.

    Args:
        counts: `[num_classes]`, at least 0 and finite: how often each class occurs. A
            class of count 0 is never drawn, and must not be a label either.
        distortion: The power; 0.75 is word2vec's, 0 makes the classes alike.
        seed: See `Sampler`.
        **kwargs: Arguments of `keras.layers.Layer`, such as `name`.

    Raises:
        ValueError: `counts` are no list of such numbers.

    Example:
        >>> sampler = FixedUnigram([1.0, 8.0, 1.0, 2.0])
        >>> ids, of_labels, of_ids = sampler.sample([[1]], 4, num_sampled=4)
        >>> sorted(ids.numpy().tolist())
        [0, 1, 2, 3]
    """

    unsupported_label_message = (
        "labels contain a class whose count in FixedUnigram is 0, so that it could not "
        "be a label: give every class that can be one a count above 0."
    )

    def __init__(
        self,
        counts: Any,
        distortion: float = 1.0,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(seed, **kwargs)
        self.counts = np.asarray(counts, np.float32)
        self.distortion = float(distortion)
        self._drawn_ever: Any = None
        if self.counts.ndim != 1:
            raise ValueError(
                f"counts have the shape {self.counts.shape}; pass one number for each "
                "class."
            )
        if not (np.isfinite(self.counts).all() and (self.counts >= 0).all()):
            raise ValueError(
                f"counts lie between {self.counts.min()} and {self.counts.max()}; "
                "they must be finite and at least 0."
            )

    def validate(self, num_classes: int, num_sampled: int) -> None:
        """As `Sampler.check`; the counts must be one for each class."""
        super().validate(num_classes, num_sampled)
        if len(self.counts) != num_classes:
            raise ValueError(
                f"FixedUnigram has {len(self.counts)} counts, but there are "
                f"{num_classes} classes: pass one count for each class."
            )
        drawable = np.count_nonzero(self.counts)
        if num_sampled > drawable:
            raise ValueError(
                f"num_sampled is {num_sampled}, but only {drawable} classes have a "
                "count above 0: ask for fewer, or add 1 to the counts."
            )

    def build(self, num_classes: int) -> None:
        """Makes the variables, and says which classes are ever drawn."""
        super().build(num_classes)
        if self._drawn_ever is None:
            weights = alias.class_weights(self.counts, self.distortion, 0, 1, 0)
            with tf.init_scope():
                self._drawn_ever = tf.constant(
                    alias.alias_table(weights).probability > 0
                )

    def draw(self, labels: tf.Tensor, num_classes: int, num_sampled: int) -> Candidates:
        """As `Sampler.draw`."""
        return self._draw_by(
            candidates.fixed_unigram,
            labels,
            num_classes,
            num_sampled,
            distortion=self.distortion,
            unigrams=self.counts,
        )

    def supports(self, labels: tf.Tensor) -> tf.Tensor:
        """Where a label has a count above 0."""
        return gather(labels, self._drawn_ever)

    def get_config(self) -> dict[str, Any]:
        """As `Sampler.get_config`, with the counts."""
        return {
            **super().get_config(),
            "counts": self.counts.tolist(),
            "distortion": self.distortion,
        }


@keras.saving.register_keras_serializable(package="tfsampled")
class LearnedUnigram(Sampler):
    """`P(c)` in proportion to one more than how often `c` was a label so far.

    The counts are a variable of `num_classes` numbers, `class_weights`, saved with
    the head. Summing them up is the work of each step. Under a distribution strategy
    every replica counts the labels that it sees, and the first one's are saved.

    Args:
        seed: See `Sampler`.
        **kwargs: Arguments of `keras.layers.Layer`, such as `name`.
    """

    def __init__(self, seed: int | None = None, **kwargs: Any) -> None:
        super().__init__(seed, **kwargs)
        self.class_weights: Any = None

    def build(self, num_classes: int) -> None:
        """Makes the variables; one that two heads share needs equal classes.

        Raises:
            ValueError: It was prepared for another number of classes.
        """
        super().build(num_classes)
        if self.class_weights is None:
            self.class_weights = variable(np.ones(num_classes, np.int64), "weights")
        elif self.class_weights.shape != [num_classes]:
            raise ValueError(
                f"this LearnedUnigram counts {self.class_weights.shape[0]} classes, "
                f"but the head has {num_classes}: give each head its own."
            )

    def draw(self, labels: tf.Tensor, num_classes: int, num_sampled: int) -> Candidates:
        """As `Sampler.draw`; then counts the labels."""
        return self._draw_by(
            candidates.learned_unigram,
            labels,
            num_classes,
            num_sampled,
            class_weights=self.class_weights,
        )

    def update(self, labels: tf.Tensor, label_mask: tf.Tensor | None) -> None:
        """Takes back what padding has added to the counts in the draw."""
        if label_mask is None:
            return
        padding = tf.cast(tf.logical_not(label_mask), tf.int64)
        slices = tf.IndexedSlices(tf.reshape(padding, [-1]), tf.reshape(labels, [-1]))
        self.class_weights.scatter_sub(slices)

    def state(self) -> dict[str, tf.Variable]:
        """The position and the counts."""
        if self.class_weights is None:
            return {}
        return {**super().state(), "class_weights": self.class_weights}
