"""The sampler of ids in the order of their frequency."""

from __future__ import annotations

import warnings
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfsampled._core.candidate_sampling import samplers as candidates
from tfsampled._core.candidate_sampling.samplers import Candidates
from tfsampled.samplers._base import Sampler, variable


@keras.saving.register_keras_serializable(package="tfsampled")
class LogUniform(Sampler):
    """`P(c) = log((c + 2) / (c + 1)) / log(num_classes + 1)`, for ids by frequency.

    Class 0 is taken to be the most frequent. While it trains, a
    `SampledSoftmaxModel` compares the labels that it has seen with this: where
    `Uniform` would make them likelier, the ids plainly are not in that order, and a
    warning says so, once. So does `sample`, called eagerly on enough labels.

    Args:
        seed: See `Sampler`.
        **kwargs: Arguments of `keras.layers.Layer`, such as `name`.

    Example:
        >>> sampler = LogUniform(seed=1)
        >>> ids, of_labels, of_ids = sampler.sample([[0], [999]], 1000, 64)
        >>> ids.shape, of_labels.shape, of_ids.shape
        (TensorShape([64]), TensorShape([2, 1]), TensorShape([64]))
    """

    ENOUGH = 1000  # labels, before they are judged

    def __init__(self, seed: int | None = None, **kwargs: Any) -> None:
        super().__init__(seed, **kwargs)
        self._num_classes = 0
        self._warned = False
        self._seen: Any = None

    def build(self, num_classes: int) -> None:
        """Makes the variables, among them what is known of the labels' order."""
        super().build(num_classes)
        self._num_classes = num_classes
        if self._seen is None:
            self._seen = variable(np.zeros(2, np.float32), "seen")

    def draw(self, labels: tf.Tensor, num_classes: int, num_sampled: int) -> Candidates:
        """As `Sampler.draw`."""
        return self._draw_by(candidates.log_uniform, labels, num_classes, num_sampled)

    def update(self, labels: tf.Tensor, label_mask: tf.Tensor | None) -> None:
        """Adds to the sum of `log(id + 1)` and to the number of labels."""
        logs = tf.math.log1p(tf.cast(tf.maximum(labels, 0), tf.float32))
        ones = (
            tf.ones_like(logs)
            if label_mask is None
            else tf.cast(label_mask, tf.float32)
        )
        more = tf.stack([tf.reduce_sum(logs * ones), tf.reduce_sum(ones)])
        self._seen.assign_add(more)
        if tf.executing_eagerly():
            self.warn_if_unordered()

    def warn_if_unordered(self) -> None:
        """Warns, once, if the labels so far plainly are not ordered by frequency."""
        if self._warned or self._seen is None:
            return
        total, count = self._seen.numpy()
        if count < self.ENOUGH:
            return
        # Nats a label, each distribution coding the labels: P(c) is about
        # 1 / ((c + 1) log(num_classes + 1)), against 1 / num_classes.
        log_uniform = total / count + np.log(np.log1p(self._num_classes))
        if log_uniform > np.log(self._num_classes):
            self._warned = True
            warnings.warn(
                f"the labels are not ordered by frequency: of {count:.0f} seen, the "
                f"mean logarithm of id + 1 is {total / count:.1f} with "
                f"{self._num_classes} classes. Sampler 'log_uniform' draws low ids "
                "most: number the classes by falling frequency, or use "
                "tfsampled.samplers.FixedUnigram(counts), LearnedUnigram() or "
                "Uniform().",
                stacklevel=3,
            )
