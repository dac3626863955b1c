"""What the row-sparse optimizers have in common."""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from tfsampled.optimizers import _checks, _keras
from tfsampled.optimizers import _clipping as clipping
from tfsampled.optimizers import _sparse_rows as rows
from tfsampled.optimizers._loss_scale import LossScaleOptimizer


class RowSparse(keras.optimizers.Optimizer):
    """An optimizer that updates the rows that a `tf.IndexedSlices` names.

    A dense gradient goes the way of the Keras optimizer that a subclass also derives
    from. A row-sparse one never becomes dense: it is unscaled, its duplicates are
    summed, it is clipped as the table it stands for, and given to `row_changes`.

    Attributes:
        own_dense_update: Whether `row_changes` updates by dense gradients too.
    """

    own_dense_update = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._made_under = tf.distribute.get_strategy()
        _checks.options(self)
        _checks.strategy(self._made_under, of=type(self).__name__)

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

    def add_row_variables(
        self,
        variables: Sequence[Any],
        name: str,
        initializer: Any = "zeros",
        dtype: str | None = None,
    ) -> list[keras.Variable]:
        """Adds a slot of one number a row for each variable, on its device.

        Args:
            variables: The variables.
            name: What the slot is called, after its variable.
            initializer: What it starts from.
            dtype: Its dtype; None for float32, or float64 where its variable's is.
        """
        made = []
        for variable in variables:
            path = re.sub("[/:]", "_", rows.name_of(variable))
            value = _tensorflow_variable(variable)
            with self._made_under.extended.colocate_vars_with(value):
                slot = self.add_variable(
                    shape=variable.shape[:1],
                    initializer=initializer,
                    dtype=dtype or rows.wide(variable.dtype).name,
                    name=f"{path}_{name}",
                )
            made.append(slot)
        return made

    def build(self, variables: Sequence[Any]) -> None:
        """Makes the slots of these variables.

        Raises:
            ValueError: `keras.optimizers.LossScaleOptimizer` is around it, or an option
                that needs whole tables was set.
        """
        if _keras.loss_scaling(allowed=LossScaleOptimizer):
            kind = type(self).__name__
            raise ValueError(
                f"This {kind} is in a keras.optimizers.LossScaleOptimizer, as compile "
                "puts every optimizer under the policy mixed_float16, and that looks "
                "for infinities in gradients as large as the tables: pass "
                f"tfsampled.optimizers.LossScaleOptimizer({kind}(...)) instead."
            )
        if self.built:
            return
        _checks.options(self)
        for variable in variables:
            value = _tensorflow_variable(variable)
            copies = getattr(value, "distribute_strategy", self._made_under)
            _checks.strategy(copies, of=f"The variable {rows.name_of(variable)}")
        # Slots of equal content that are made in a trace share one more buffer.
        with tf.init_scope():
            super().build(variables)
            self.add_slots(variables)

    def add_slots(self, variables: Sequence[Any]) -> None:
        """Adds what slots the Keras optimizer, if one is derived from, has not."""

    def apply(
        self, grads: Sequence[Any], trainable_variables: Sequence[Any] | None = None
    ) -> None:
        """Updates the variables by their gradients, dense or row-sparse.

        Args:
            grads: A tensor, a `tf.IndexedSlices` or None for each variable.
            trainable_variables: The variables; may be left out once it is built.

        Raises:
            ValueError: The optimizer was not built for a variable, a gradient's shape
                is not its variable's, or a row-sparse gradient is of a variable with a
                constraint.
            tf.errors.InvalidArgumentError: A gradient has a row outside its table.
                Nothing is updated then. Under XLA such rows are left out.
        """
        grads = list(grads)
        if not grads:
            return
        _checks.options(self)
        variables = _checks.variables(self, grads, trainable_variables)
        if not self.built:
            self.build(variables)
        for variable in variables:
            self._index_of(variable)
        grads = [
            _checks.gradient(grad, variable)
            for grad, variable in zip(grads, variables, strict=True)
        ]
        for grad, variable in zip(grads, variables, strict=True):
            _checks.constraint(grad, variable, self)
        if not any(isinstance(grad, tf.IndexedSlices) for grad in grads):
            super().apply(grads, variables)
            return
        pairs = [
            (self._prepare(grad, variable), variable)
            for grad, variable in self._present(grads, variables)
        ]
        if _is_set(self.global_clipnorm):
            pairs = self._clip_together(pairs)
        row_sparse = [pair for pair in pairs if isinstance(pair[0], tf.IndexedSlices)]
        dense = [pair for pair in pairs if not isinstance(pair[0], tf.IndexedSlices)]
        # Every row has been looked at before the first is written.
        looked_at = [grad for grad, _ in dense]
        looked_at += [part for g, _ in row_sparse for part in (g.indices, g.values)]
        with tf.control_dependencies(looked_at):
            rate = self.learning_rate
            for grad, variable in row_sparse:
                decayed = self.weight_decay is not None and (
                    _keras.uses_weight_decay(self, variable)
                )
                self._move(grad.indices, grad.values, variable, rate, decayed)
            if dense:
                super().apply(*zip(*dense, strict=True))
            else:
                self.iterations.assign_add(1)

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Updates one variable by its gradient, which is neither clipped nor scaled."""
        if isinstance(gradient, tf.IndexedSlices):
            gradient = _checks.gradient(gradient, variable)
            gradient = rows.sum_duplicates(gradient, variable)
            ids, values = gradient.indices, gradient.values
        elif self.own_dense_update:
            ids, values = None, gradient
        else:
            super().update_step(gradient, variable, learning_rate)
            return
        self._move(ids, values, variable, learning_rate)

    def row_changes(
        self,
        ids: tf.Tensor | None,
        values: tf.Tensor,
        variable: tf.Variable,
        learning_rate: Any,
    ) -> tf.Tensor:
        """What to add to these rows of a variable; updates their slots.

        Each slot is read once and then written once, with numbers made from those
        read: where the order of the two is open, or a slot is read again, XLA makes a
        copy of it.

        Args:
            ids: `[k]`, of which none stands twice; None for all rows in their order.
            values: The rows of the gradient, `[k, ...]`, in float32, or in float64 if
                the variable is. So are the rows that `rows.read` reads.
            variable: The variable.
            learning_rate: A float or a scalar.
        """
        raise NotImplementedError

    def slot(self, name: str, variable: Any) -> tf.Variable:
        """The slot of this name that belongs to a variable.

        Args:
            name: Such as `"momentums"`.
            variable: One of the variables that the optimizer was built for.

        Raises:
            ValueError: The optimizer was not built for this variable.
        """
        return _keras.slot(self, name, self._index_of(variable))

    def _index_of(self, variable: Any) -> int:
        index = _keras.index_of(self, variable)
        if index is None:
            raise ValueError(
                f"{type(self).__name__} is not built for the variable "
                f"{rows.name_of(variable)}: call build with all the variables that it "
                "is to train, once."
            )
        return index

    def _present(
        self, grads: Sequence[Any], variables: Sequence[Any]
    ) -> list[tuple[Any, Any]]:
        """The gradients there are, each with its variable; warns of the others."""
        pairs = list(zip(grads, variables, strict=True))
        missing = [rows.name_of(variable) for grad, variable in pairs if grad is None]
        if missing:
            warnings.warn(
                f"{type(self).__name__} got no gradient for {', '.join(missing)}: "
                "what has no part in the loss stands still.",
                stacklevel=3,
            )
        return [(grad, variable) for grad, variable in pairs if grad is not None]

    def _prepare(self, grad: Any, variable: Any) -> Any:
        """A row-sparse gradient with distinct rows, unscaled and clipped."""
        if not isinstance(grad, tf.IndexedSlices):
            return grad
        if self.loss_scale_factor is not None:
            grad = clipping.on_values(self._unscaled, rows.widened(grad, variable))
        grad = rows.sum_duplicates(grad, variable)
        if _is_set(self.clipnorm):
            grad = clipping.by_norm(grad, self.clipnorm)
        elif _is_set(self.clipvalue):
            grad = clipping.by_value(grad, self.clipvalue)
        return grad

    def _unscaled(self, values: tf.Tensor) -> tf.Tensor:
        return values / self.loss_scale_factor

    def _clip_together(self, pairs: list[tuple[Any, Any]]) -> list[tuple[Any, Any]]:
        """All gradients by one factor, of which Keras sees only the dense ones.

        What is clipped here is short enough for Keras, which clips the dense ones by
        the norm of them alone. They are still scaled; the row-sparse ones are not.
        """
        unscaled = [
            grad
            if isinstance(grad, tf.IndexedSlices) or self.loss_scale_factor is None
            else self._unscaled(grad)
            for grad, _ in pairs
        ]
        factor = clipping.global_factor(unscaled, self.global_clipnorm)

        def clip(values: tf.Tensor) -> tf.Tensor:
            return values * tf.cast(factor, values.dtype)

        return [(clipping.on_values(clip, grad), variable) for grad, variable in pairs]

    def _move(
        self,
        ids: tf.Tensor | None,
        values: tf.Tensor,
        variable: Any,
        learning_rate: Any,
        decayed: bool = False,
    ) -> None:
        """Updates distinct rows of a variable by their gradients."""
        variable = _tensorflow_variable(variable)
        dtype = rows.wide(variable.dtype)
        values = tf.cast(values, dtype)
        change = self.row_changes(ids, values, variable, learning_rate)
        if decayed:
            decay = tf.cast(self.weight_decay, dtype) * tf.cast(learning_rate, dtype)
            change -= decay * rows.read(variable, ids)
        rows.add(variable, ids, change)


def _tensorflow_variable(variable: Any) -> tf.Variable:
    return variable if isinstance(variable, tf.Variable) else variable.value


def _is_set(limit: float | None) -> bool:
    """Whether Keras would clip by it."""
    return limit is not None and limit > 0
