"""How many draws a sampler has made: the state of TensorFlow's kernels, as variables.

A kernel of TensorFlow remembers where its random stream stands. Compiled code has no
kernel, so each place where a sampler is traced gets a variable instead; a caller that
wants to save it passes a variable of its own.
"""

from __future__ import annotations

import secrets
import weakref
from typing import Any

import numpy as np
import tensorflow as tf

from tfsampled._core.xla import variable_outside

# graph -> the variables that code traced into it reads. Graphs refer to variables by
# handle only, and a handle is void once its variable is gone.
_KEPT: weakref.WeakKeyDictionary[Any, list[tf.Variable]] = weakref.WeakKeyDictionary()
_INT32_MAX = 2**31 - 1


def traced_position() -> tf.Variable:
    """`[]` int64: the calls made so far of the sampler that is being traced."""
    return _keep(variable_outside(0, tf.int64, "sampler_position"))


def traced_class_weights(range_max: int) -> tf.Variable:
    """`[range_max]` int64: what `learned_unigram` starts from, each class seen once."""
    return _keep(
        variable_outside(np.ones([range_max], np.int64), tf.int64, "class_weights")
    )


def _keep(variable: tf.Variable) -> tf.Variable:
    graph = tf.compat.v1.get_default_graph()
    # Graphs of functions only: the graph outside them all would keep it for good.
    while hasattr(graph, "outer_graph"):
        _KEPT.setdefault(graph, []).append(variable)
        graph = graph.outer_graph
    return variable


def next_call(position: tf.Variable) -> tf.Tensor:
    """The number of this call, from 0; the next one gets the next number."""
    return position.assign_add(1, read_value=True) - 1


def key_and_counter(seeds: tuple[Any, Any]) -> tuple[int, int]:
    """The pair of `get_seed` as two ints; random ones where TensorFlow's are."""
    seed, seed2 = (0 if seed is None else int(seed) for seed in seeds)
    if seed == 0 and seed2 == 0:
        return secrets.randbits(64), secrets.randbits(64)
    return seed, seed2


def count_labels(
    class_weights: tf.Variable, labels: tf.Tensor, total: tf.Tensor
) -> Any:
    """Adds one to the weight of each label, as long as the sum fits an int32.

    Args:
      class_weights: `[range_max]` int64.
      labels: int64, any shape; those outside the range count nowhere.
      total: `[]` int32, the sum of the weights.

    Returns:
      What has to run for the weights to change.
    """
    labels = tf.reshape(labels, [-1])
    counted = (
        (labels >= 0)
        & (labels < class_weights.shape[0])
        & (tf.range(tf.size(labels)) < _INT32_MAX - total)
    )
    return class_weights.scatter_add(
        tf.IndexedSlices(tf.cast(counted, tf.int64), tf.where(counted, labels, 0))
    )
