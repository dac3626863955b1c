"""The sampler that draws all classes alike."""

from __future__ import annotations

import keras

from tfsampled._core.candidate_sampling import distributions
from tfsampled._core.candidate_sampling.distributions import Distribution
from tfsampled.samplers._base import Sampler


@keras.saving.register_keras_serializable(package="tfsampled")
class Uniform(Sampler):
    """Draws every class with the same probability, `P(c) = 1 / num_classes`.

    Args:
        seed: See `Sampler`.
        **kwargs: `per_replica`, see `Sampler`, and arguments of `keras.layers.Layer`.

    Example:
        >>> from tfsampled.samplers import Uniform
        >>> ids, of_labels, of_ids = Uniform(seed=1).sample([[3]], 1000, 64)
        >>> ids.shape, of_labels.shape, of_ids.shape
        (TensorShape([64]), TensorShape([1, 1]), TensorShape([64]))
    """

    def _distribution_over(self, num_classes: int) -> Distribution:
        return distributions.uniform(num_classes)
