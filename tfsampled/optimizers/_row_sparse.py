"""What the row-sparse optimizers have in common."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from tfsampled._core import clipping, rows

_REFUSED = {
    "use_ema": (
        "the average of every row moves in every step: leave it out, and average the "
        "weights of saved models instead"
    ),
    "ema_overwrite_frequency": (
        "it writes every row: leave it out, as use_ema must be left out too"
    ),
    "gradient_accumulation_steps": (
        "the sum over several batches is a tensor as large as the table, read and "
        "written whole: leave it out, and pass batches that many times as large"
    ),
}


class RowSparse(keras.optimizers.Optimizer):
    """An optimizer that updates the rows that a `tf.IndexedSlices` names.

    A dense gradient goes the way of the Keras optimizer that a subclass also derives
    from. A row-sparse one never becomes dense: its duplicates are summed, it is
    unscaled, clipped as the table it stands for, and given to `row_changes`.
    """

    def __init__(self, **kwargs: Any) -> None:
        kind = type(self).__name__
        for name, reason in _REFUSED.items():
            if kwargs.get(name):
                raise ValueError(
                    f"{kind} got {name}={kwargs[name]!r}, but its step costs only the "
                    f"rows touched, and with {name} {reason}."
                )
        replicas = tf.distribute.get_strategy().num_replicas_in_sync
        if replicas > 1:
            raise ValueError(
                f"{kind} was made under a tf.distribute strategy of {replicas} "
                "replicas, but updates the rows of one copy of a table: make model "
                "and optimizer outside the strategy's scope."
            )
        super().__init__(**kwargs)
        self._scaled_by_another = False

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "loss_scale_factor" and value is None:
            # So does Keras's LossScaleOptimizer with the optimizer that it wraps.
            self._scaled_by_another = True
        super().__setattr__(name, value)

    def allow_scaling_outside(self) -> None:
        """Says that who wraps this optimizer leaves row-sparse gradients alone."""
        self._scaled_by_another = False

    def add_variable(
        self, shape: Any, initializer: Any = "zeros", **kwargs: Any
    ) -> keras.Variable:
        """Adds a variable to the optimizer's, with one tensor of its size at a time."""
        if isinstance(initializer, keras.initializers.Constant):
            # Keras's own multiplies a tensor of ones, and holds both.
            value = initializer.value

            def initializer(shape: Any, dtype: Any = None) -> tf.Tensor:
                return tf.fill(shape, tf.cast(value, dtype))

        return super().add_variable(shape, initializer, **kwargs)

    def build(self, variables: Sequence[Any]) -> None:
        """Makes the slots of these variables.

        Raises:
            ValueError: `keras.optimizers.LossScaleOptimizer` is around it.
        """
        if self._scaled_by_another:
            raise ValueError(
                f"The loss_scale_factor of this {type(self).__name__} was set to None, "
                "as keras.optimizers.LossScaleOptimizer does, which looks for "
                "infinities in gradients as large as the tables: wrap it in "
                "tfsampled.optimizers.LossScaleOptimizer instead."
            )
        super().build(variables)

    def apply(
        self, grads: Sequence[Any], trainable_variables: Sequence[Any] | None = None
    ) -> None:
        """Updates the variables by their gradients, dense or row-sparse.

        Args:
            grads: A tensor, a `tf.IndexedSlices` or None for each variable.
            trainable_variables: The variables; may be left out once it is built.

        Raises:
            ValueError: The optimizer was not built for a variable, or a row-sparse
                gradient is of a variable with a constraint.
            tf.errors.InvalidArgumentError: A gradient has a row outside its table.
                Under XLA such rows are left out.
        """
        grads = list(grads)
        if not any(isinstance(grad, tf.IndexedSlices) for grad in grads):
            super().apply(grads, trainable_variables)
            return
        variables = self._variables_of(grads, trainable_variables)
        pairs = [
            (self._prepare(grad, variable), variable)
            for grad, variable in zip(grads, variables, strict=True)
        ]
        if self.global_clipnorm:
            pairs = self._clip_together(pairs)
        dense = []
        for grad, variable in pairs:
            if isinstance(grad, tf.IndexedSlices):
                self._apply_rows(grad, variable)
            else:
                dense.append((grad, variable))
        if any(grad is not None for grad, _ in dense):
            super().apply(*zip(*dense, strict=True))
        else:
            self._iterations.assign_add(1)

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Updates one variable by its gradient, which is neither clipped nor scaled."""
        if isinstance(gradient, tf.IndexedSlices):
            gradient = rows.sum_duplicates(gradient, variable)
            change = self.row_changes(gradient, variable, learning_rate)
            rows.add(variable, gradient.indices, change)
        else:
            super().update_step(gradient, variable, learning_rate)

    def row_changes(
        self, gradient: tf.IndexedSlices, variable: Any, learning_rate: Any
    ) -> tf.Tensor:
        """What to add to the gradient's rows of a variable; updates their slots.

        No row stands twice in the gradient. Each slot is read once and then written
        once, with numbers made from those read: where the order of the two is open,
        or a slot is read again, XLA makes a copy of it.
        """
        raise NotImplementedError

    def slot(self, name: str, variable: Any) -> tf.Variable:
        """The slot of this name that belongs to a variable.

        Args:
            name: The attribute with the slots of all variables.
            variable: One of the variables that the optimizer was built for.

        Raises:
            ValueError: The optimizer was not built for this variable.
        """
        try:
            index = self._get_variable_index(variable)
        except KeyError:
            path = getattr(variable, "path", variable.name)
            raise ValueError(
                f"{type(self).__name__} is not built for the variable {path}: call "
                "build with all the variables that it is to train, once."
            ) from None
        return getattr(self, name)[index].value

    def _variables_of(self, grads: Sequence[Any], variables: Any) -> list[Any]:
        if variables is not None:
            variables = list(variables)
            if not self.built:
                self.build(variables)
            return variables
        if not self.built:
            raise ValueError(
                f"{type(self).__name__} is not built, so that it does not know which "
                "variables the gradients are of: pass trainable_variables to apply, "
                "or call build with them before."
            )
        if len(grads) != len(self._trainable_variables):
            raise ValueError(
                f"{type(self).__name__} got {len(grads)} gradients, but was built for "
                f"{len(self._trainable_variables)} variables: pass one for each, None "
                "where there is none, or pass trainable_variables too."
            )
        return self._trainable_variables

    def _prepare(self, grad: Any, variable: Any) -> Any:
        """A row-sparse gradient with distinct rows, unscaled and clipped."""
        if not isinstance(grad, tf.IndexedSlices):
            return grad
        if variable.constraint is not None:
            raise ValueError(
                f"The variable {getattr(variable, 'path', variable.name)} has a "
                f"constraint, {variable.constraint!r}, which reads and writes all its "
                f"rows in every step, while {type(self).__name__} touches those of "
                "the gradient only: leave the constraint out, or use an optimizer of "
                "keras.optimizers."
            )
        grad = rows.sum_duplicates(grad, variable)
        if self.loss_scale_factor is not None:
            factor = 1 / self.loss_scale_factor
            grad = clipping.on_values(lambda values: values * factor, grad)
        if self.clipnorm:
            grad = clipping.by_norm(grad, self.clipnorm)
        elif self.clipvalue:
            grad = clipping.by_value(grad, self.clipvalue)
        return grad

    def _clip_together(self, pairs: list[tuple[Any, Any]]) -> list[tuple[Any, Any]]:
        """All gradients by one factor, of which Keras sees only the dense ones.

        What is clipped here is short enough for Keras, which clips the dense ones by
        the norm of them alone. They are still scaled; the row-sparse ones are not.
        """
        scale = self.loss_scale_factor or 1.0
        unscaled = [
            grad
            if isinstance(grad, tf.IndexedSlices)
            else clipping.on_values(lambda values: values / scale, grad)
            for grad, _ in pairs
            if grad is not None
        ]
        factor = clipping.global_factor(unscaled, self.global_clipnorm)

        def clip(values: tf.Tensor) -> tf.Tensor:
            return values * tf.cast(factor, values.dtype)

        return [
            (grad if grad is None else clipping.on_values(clip, grad), variable)
            for grad, variable in pairs
        ]

    def _apply_rows(self, gradient: tf.IndexedSlices, variable: Any) -> None:
        if isinstance(variable, keras.Variable):
            variable = variable.value
        ids, learning_rate = gradient.indices, self.learning_rate
        change = self.row_changes(gradient, variable, learning_rate)
        if self.weight_decay is not None and self._use_weight_decay(variable):
            decay = tf.cast(self.weight_decay, variable.dtype) * tf.cast(
                learning_rate, variable.dtype
            )
            change -= decay * rows.read(variable, ids)
        rows.add(variable, ids, change)
