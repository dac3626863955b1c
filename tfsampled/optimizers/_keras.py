"""What a subclass needs of Keras's optimizers and finds under no public name.

Should Keras rename one of them, `tests/optimizers/test_keras.py` fails.
"""

from __future__ import annotations

import inspect
from typing import Any

import keras
import tensorflow as tf


def index_of(optimizer: keras.optimizers.Optimizer, variable: Any) -> int | None:
    """The place of a variable among those of `build`, None if it is not there."""
    try:
        return optimizer._get_variable_index(variable)
    except KeyError:
        return None


def variables_of(optimizer: keras.optimizers.Optimizer) -> list[Any]:
    """The variables that the optimizer was built for."""
    return optimizer._trainable_variables


def uses_weight_decay(optimizer: keras.optimizers.Optimizer, variable: Any) -> bool:
    """Whether `exclude_from_weight_decay` leaves this variable in."""
    return optimizer._use_weight_decay(variable)


def slot(optimizer: keras.optimizers.Optimizer, name: str, index: int) -> tf.Variable:
    """One of the slots that Keras's optimizers keep, such as `"momentums"`."""
    return getattr(optimizer, f"_{name}")[index].value


def loss_scaling(allowed: type) -> bool:
    """Whether loss scaling by Keras's own optimizer, none `allowed`, is among callers.

    What it does to the optimizer that it wraps others do as well, but its methods,
    which call `build`, stand on the stack.
    """
    frame = inspect.currentframe()
    while frame is not None:
        caller = frame.f_locals.get("self")
        if isinstance(caller, keras.optimizers.LossScaleOptimizer):
            return not isinstance(caller, allowed)
        frame = frame.f_back
    return False
