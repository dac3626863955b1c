"""What the row-sparse optimizers refuse, each in a sentence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from tfsampled.optimizers import _sparse_rows as rows
from tfsampled.optimizers._keras import variables_of

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


def options(optimizer: keras.optimizers.Optimizer) -> None:
    """Options that an optimizer of rows cannot heed."""
    kind = type(optimizer).__name__
    for name, reason in _REFUSED.items():
        if value := getattr(optimizer, name):
            raise ValueError(
                f"{kind} got {name}={value!r}, but its step costs only the "
                f"rows touched, and with {name} {reason}."
            )


def strategy(found: tf.distribute.Strategy, of: str) -> None:
    """A strategy, of an optimizer or of a variable, that keeps several copies."""
    replicas = found.num_replicas_in_sync
    if replicas > 1:
        raise ValueError(
            f"{of} is under a tf.distribute strategy of {replicas} replicas, but a "
            "row-sparse optimizer updates the rows of one copy of a table: make model "
            "and optimizer outside the strategy's scope."
        )


def not_negative(kind: str, **numbers: float) -> None:
    """Numbers of at least 0."""
    for name, number in numbers.items():
        if not number >= 0:
            raise ValueError(f"{kind} got {name}={number!r}: pass 0 or more.")


def decay_rates(kind: str, **numbers: float) -> None:
    """Numbers that moments are multiplied by in each step."""
    for name, number in numbers.items():
        if not 0 <= number < 1:
            raise ValueError(
                f"{kind} got {name}={number!r}: pass a number of at least 0 and "
                "below 1."
            )


def variables(
    optimizer: keras.optimizers.Optimizer, grads: Sequence[Any], given: Any
) -> list[Any]:
    """The variables that the gradients are of: those given, or those built for."""
    kind = type(optimizer).__name__
    if given is not None:
        given = list(given)
    elif optimizer.built:
        given = variables_of(optimizer)
    else:
        raise ValueError(
            f"{kind} is not built, so that it does not know which variables the "
            "gradients are of: pass trainable_variables to apply, or call build with "
            "them before."
        )
    if len(grads) != len(given):
        raise ValueError(
            f"{kind} got {len(grads)} gradients for {len(given)} variables: pass one "
            "for each, None where there is none, or pass as trainable_variables the "
            "variables that the gradients are of."
        )
    return given


def gradient(grad: Any, variable: Any) -> Any:
    """The gradient, if it can be its variable's as far as that is known by now."""
    if isinstance(grad, tf.IndexedSlices):
        return rows.checked(grad, variable)
    if grad is None:
        return None
    grad = tf.convert_to_tensor(grad)
    if not grad.shape.is_compatible_with(variable.shape):
        raise ValueError(
            f"The gradient of {rows.name_of(variable)} has the shape {grad.shape}, but "
            f"the variable has {tuple(variable.shape)}: pass each gradient with the "
            "variable that it is of."
        )
    return tf.ensure_shape(grad, variable.shape)


def constraint(grad: Any, variable: Any, optimizer: keras.optimizers.Optimizer) -> None:
    """A constraint of a variable with a row-sparse gradient."""
    found = getattr(variable, "constraint", None)
    if isinstance(grad, tf.IndexedSlices) and found is not None:
        raise ValueError(
            f"The variable {rows.name_of(variable)} has a constraint, {found!r}, "
            "which reads and writes all its rows in every step, while "
            f"{type(optimizer).__name__} touches those of the gradient only: "
            "leave the constraint out, or use an optimizer of keras.optimizers."
        )
