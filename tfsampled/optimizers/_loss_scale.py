"""Dynamic loss scaling that looks at the rows of a gradient, not at the table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from tfsampled.optimizers._row_sparse import RowSparse


@keras.saving.register_keras_serializable(package="tfsampled")
class LossScaleOptimizer(keras.optimizers.LossScaleOptimizer):
    """`keras.optimizers.LossScaleOptimizer` for an optimizer of this package.

    Keras's own fills a table of bools to learn whether a row-sparse gradient is
    finite; this one looks at the rows that the gradient has. Under the policy
    `mixed_float16`, Keras wraps every optimizer given to `compile` in its own, unless
    it is wrapped already.

    Args:
        inner_optimizer: The optimizer to wrap.
        initial_scale: What the loss is multiplied by at first.
        dynamic_growth_steps: After so many steps without an infinity, the scale is
            doubled. It is halved where a gradient is not finite, and that step skipped.
        **kwargs: Arguments of `keras.optimizers.LossScaleOptimizer`, such as `name`.

    Example:
        >>> from tfsampled.optimizers import LazyAdam, LossScaleOptimizer
        >>> optimizer = LossScaleOptimizer(LazyAdam(0.01))
        >>> float(optimizer.scale_loss(1.0))
        32768.0
    """

    def __init__(
        self,
        inner_optimizer: keras.optimizers.Optimizer,
        initial_scale: float = 2.0**15,
        dynamic_growth_steps: int = 2000,
        **kwargs: Any,
    ) -> None:
        super().__init__(inner_optimizer, initial_scale, dynamic_growth_steps, **kwargs)
        if isinstance(inner_optimizer, RowSparse):
            inner_optimizer.allow_scaling_outside()

    def check_finite(self, grads: Sequence[Any]) -> tf.Tensor:
        """Whether every number of every gradient is finite."""
        return super().check_finite(
            [
                grad.values if isinstance(grad, tf.IndexedSlices) else grad
                for grad in grads
            ]
        )
