"""The sampler of class ids in the order of their frequency."""

from __future__ import annotations

import warnings
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfsampled._core.candidate_sampling import distributions
from tfsampled._core.candidate_sampling.distributions import Distribution
from tfsampled._core.candidate_sampling.samplers import Draw
from tfsampled.samplers._base import Sampler

_ENOUGH_LABELS = 1000  # to judge their order


@keras.saving.register_keras_serializable(package="tfsampled")
class LogUniform(Sampler):
    """Draws classes from a log-uniform (Zipfian) distribution, low ids most often.

    `P(c) = log((c + 2) / (c + 1)) / log(num_classes + 1)`, for class ids in order of
    decreasing frequency. `fit`, and eager calls of `sample`, look at the first 1000
    labels or so, and warn if these are likelier under `Uniform`: then the ids are
    evidently not in that order.

    Args:
        seed: See `Sampler`.
        **kwargs: `per_replica`, see `Sampler`, and arguments of `keras.layers.Layer`.

    Example:
        >>> from tfsampled.samplers import LogUniform
        >>> sampler = LogUniform(seed=1)
        >>> ids, of_labels, of_ids = sampler.sample([[0], [999]], 1000, 64)
        >>> ids.shape, of_labels.shape, of_ids.shape
        (TensorShape([64]), TensorShape([2, 1]), TensorShape([64]))
    """

    _num_labels = 0  # that were looked at
    _sum_logs = 0.0

    def draw(
        self,
        labels: tf.Tensor,
        label_mask: tf.Tensor | None,
        num_classes: int,
        num_sampled: int,
    ) -> Draw | tuple:
        """See `Sampler.draw`."""
        if tf.executing_eagerly():
            self.warn_if_unordered(labels, num_classes, label_mask)
        return super().draw(labels, label_mask, num_classes, num_sampled)

    def _distribution_over(self, num_classes: int) -> Distribution:
        return distributions.log_uniform(num_classes)

    def warn_if_unordered(
        self, labels: Any, num_classes: int, label_mask: Any = None
    ) -> None:
        """Warns if the first labels of these calls are not ordered by frequency.

        Once 1000 labels have been looked at, calls return at once.

        Args:
            labels: Integers of any shape, as arrays or eager tensors.
            num_classes: How many classes there are.
            label_mask: bool of the same shape, False for padding; None: no padding.
        """
        if self._num_labels >= _ENOUGH_LABELS:
            return
        labels = np.asarray(labels)
        if label_mask is not None:
            labels = labels[np.asarray(label_mask)]
        self._num_labels += labels.size
        self._sum_logs += float(np.sum(np.log1p(np.maximum(labels, 0))))
        if self._num_labels < _ENOUGH_LABELS:
            return
        # The cross-entropy of the labels under both distributions. P(c) is about
        # 1 / ((c + 1) * log(num_classes + 1)), against 1 / num_classes.
        mean_log = self._sum_logs / self._num_labels
        if mean_log + np.log(np.log1p(num_classes)) > np.log(num_classes):
            warnings.warn(
                "The labels are not ordered by frequency, but the sampler "
                f"'log_uniform' draws low ids most. Of {self._num_labels} labels, the "
                f"mean of log(id + 1) is {mean_log:.1f}, with {num_classes} "
                "classes. Number the classes by falling frequency, or use "
                "tfsampled.samplers.FixedUnigram(counts), LearnedUnigram() or "
                "Uniform().",
                stacklevel=3,
            )
