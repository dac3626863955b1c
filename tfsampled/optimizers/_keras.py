"""Private names of Keras's optimizers that a subclass needs.

If Keras renames one of them, `tests/optimizers/test_keras.py` fails.
"""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf


class GradientsSummed:
    """Makes an optimizer of Keras's take gradients as summed over the replicas."""

    def _all_reduce_sum_gradients(self, grads_and_vars: Any) -> Any:
        return grads_and_vars


def index_of(optimizer: keras.optimizers.Optimizer, variable: Any) -> int:
    """Returns the position of a variable among those of `build`, or raises KeyError."""
    return optimizer._get_variable_index(variable)


def variables_of(optimizer: keras.optimizers.Optimizer) -> list[Any]:
    """Returns the variables that the optimizer was built for."""
    # Before Keras 3.11 one that scales the loss did not know them itself.
    return getattr(optimizer, "inner_optimizer", optimizer)._trainable_variables


def uses_weight_decay(optimizer: keras.optimizers.Optimizer, variable: Any) -> bool:
    """Tells whether `exclude_from_weight_decay` does not exclude this variable."""
    return optimizer._use_weight_decay(variable)


def slot(optimizer: keras.optimizers.Optimizer, name: str, index: int) -> tf.Variable:
    """Returns a slot that Keras's optimizers keep, such as `"momentums"`."""
    return getattr(optimizer, f"_{name}")[index].value
