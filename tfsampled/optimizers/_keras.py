"""What a subclass needs of Keras's optimizers and finds under no public name.

Should Keras rename one of them, `tests/test_optimizers_keras.py` fails.
"""

from __future__ import annotations

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


def decays(optimizer: keras.optimizers.Optimizer, variable: Any) -> bool:
    """Whether `exclude_from_weight_decay` leaves this variable in."""
    return optimizer._use_weight_decay(variable)


def path_of(variable: Any) -> str:
    """What a Keras or TensorFlow variable is called."""
    return getattr(variable, "path", variable.name)


def slot(optimizer: keras.optimizers.Optimizer, name: str, index: int) -> tf.Variable:
    """One of the slots that Keras's optimizers keep, such as `"momentums"`."""
    return getattr(optimizer, f"_{name}")[index].value
