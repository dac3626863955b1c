"""Where a function runs: under XLA or not, on which device, with which variables.

The package's only imports of what TensorFlow has no public name for are here.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
from collections.abc import Callable, Iterator
from typing import Any

import tensorflow as tf

try:  # If TensorFlow moves it, tests/core/test_xla.py tells.
    from tensorflow.python.ops.resource_variable_ops import (
        ResourceVariable as _ResourceVariable,
    )
except ImportError:
    _ResourceVariable = None

_HOST = "CPU:0"
_FOR_XLA = contextvars.ContextVar("for_xla", default=False)
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
    if _FOR_XLA.get():
        return True
    graph = tf.compat.v1.get_default_graph()
    while graph is not None:
        context = graph._get_control_flow_context()
        while context is not None:
            if context.IsXLAContext():
                return True
            context = context.outer_context
        graph = getattr(graph, "outer_graph", None)
    return False


@contextlib.contextmanager
def traced_as(for_xla: bool) -> Iterator[None]:
    """Traces a gradient for XLA if its forward pass was.

    TensorFlow may trace the gradient of a compiled function after it has left it, and
    compiles it all the same.
    """
    token = _FOR_XLA.set(for_xla or _FOR_XLA.get())
    try:
        yield
    finally:
        _FOR_XLA.reset(token)


def refuse_xla() -> None:
    """Raises `ValueError` under XLA, which compiles for one device."""
    if tracing_for_xla():
        raise ValueError(
            "`jit_compile=True` is not possible with a table on several devices."
        )


@contextlib.contextmanager
def on_host() -> Iterator[None]:
    """Places operations on the host, except under XLA, which places none.

    Labels come from the host, and the sampling kernels run there. If a GPU checked the
    labels, the host would wait for it in each step; and a GPU has no kernels for some
    integers. Also a decorator.
    """
    with _host_unless(tracing_for_xla()):
        yield


def _host_unless(for_xla: bool) -> contextlib.AbstractContextManager[Any]:
    return contextlib.nullcontext() if for_xla else tf.device(_HOST)


def server_of(variable: Any) -> str | None:
    """Returns the device of a variable on a parameter server; None for others."""
    device = getattr(variable, "device", None) or ""
    return device if tf.DeviceSpec.from_string(device).job == "ps" else None


def constant_reader(array: Any) -> Callable[[], tf.Tensor]:
    """Returns what reads an array: on the host, except under XLA.

    The tensor is made once for each, in no graph: a graph only refers to it.
    """

    @functools.cache
    def constant(for_xla: bool) -> tf.Tensor:
        with tf.init_scope(), _host_unless(for_xla):
            return tf.constant(array)

    return lambda: constant(tracing_for_xla())


def can_branch_on_data() -> bool:
    """Returns whether control flow may depend on data without the host waiting for it.

    XLA compiles static shapes. With a GPU, the host would have to wait for its result.
    """
    return not tracing_for_xla() and not tf.config.list_physical_devices("GPU")


def size_depends_on_data(x: tf.Tensor) -> bool:
    """Returns whether a tensor has as many elements as its data say, like `tf.unique`.

    XLA compiles few operations on such tensors. An unknown size alone says nothing: of
    a function's argument it is known when XLA compiles.
    """
    pending, seen = [x], set()
    while pending:
        tensor = pending.pop()
        if id(tensor) not in seen and not tensor.shape.is_fully_defined():
            if tensor.op.type in _DATA_DEPENDENT_OPERATIONS:
                return True
            seen.add(id(tensor))
            pending.extend(tensor.op.inputs)
    return False


def variable_outside(initial_value: Any, dtype: tf.DType, name: str) -> tf.Variable:
    """Makes a variable outside of the function that is being traced.

    If a `tf.function` made variables in its first trace, it refuses every `tf.Variable`
    in the second, in `tf.init_scope` too, but not the class behind `tf.Variable`.
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
