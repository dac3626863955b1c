"""The state of TensorFlow's sampling kernels, as variables.

A kernel of TensorFlow remembers where its random stream stands. Compiled code has no
kernel, so each place where a sampler is traced gets variables instead.
"""

from __future__ import annotations

import secrets
import weakref
from typing import Any

import tensorflow as tf

from tfsampled._core import validation
from tfsampled._core.xla import variable_outside

# graph -> the variables that code traced into it reads. Graphs refer to variables by
# handle only, and a handle is void once its variable is gone.
_VARIABLES: weakref.WeakKeyDictionary[Any, list[tf.Variable]] = (
    weakref.WeakKeyDictionary()
)
_INT32_MAX = 2**31 - 1


def traced_variable(initial_value: Any, name: str) -> tf.Variable:
    """Makes an int64 variable that lives as long as the function being traced."""
    variable = variable_outside(initial_value, tf.int64, name)
    graph = tf.compat.v1.get_default_graph()
    # Graphs of functions only: the graph outside them all would keep it for good.
    while hasattr(graph, "outer_graph"):
        _VARIABLES.setdefault(graph, []).append(variable)
        graph = graph.outer_graph
    return variable


def random_if_0(seeds: tuple[int, int]) -> tuple[int, int]:
    """Returns a pair of seeds; random ones for (0, 0), as TensorFlow's kernels do."""
    return seeds if any(seeds) else (secrets.randbits(64), secrets.randbits(64))


def count_labels(
    class_weights: tf.Variable,
    labels: tf.Tensor,
    label_mask: tf.Tensor | None,
    total: tf.Tensor,
) -> Any:
    """Adds 1 to the weight of each label, as long as the sum fits an int32.

    Args:
        class_weights: `[range_max]` int64.
        labels: int64, any shape; those out of range are left out.
        label_mask: bool, of the labels' shape: False for those not to count; or None.
        total: `[]` int32, the sum of the weights.

    Returns:
        The operation that updates the weights.
    """
    labels = tf.reshape(labels, [-1])
    # labels = [2, 9, 2], range_max = 5 -> is_counted = [1, 0, 1]
    is_counted = validation.in_range(labels, class_weights.shape[0])
    is_counted &= tf.range(tf.size(labels)) < _INT32_MAX - total
    if label_mask is not None:
        is_counted &= tf.reshape(label_mask, [-1])
    return class_weights.scatter_add(
        tf.IndexedSlices(tf.cast(is_counted, tf.int64), tf.where(is_counted, labels, 0))
    )
