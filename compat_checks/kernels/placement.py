"""Finds where the operations of a traced function run on a machine with a GPU.

TensorFlow built with CUDA registers its GPU kernels on a machine without a GPU too. An
operation runs on the GPU if one of them takes its dtypes; even so some of its arguments
may lie in host memory. From this follows what is copied between the two.

A read costs most: a value computed on the GPU that an operation on the host needs, so
that the step waits for the GPU. Copies to the GPU are asynchronous.
"""

from __future__ import annotations

import dataclasses
import functools
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import tensorflow as tf

# If TensorFlow moves them, tests/compat_checks/test_kernels.py tells.
from tensorflow.python.framework import kernels as _kernels
from tensorflow.python.framework import op_def_registry as _op_defs

HOST, GPU, CONSTANT = "host", "GPU", "constant"
# The logical device in place of the GPU while a function is traced.
GPU_STAND_IN = "CPU:1"

_BRANCHES = {"If", "StatelessIf", "Case", "StatelessCase"}
_LOOPS = {"While", "StatelessWhile"}
# Removed by TensorFlow before a graph runs.
_IDENTITIES = {"Identity", "StopGradient", "PreventGradient", "Snapshot"}
_NO_DATA = {tf.resource.as_datatype_enum, tf.variant.as_datatype_enum}
# The host reads how large their results are.
_SIZED_BY_DATA = {"DynamicPartition", "ListDiff", "Unique", "UniqueV2", "Where"}
_INT32 = tf.int32.as_datatype_enum


@dataclasses.dataclass
class Placement:
    """What runs on the host, and what is copied.

    Attributes:
        operations: How many operations there are.
        without_kernel: Those that have no GPU kernel, such as "Min int64": how many.
        reads: Values computed on the GPU and read on the host, such as
            "Less -> Assert": how many.
        copies: Values of operations on the host that are read on the GPU, likewise.
    """

    operations: int = 0
    without_kernel: Counter[str] = dataclasses.field(default_factory=Counter)
    reads: Counter[str] = dataclasses.field(default_factory=Counter)
    copies: Counter[str] = dataclasses.field(default_factory=Counter)


class _Tensor(NamedTuple):
    """A tensor of a function: where it lies, its dtype, what computes it."""

    place: str
    dtype: int
    source: str
    on_host: bool = False  # computed by an operation that runs on the host


class _Kernel(NamedTuple):
    """A kernel of an operation: the dtypes it takes, its arguments in host memory."""

    dtypes: dict[str, set[int]]
    host_arguments: frozenset[str]


def has_gpu_kernels() -> bool:
    """Returns whether this TensorFlow was built with CUDA."""
    registered = _kernels.get_registered_kernels_for_op("MatMul").kernel
    return any(kernel.device_type == "GPU" for kernel in registered)


def find_placement(function: Any, host_arguments: Sequence[str] = ()) -> Placement:
    """Finds where the operations of a concrete function run.

    Args:
        function: What `get_concrete_function` returned under
            `tf.device(GPU_STAND_IN)`; a node on "CPU:0" is one for the host.
        host_arguments: The names of arguments that lie on the host, such as the labels
            from a `tf.data.Dataset`.
    """
    library = function.graph.as_graph_def().library.function
    walk = _Walk({body.signature.name: body for body in library})
    definition, captures = function.function_def, function.captured_inputs
    tensors = []
    for index, argument in enumerate(definition.signature.input_arg):
        capture = index - len(function.inputs) + len(captures)
        if capture >= 0:
            on_host = captures[capture].device.endswith("CPU:0")
        else:
            on_host = argument.name in host_arguments or argument.type == _INT32
        tensors.append(_Tensor(HOST if on_host else GPU, argument.type, "argument"))
    walk.run(definition, tensors)
    return walk.placement


class _Walk:
    """Follows the tensors through a function and those that it calls."""

    def __init__(self, library: dict[str, Any]) -> None:
        self.placement = Placement()
        self._library = library

    def run(self, body: Any, arguments: Sequence[_Tensor]) -> list[_Tensor]:
        """Follows a body; returns its results."""
        names = [argument.name for argument in body.signature.input_arg]
        tensors = dict(zip(names, arguments, strict=True))
        moved: set[tuple[str, str]] = set()  # once copied, a value is on both sides
        for node in body.node_def:
            inputs = [name for name in node.input if not name.startswith("^")]
            outputs = self._node(node, inputs, tensors, moved)
            for name, tensor in outputs:
                tensors[f"{node.name}:{name}"] = tensor
        return [tensors[body.ret[out.name]] for out in body.signature.output_arg]

    def _node(
        self,
        node: Any,
        inputs: list[str],
        tensors: dict[str, _Tensor],
        moved: set[tuple[str, str]],
    ) -> Iterator[tuple[str, _Tensor]]:
        """Counts an operation; yields its outputs by name, such as "z:0"."""
        definition = _op_defs.get(node.op)
        values = [tensors[name] for name in inputs]
        arguments = list(_flat(definition.input_arg, node))
        self.placement.operations += 1
        if node.op in _BRANCHES | _LOOPS or "f" in node.attr:
            results = self._call(node, values)
            outputs = _flat(definition.output_arg, node)
            for (name, index, _), result in zip(outputs, results, strict=True):
                yield f"{name}:{index}", result
            return
        if node.op in _IDENTITIES and not node.device.endswith("CPU:0"):
            yield "output:0", values[0]
            return
        kernel = _gpu_kernel(node)
        resources = [v.place for v in values if v.dtype in _NO_DATA]
        # An operation on a variable runs where that lies, whatever its device.
        on_host = HOST in resources if resources else node.device.endswith("CPU:0")
        if kernel is None and not on_host:
            self.placement.without_kernel[_signature(node)] += 1
            on_host = True
        in_host_memory = frozenset() if kernel is None else kernel.host_arguments
        for key, value, (name, _, _) in zip(inputs, values, arguments, strict=True):
            if value.dtype in _NO_DATA or value.place == CONSTANT:
                continue
            edge = f"{value.source} -> {node.op}"
            place = HOST if on_host or name in in_host_memory else GPU
            if (key, place) in moved:
                continue
            if place == HOST and value.place == GPU:
                self.placement.reads[edge] += 1
                moved.add((key, place))
            if place == GPU and value.on_host:
                self.placement.copies[edge] += 1
                moved.add((key, place))
        if node.op in _SIZED_BY_DATA and not on_host:
            self.placement.reads[f"{node.op} -> its size"] += 1
        for name, index, dtype in _flat(definition.output_arg, node):
            place = HOST if on_host or name in in_host_memory else GPU
            if node.op == "Const":
                place = CONSTANT
            yield f"{name}:{index}", _Tensor(place, dtype, node.op, on_host)

    def _call(self, node: Any, values: list[_Tensor]) -> list[_Tensor]:
        """Follows what an operation calls."""
        if node.op in _BRANCHES:
            self._read_on_host(values[0], node.op)
            names = [f.name for f in node.attr["branches"].list.func] or [
                node.attr[branch].func.name for branch in ("then_branch", "else_branch")
            ]
            bodies = [self._library[name] for name in names]
            # One that ends in an error is not taken.
            taken = [b for b in bodies if all(n.op != "Assert" for n in b.node_def)]
            results = [self.run(body, values[1:]) for body in taken or bodies]
            return [_merge(same) for same in zip(*results, strict=True)]
        if node.op in _LOOPS:
            body = self._library[node.attr["body"].func.name]
            values = self._values_in_loop(body, values)
            (goes_on,) = self.run(self._library[node.attr["cond"].func.name], values)
            self._read_on_host(goes_on, node.op)
            return self.run(body, values)
        return self.run(self._library[node.attr["f"].func.name], values)

    def _values_in_loop(self, body: Any, values: list[_Tensor]) -> list[_Tensor]:
        """Returns where the values of a loop lie in any iteration."""
        while True:
            results = _Walk(self._library).run(body, values)
            merged = [_merge(pair) for pair in zip(values, results, strict=True)]
            if merged == values:
                return values
            values = merged

    def _read_on_host(self, value: _Tensor, reader: str) -> None:
        if value.place == GPU:
            self.placement.reads[f"{value.source} -> {reader}"] += 1


def _merge(results: Sequence[_Tensor]) -> _Tensor:
    """Returns a result of one branch or another, or of a loop's iterations."""
    return min(results, key=lambda result: (GPU, HOST, CONSTANT).index(result.place))


def _flat(arguments: Any, node: Any) -> Iterator[tuple[str, int, int]]:
    """Yields each argument of a node: its name, its index in a list, its dtype."""
    for argument in arguments:
        if argument.type_list_attr:
            dtypes = list(node.attr[argument.type_list_attr].list.type)
        else:
            dtype = argument.type or node.attr[argument.type_attr].type
            count = node.attr[argument.number_attr].i if argument.number_attr else 1
            dtypes = [dtype] * count
        for index, dtype in enumerate(dtypes):
            yield argument.name, index, dtype


def _gpu_kernel(node: Any) -> _Kernel | None:
    """Returns the GPU kernel that takes the dtypes of a node."""
    for kernel in _registered(node.op):
        if all(_types(node.attr[n]) <= types for n, types in kernel.dtypes.items()):
            return kernel
    return None


@functools.cache
def _registered(operation: str) -> list[_Kernel]:
    """Lists the kernels of an operation that run on a GPU, the GPU's own first."""
    registered = _kernels.get_registered_kernels_for_op(operation).kernel
    return [
        _Kernel(
            {c.name: set(c.allowed_values.list.type) for c in kernel.constraint},
            frozenset(kernel.host_memory_arg),
        )
        for device_type in ("GPU", "DEFAULT")
        for kernel in registered
        if kernel.device_type == device_type and not kernel.label
    ]


def _types(attribute: Any) -> set[int]:
    return {attribute.type} if attribute.type else set(attribute.list.type)


def _signature(node: Any) -> str:
    """Returns an operation with its dtypes, such as "Min int64"."""
    types = [t for name in sorted(node.attr) for t in _types(node.attr[name]) if t]
    names = dict.fromkeys(tf.as_dtype(dtype).name for dtype in types)
    return " ".join([node.op, *names])
