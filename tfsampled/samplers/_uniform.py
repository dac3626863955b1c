"""The sampler to which all classes are alike."""

from __future__ import annotations

import keras
import tensorflow as tf

from tfsampled._core.candidate_sampling import samplers as candidates
from tfsampled._core.candidate_sampling.samplers import Candidates
from tfsampled.samplers._base import Sampler


@keras.saving.register_keras_serializable(package="tfsampled")
class Uniform(Sampler):
    """Every class alike: `P(c) = 1 / num_classes`.

    Args:
        seed: See `Sampler`.
        **kwargs: Arguments of `keras.layers.Layer`, such as `name`.
    """

    def draw(self, labels: tf.Tensor, num_classes: int, num_sampled: int) -> Candidates:
        """As `Sampler.draw`."""
        return self._draw_by(candidates.uniform, labels, num_classes, num_sampled)
