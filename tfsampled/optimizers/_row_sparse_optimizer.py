"""The base of the row-sparse optimizers.

It uses private names of Keras's. If Keras renames one of them,
`tests/optimizers/test_keras.py` fails.
"""

from __future__ import annotations

import contextlib
import math
import re
import warnings
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from tfsampled._core import replicas
from tfsampled._core.xla import server_of
from tfsampled.optimizers import _sparse_rows as rows

_UNSUPPORTED = {
    "use_ema": "the average of every row moves in every step",
    "ema_overwrite_frequency": "it writes every row",
    "gradient_accumulation_steps": "the accumulated gradient is as large as the table",
}


class RowSparse(keras.optimizers.Optimizer):
    """An optimizer that updates the rows that a `tf.IndexedSlices` names.

    A dense gradient is applied by the Keras optimizer that a subclass also derives
    from. A row-sparse one never becomes dense: it is unscaled, its duplicates are
    summed, it is clipped like the dense gradient, and passed to `sparse_step`.

    With several replicas all gradients are summed over them first. Then each replica
    updates its own copies of the variables, in the same way.

    Attributes:
        handles_dense: Whether `sparse_step` applies dense gradients too.
    """

    handles_dense = False

    def __init__(self, learning_rate: Any, **kwargs: Any) -> None:
        numbers = {
            "learning_rate": 0 if callable(learning_rate) else learning_rate,
            "weight_decay": kwargs.get("weight_decay") or 0,
            "loss_scale_factor": kwargs.get("loss_scale_factor") or 0,
        }
        validate_at_least_0(self, **numbers)
        super().__init__(learning_rate=learning_rate, **kwargs)
        self._strategy = tf.distribute.get_strategy()
        self._reject_unsupported_options()
        validate_strategy(self._strategy)

    def add_variable(
        self, shape: Any, initializer: Any = "zeros", **kwargs: Any
    ) -> keras.Variable:
        """Adds a variable of the optimizer's, with one tensor of its size at a time."""
        if isinstance(initializer, keras.initializers.Constant):
            # Keras's own multiplies a tensor of ones, and holds both.
            value = initializer.value

            def initializer(shape: Any, dtype: Any = None) -> tf.Tensor:
                return tf.fill(shape, tf.cast(value, dtype))

        return super().add_variable(shape, initializer, **kwargs)

    def add_per_row_slots(
        self,
        variables: Sequence[Any],
        name: str,
        initializer: Any = "zeros",
        dtype: str | None = None,
    ) -> list[keras.Variable]:
        """Adds a slot with one number per row for each variable, on its device.

        Args:
            variables: The variables.
            name: The slot's name, which follows that of its variable.
            initializer: Its initial value.
            dtype: Its dtype; None for float32, or float64 if the variable is float64.
        """
        slots = []
        for variable in variables:
            path = re.sub("[/:]", "_", rows.name_of(variable))
            with self._strategy.extended.colocate_vars_with(_tf_variable(variable)):
                slot = self.add_variable(
                    shape=variable.shape[:1],
                    initializer=initializer,
                    dtype=dtype or rows.accumulation_dtype(variable.dtype).name,
                    name=f"{path}_{name}",
                )
            slots.append(slot)
        return slots

    def build(self, variables: Sequence[Any]) -> None:
        """Makes the slots of these variables.

        Raises:
            ValueError: If an option is set that needs whole tables, or a variable
                is given twice or has another number of replicas than the optimizer.
        """
        if self.built:
            return
        self._reject_unsupported_options()
        _reject_duplicates(variables)
        for variable in variables:
            value = _tf_variable(variable)
            strategy = getattr(value, "distribute_strategy", None)
            if _num_replicas(strategy) != _num_replicas(self._strategy):
                raise ValueError(
                    "The optimizer must be made in the scope of the strategy of its "
                    f"variables. Received: {rows.name_of(variable)} with "
                    f"{_num_replicas(strategy)} replicas, {type(self).__name__} with "
                    f"{_num_replicas(self._strategy)}."
                )
        # Slots of equal content that are made in a trace share one more buffer.
        with tf.init_scope():
            super().build(variables)
            self.add_slots(variables)

    def add_slots(self, variables: Sequence[Any]) -> None:
        """Adds the slots that the Keras optimizer of a subclass does not have."""

    @tf.autograph.experimental.do_not_convert
    def apply(
        self, grads: Sequence[Any], trainable_variables: Sequence[Any] | None = None
    ) -> None:
        """Updates the variables by their gradients, dense or row-sparse.

        Args:
            grads: A tensor, a `tf.IndexedSlices` or None for each variable.
            trainable_variables: The variables; optional once the optimizer is built.

        Raises:
            ValueError: If the optimizer is not built for a variable, a variable is
                given twice, a gradient does not fit its variable, or a variable with a
                row-sparse gradient has a constraint.
            tf.errors.InvalidArgumentError: If a row id is out of range. Nothing is
                updated then. Under XLA such rows are left out.
        """
        grads = list(grads)
        if not grads:
            return
        self._reject_unsupported_options()
        variables = variables_for(self, grads, trainable_variables)
        for variable in variables:
            self._index_of(variable)
        _reject_duplicates(variables)
        grads = list(map(rows.validate_gradient, grads, variables))
        self._reject_constraints(grads, variables)
        grads = replicas.sum_gradients(grads)
        if not any(isinstance(grad, tf.IndexedSlices) for grad in grads):
            super().apply(grads, variables)
            return
        pairs = self._present(grads, variables)
        with tf.control_dependencies(rows.assert_rows_in_bounds(grads, variables)):
            pairs = self._clip([(self._distinct(*pair), pair[1]) for pair in pairs])
        sparse = [pair for pair in pairs if isinstance(pair[0], tf.IndexedSlices)]
        dense = [pair for pair in pairs if not isinstance(pair[0], tf.IndexedSlices)]
        # Every gradient has been computed and checked before the first row is written.
        ready = [grad for grad, _ in dense]
        ready += [part for grad, _ in sparse for part in (grad.indices, grad.values)]
        with tf.control_dependencies(ready):
            learning_rate = self.learning_rate
            for grad, variable in sparse:
                decays = self.weight_decay is not None and (
                    self._use_weight_decay(_tf_variable(variable))
                )
                self._apply_rows(grad, variable, learning_rate, decays)
            if dense:
                super().apply(*zip(*dense, strict=True))
            else:
                # Keras's own reads and writes, and workers lose each other's counts.
                self.iterations.value.assign_add(1)

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Updates one variable by its gradient, which is neither clipped nor scaled."""
        if isinstance(gradient, tf.IndexedSlices):
            gradient = rows.validate_gradient(gradient, variable)
            checks = rows.assert_rows_in_bounds([gradient], [variable])
            with tf.control_dependencies(checks):
                gradient = rows.sum_duplicates(gradient, variable)
        elif not self.handles_dense:
            super().update_step(gradient, variable, learning_rate)
            return
        self._apply_rows(gradient, variable, learning_rate)

    def sparse_step(
        self,
        ids: tf.Tensor | None,
        values: tf.Tensor,
        variable: tf.Variable,
        learning_rate: Any,
    ) -> tf.Tensor:
        """Returns what to add to rows of a variable, and updates their slots.

        Each slot is read once and then written once, with numbers made from those read:
        if the order of the two is open, or a slot is read again, XLA copies it.

        Args:
            ids: `[k]`, distinct; None for all rows in their order.
            values: Rows of the gradient, `[k, ...]`, in float32, or in float64 if the
                variable is. So are the rows that `rows.read` reads.
            variable: The variable.
            learning_rate: A float or a scalar.
        """
        raise NotImplementedError

    def slot(self, name: str, variable: Any) -> tf.Variable:
        """Returns the slot of a variable.

        Args:
            name: Such as `"momentums"`.
            variable: One of the variables that the optimizer was built for.

        Raises:
            ValueError: If the optimizer was not built for this variable.
        """
        index = self._index_of(variable)
        return replicas.own_copy(getattr(self, f"_{name}")[index].value)

    def _index_of(self, variable: Any) -> int:
        try:
            return self._get_variable_index(variable)
        except KeyError:
            raise ValueError(
                "`build` must be called once, with all variables to train. Received: "
                f"the variable {rows.name_of(variable)}, for which this "
                f"{type(self).__name__} is not built."
            ) from None

    def _all_reduce_sum_gradients(self, grads_and_vars: Any) -> Any:
        return grads_and_vars  # `apply` has summed them

    def _present(
        self, grads: Sequence[Any], variables: Sequence[Any]
    ) -> list[tuple[Any, Any]]:
        """Returns the gradients that are not None, and warns of the others."""
        pairs = list(zip(grads, variables, strict=True))
        missing = [rows.name_of(variable) for grad, variable in pairs if grad is None]
        if missing:
            warnings.warn(
                f"{type(self).__name__} got no gradient for {', '.join(missing)}, "
                "which will not be updated.",
                stacklevel=3,
            )
        return [pair for pair in pairs if pair[0] is not None]

    def _distinct(self, grad: rows.Gradient, variable: Any) -> rows.Gradient:
        """Unscales a row-sparse gradient and sums its duplicates."""
        if not isinstance(grad, tf.IndexedSlices):
            return grad
        grad = rows.map_values(self._unscale, rows.upcast(grad, variable))
        return rows.sum_duplicates(grad, variable)

    def _unscale(self, values: tf.Tensor) -> tf.Tensor:
        scale = self.loss_scale_factor
        return values if scale is None else values / scale

    def _clip(self, pairs: list[tuple[Any, Any]]) -> list[tuple[Any, Any]]:
        """Clips the row-sparse gradients by the first limit that is set, as Keras.

        Keras clips the dense ones, except by `global_clipnorm`: that takes all
        gradients, after which the dense ones are short enough for Keras.
        """
        if _is_set(self.clipnorm):
            function, limits = tf.clip_by_norm, [self.clipnorm]
        elif _is_set(self.global_clipnorm):
            return self._clip_together(pairs)
        elif _is_set(self.clipvalue):
            function, limits = tf.clip_by_value, [-self.clipvalue, self.clipvalue]
        else:
            return pairs

        def clip(values: tf.Tensor) -> tf.Tensor:
            return function(values, *limits)

        return [
            (rows.map_values(clip, g) if isinstance(g, tf.IndexedSlices) else g, v)
            for g, v in pairs
        ]

    def _clip_together(self, pairs: list[tuple[Any, Any]]) -> list[tuple[Any, Any]]:
        # Keras assigns some "gradients", such as scales of float8, as they are.
        clipped = [not getattr(v, "overwrite_with_gradient", False) for _, v in pairs]
        unscaled = [
            grad if isinstance(grad, tf.IndexedSlices) else self._unscale(grad)
            for (grad, _), clips in zip(pairs, clipped, strict=True)
            if clips
        ]
        factor = rows.global_clip_factor(unscaled, self.global_clipnorm)

        def clip(values: tf.Tensor) -> tf.Tensor:
            return values * tf.cast(factor, values.dtype)

        return [
            (rows.map_values(clip, grad) if clips else grad, variable)
            for (grad, variable), clips in zip(pairs, clipped, strict=True)
        ]

    def _apply_rows(
        self,
        gradient: rows.Gradient,
        variable: Any,
        learning_rate: Any,
        decays: bool = False,
    ) -> None:
        """Updates the distinct rows of a gradient; all rows by a dense one."""
        ids, values = None, gradient
        if isinstance(gradient, tf.IndexedSlices):
            ids, values = gradient.indices, gradient.values
        variable = replicas.own_copy(_tf_variable(variable))
        dtype = rows.accumulation_dtype(variable.dtype)
        server = server_of(variable)
        with tf.device(server) if server else contextlib.nullcontext():
            values = tf.cast(values, dtype)
            change = self.sparse_step(ids, values, variable, learning_rate)
            if decays:
                rate = tf.cast(learning_rate, dtype)
                decay = tf.cast(self.weight_decay, dtype) * rate
                change -= decay * rows.read(variable, ids)
            rows.add(variable, ids, change)

    def _reject_unsupported_options(self) -> None:
        for name, reason in _UNSUPPORTED.items():
            if value := getattr(self, name):
                raise ValueError(
                    f"`{name}` must not be set: {type(self).__name__} touches only the "
                    f"rows of the gradient, and {reason}. Received: {name}={value!r}."
                )

    def _reject_constraints(
        self, grads: Sequence[Any], variables: Sequence[Any]
    ) -> None:
        for grad, variable in zip(grads, variables, strict=True):
            constraint = getattr(variable, "constraint", None)
            if isinstance(grad, tf.IndexedSlices) and constraint is not None:
                raise ValueError(
                    "A variable with a row-sparse gradient must not have a constraint, "
                    "which reads and writes all its rows in every step. Received: "
                    f"{rows.name_of(variable)} with {constraint!r}."
                )


def _reject_duplicates(variables: Sequence[Any]) -> None:
    different = {id(_tf_variable(v)): v for v in variables}
    if len(different) < len(variables):
        names = ", ".join(map(rows.name_of, different.values()))
        raise ValueError(
            "`variables` must not contain a variable twice, not even a tied or shared "
            f"table. Received: {len(variables)} variables, {len(different)} different: "
            f"{names}."
        )


def variables_for(
    optimizer: keras.optimizers.Optimizer, grads: Sequence[Any], variables: Any
) -> list[Any]:
    """Returns the variables of the gradients: `variables`, or those built for.

    Builds the optimizer for them if it is not built.
    """
    if variables is not None:
        variables = list(variables)
    elif optimizer.built:
        # Before Keras 3.11 one that scales the loss did not know them itself.
        owner = getattr(optimizer, "inner_optimizer", optimizer)
        variables = owner._trainable_variables
    else:
        raise ValueError(
            "`trainable_variables` must be given, or `build` called before: this "
            f"{type(optimizer).__name__} is not built."
        )
    if len(grads) != len(variables):
        raise ValueError(
            "`grads` must have one gradient for each variable, None where there is "
            f"none. Received: {len(grads)} gradients, {len(variables)} variables."
        )
    if not optimizer.built:
        optimizer.build(variables)
    return variables


def validate_at_least_0(optimizer: Any, **numbers: Any) -> None:
    """Raises `ValueError` if a value is not a finite number of at least 0."""
    for name, value in numbers.items():
        try:
            is_valid = 0 <= float(value) < math.inf
        except (TypeError, ValueError):
            is_valid = False
        if not is_valid:
            raise ValueError(
                f"`{name}` of {type(optimizer).__name__} must be a finite number of at "
                f"least 0. Received: {name}={value!r}."
            )


def validate_strategy(strategy: tf.distribute.Strategy) -> None:
    """Raises `ValueError` unless each replica has copies of the variables."""
    mirrored = tf.distribute.MirroredStrategy, tf.distribute.MultiWorkerMirroredStrategy
    if strategy.num_replicas_in_sync > 1 and not isinstance(strategy, mirrored):
        raise ValueError(
            "A strategy with several replicas must be a MirroredStrategy or a "
            f"MultiWorkerMirroredStrategy. Received: {strategy!r}."
        )


def _num_replicas(strategy: tf.distribute.Strategy | None) -> int:
    """Returns the number of replicas of a strategy; 1 for none."""
    return 1 if strategy is None else strategy.num_replicas_in_sync


def _tf_variable(variable: Any) -> tf.Variable:
    return variable if isinstance(variable, tf.Variable) else variable.value


def _is_set(limit: float | None) -> bool:
    """Tells whether Keras would clip by this limit."""
    return limit is not None and limit > 0
