"""Dynamic loss scaling that reads the rows of a gradient, not the table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from tfsampled._core import replicas, validation
from tfsampled.optimizers import _sparse_rows as rows
from tfsampled.optimizers._row_sparse_optimizer import RowSparse, variables_for


@keras.saving.register_keras_serializable(package="tfsampled")
class LossScaleOptimizer(keras.optimizers.LossScaleOptimizer):
    """`keras.optimizers.LossScaleOptimizer` for models with row-sparse gradients.

    To find out whether a row-sparse gradient is finite, Keras's own makes tensors as
    large as the table in each step; this one reads the rows of the gradient. Under the
    policy "mixed_float16" Keras wraps every optimizer given to `compile` in its own,
    unless it is wrapped already; a `SampledSoftmaxModel` wraps it in this one.

    Args:
        inner_optimizer: The optimizer to wrap.
        initial_scale: The initial factor of the loss, positive.
        dynamic_growth_steps: The scale is doubled after this many steps with finite
            gradients. If a gradient is not finite, it is halved and the step skipped.
        **kwargs: Arguments of `keras.optimizers.LossScaleOptimizer`, such as `name`.

    Raises:
        ValueError: If an argument has an invalid value.

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
        if not isinstance(inner_optimizer, keras.optimizers.Optimizer) or isinstance(
            inner_optimizer, keras.optimizers.LossScaleOptimizer
        ):
            raise ValueError(
                "`inner_optimizer` must be a keras.optimizers.Optimizer that does not "
                "scale the loss itself. "
                f"Received: inner_optimizer={inner_optimizer!r}."
            )
        validation.positive_float(initial_scale, "initial_scale")
        validation.positive_int(dynamic_growth_steps, "dynamic_growth_steps")
        super().__init__(inner_optimizer, initial_scale, dynamic_growth_steps, **kwargs)

    def build(self, variables: Sequence[Any]) -> None:
        """Makes the variables of the scale, and the slots of these variables."""
        if self.built:
            return
        with tf.init_scope():
            if isinstance(self.inner_optimizer, RowSparse):
                self.inner_optimizer.build(variables)  # may refuse them
            super().build(variables)

    @tf.autograph.experimental.do_not_convert
    def apply(
        self, grads: Sequence[Any], trainable_variables: Sequence[Any] | None = None
    ) -> None:
        """Updates the variables by their scaled gradients, if all are finite.

        Args:
            grads: A tensor, a `tf.IndexedSlices` or None for each variable.
            trainable_variables: The variables; optional once the optimizer is built.

        Raises:
            ValueError: If the variables are not known, or a gradient does not fit its
                variable.
            tf.errors.InvalidArgumentError: If a row id is out of range. Neither
                variables nor scale are updated then. Under XLA such rows are left out,
                but must be finite too.
        """
        grads = list(grads)
        if not grads:
            return
        variables = variables_for(self, grads, trainable_variables)
        grads = list(map(rows.validate_gradient, grads, variables))
        with tf.control_dependencies(rows.assert_rows_in_bounds(grads, variables)):
            super().apply(grads, variables)

    def check_finite(self, grads: Sequence[Any]) -> tf.Tensor:
        """Returns whether every value of every gradient of each replica is finite."""
        values = [g.values if isinstance(g, tf.IndexedSlices) else g for g in grads]
        is_finite = super().check_finite(values)
        return replicas.mean(tf.cast(is_finite, tf.float32)) >= 1
