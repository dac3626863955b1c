"""Dynamic loss scaling that looks at the rows of a gradient, not at the table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from tfsampled.optimizers import _checks
from tfsampled.optimizers import _sparse_rows as rows


@keras.saving.register_keras_serializable(package="tfsampled")
class LossScaleOptimizer(keras.optimizers.LossScaleOptimizer):
    """`keras.optimizers.LossScaleOptimizer` for models with row-sparse gradients.

    Keras's own fills a table of bools to learn whether a row-sparse gradient is
    finite; this one looks at the rows that the gradient has. Under the policy
    `mixed_float16`, Keras wraps every optimizer given to `compile` in its own, unless
    it is wrapped already; a `SampledSoftmaxModel` wraps it in this one.

    Args:
        inner_optimizer: The optimizer to wrap.
        initial_scale: What the loss is multiplied by at first; above 0.
        dynamic_growth_steps: After so many steps without an infinity, the scale is
            doubled. It is halved where a gradient is not finite, and that step skipped.
        **kwargs: Arguments of `keras.optimizers.LossScaleOptimizer`, such as `name`.

    Raises:
        ValueError: What is to be wrapped is no optimizer, or a number is impossible.

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
        if not isinstance(inner_optimizer, keras.optimizers.Optimizer):
            raise ValueError(
                f"LossScaleOptimizer got {inner_optimizer!r} to wrap, which is no "
                "keras.optimizers.Optimizer: pass one, such as LazyAdam(0.001)."
            )
        if not initial_scale > 0 or not dynamic_growth_steps >= 1:
            raise ValueError(
                f"LossScaleOptimizer got initial_scale={initial_scale!r} and "
                f"dynamic_growth_steps={dynamic_growth_steps!r}: pass a scale above 0 "
                "and 1 step or more."
            )
        super().__init__(inner_optimizer, initial_scale, dynamic_growth_steps, **kwargs)

    def build(self, variables: Sequence[Any]) -> None:
        """Makes the variables of the scale, and the slots of these variables."""
        with tf.init_scope():
            super().build(variables)

    def apply(
        self, grads: Sequence[Any], trainable_variables: Sequence[Any] | None = None
    ) -> None:
        """Updates the variables by their scaled gradients, if all are finite.

        Args:
            grads: A tensor, a `tf.IndexedSlices` or None for each variable.
            trainable_variables: The variables; may be left out once it is built.

        Raises:
            ValueError: The variables are not known, or a gradient cannot be one of its
                variable.
            tf.errors.InvalidArgumentError: A gradient has a row outside its table.
                Nothing is updated then, nor is the scale. Under XLA such rows are left
                out, but for the question whether all is finite.
        """
        grads = list(grads)
        if not grads:
            return
        variables = _checks.variables(self, grads, trainable_variables)
        if not self.built:
            self.build(variables)
        grads = list(map(_checks.gradient, grads, variables))
        outside = [
            check
            for grad, variable in zip(grads, variables, strict=True)
            if isinstance(grad, tf.IndexedSlices)
            for check in rows.assert_inside(grad.indices, variable)
        ]
        with tf.control_dependencies(outside):
            super().apply(grads, variables)

    def check_finite(self, grads: Sequence[Any]) -> tf.Tensor:
        """Whether every number of every gradient is finite."""
        return super().check_finite(
            [
                grad.values if isinstance(grad, tf.IndexedSlices) else grad
                for grad in grads
            ]
        )
