"""What TensorFlow knows and has no public name for; the only such imports are here."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

try:  # If TensorFlow moves it, tests/core/test_xla.py tells.
    from tensorflow.python.ops.resource_variable_ops import (
        ResourceVariable as _ResourceVariable,
    )
except ImportError:
    _ResourceVariable = None

_DATA_DEPENDENT_OPERATIONS = {"ListDiff", "Unique", "UniqueV2", "Where"}


def tracing_for_xla() -> bool:
    """Returns True while a `tf.function(jit_compile=True)` is traced; False if eager.

    It is also True inside the loops and branches of such a function, for replicas of a
    TPU, and in a plain `tf.function` that is first traced from inside one. A plain
    `tf.function` that was traced before, outside, is not traced again by TensorFlow: it
    keeps what was chosen then, and XLA refuses it.
    """
    if tf.executing_eagerly():
        return False
    graph = tf.compat.v1.get_default_graph()
    while graph is not None:
        context = graph._get_control_flow_context()
        while context is not None:
            if context.IsXLAContext():
                return True
            context = context.outer_context
        graph = getattr(graph, "outer_graph", None)
    return False


def size_depends_on_data(x: tf.Tensor) -> bool:
    """Returns whether a tensor has as many elements as its data say, like `tf.unique`.

    XLA compiles few operations on such tensors. An unknown size alone says nothing: of
    a function's argument it is known when XLA compiles.
    """
    pending = [x]
    while pending:
        tensor = pending.pop()
        if not tensor.shape.is_fully_defined():
            if tensor.op.type in _DATA_DEPENDENT_OPERATIONS:
                return True
            pending.extend(tensor.op.inputs)
    return False


def variable_outside(initial_value: Any, dtype: tf.DType, name: str) -> tf.Variable:
    """Makes a variable outside of the function that is being traced.

    If a `tf.function` made variables in its first trace, it refuses every `tf.Variable`
    in the second, in `tf.init_scope` too, but not the class behind `tf.Variable`.

    Args:
        initial_value: A NumPy array or number.
        dtype: The dtype of the variable.
        name: The name of the variable.
    """
    with tf.init_scope():
        if _ResourceVariable is None:
            return tf.Variable(
                initial_value,
                dtype=dtype,
                trainable=False,
                name=name,
                experimental_enable_variable_lifting=False,
            )
        return _ResourceVariable(initial_value, dtype=dtype, trainable=False, name=name)
