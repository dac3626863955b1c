"""Runs a body eagerly, in a `tf.function` (compiled or not), or in a v1 Session.

A body takes the two tables and the tensors of one call, and returns a dict of tensors,
IndexedSlices and None. Every run starts from fresh seeds, so that two libraries draw
the same candidates.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from compat_checks.cases.case import EAGER, GRAPH, JIT, STATIC, Case
from compat_checks.run.problem import Call, Problem, split_shards
from compat_checks.run.table_types import BoundTable, Table, make_table

Tables = dict[str, BoundTable]  # "weights" and "biases"
Feed = dict[str, Any]  # the tensors of one call, by name
Body = Callable[[Tables, Feed], dict[str, Any]]


@dataclasses.dataclass
class Outcome:
    """What a body returned.

    Attributes:
        results: For each call, by name: a NumPy array, `(indices, values, dense shape)`
            of IndexedSlices, or None.
        static_shapes: Shapes known while tracing, by name; None if the rank is unknown.
        dtypes: Names of dtypes, by name.
        name_scopes: The outermost name scopes in the graph that begin with the case's.
        devices: Where the floating results were computed, by name, such as "CPU:0".
    """

    results: list[dict[str, Any]]
    static_shapes: dict[str, tuple[int | None, ...] | None]
    dtypes: dict[str, str]
    name_scopes: tuple[str, ...] = ()
    devices: dict[str, str] = dataclasses.field(default_factory=dict)


def run(case: Case, problem: Problem, body: Body) -> Outcome:
    """Runs `body` once for every call of the problem, in the mode of the case."""
    runner = _run_in_session if case.mode == GRAPH else _run
    return runner(case, problem, body)


def _run(case: Case, problem: Problem, body: Body) -> Outcome:
    """Runs `body` eagerly or in a `tf.function`."""
    tables = _make_tables(case, problem)
    if case.sampler is None:  # the loss draws
        tf.random.set_seed(case.global_seed)
    outputs: list[dict[str, Any]] = []

    def function(fed: dict[str, list[Any]], feed: Feed) -> dict[str, Any]:
        outputs.append(body(_bind(tables, fed), feed))
        return outputs[-1]

    name_scopes: tuple[str, ...] = ()
    call_function: Any = function
    if case.mode != EAGER:
        # One trace serves every batch size.
        signature = [
            tf.nest.map_structure(_spec, {k: t.arrays for k, t in tables.items()}),
            _feed_specs(case, problem),
        ]
        call_function = tf.function(
            function,
            input_signature=signature,
            autograph=False,
            jit_compile=case.mode == JIT,
        ).get_concrete_function()
        name_scopes = _name_scopes(case, call_function.graph)
    fed = {name: [*map(tf.constant, table.arrays)] for name, table in tables.items()}
    results = []
    for call in problem.calls:
        feed = {name: tf.constant(array) for name, array in _feed(call).items()}
        if case.numpy_labels and case.mode == EAGER:
            feed["labels"] = call.labels
        tensors = call_function(fed, feed)
        results.append(_as_numpy(tensors))
    facts = _static_facts(outputs[0])
    return Outcome(results, *facts, name_scopes, _devices_of(tensors))


def _run_in_session(case: Case, problem: Problem, body: Body) -> Outcome:
    """Runs `body` in a v1 graph and Session."""
    with new_graph() as graph:
        tf.compat.v1.set_random_seed(case.global_seed)
        tables = _make_tables(case, problem)
        fed = {
            name: [
                tf.compat.v1.placeholder(tf.as_dtype(a.dtype), a.shape)
                for a in table.arrays
            ]
            for name, table in tables.items()
        }
        feed = {
            name: tf.compat.v1.placeholder(spec.dtype, spec.shape, name)
            for name, spec in _feed_specs(case, problem).items()
        }
        outputs = body(_bind(tables, fed), feed)
        fetches = {name: out for name, out in outputs.items() if out is not None}
        table_values = {
            placeholder: array
            for name, table in tables.items()
            for placeholder, array in zip(fed[name], table.arrays, strict=True)
        }
        results = []
        options = tf.compat.v1.RunOptions(output_partition_graphs=True)
        metadata = tf.compat.v1.RunMetadata()
        with new_session() as session:
            session.run(tf.compat.v1.global_variables_initializer())
            for call in problem.calls:
                values = {feed[name]: array for name, array in _feed(call).items()}
                fetched = session.run(fetches, values | table_values, options, metadata)
                results.append(_as_numpy(dict.fromkeys(outputs) | fetched))
    facts, scopes = _static_facts(outputs), _name_scopes(case, graph)
    return Outcome(results, *facts, scopes, _devices_in_session(fetches, metadata))


def _make_tables(case: Case, problem: Problem) -> dict[str, Table]:
    def table(name: str, rows: np.ndarray, num_shards: int, table_type: str) -> Table:
        shards = split_shards(rows, num_shards, case.effective_partition_strategy)
        return make_table(table_type, shards, num_shards > 0, name)

    bias_type = case.table_type
    if bias_type in ("sharded", "partitioned") and not case.bias_shards:
        bias_type = "variable"
    return {
        "weights": table(
            "weights", problem.weights, case.weight_shards, case.table_type
        ),
        "biases": table("biases", problem.biases, case.bias_shards, bias_type),
    }


def _bind(tables: dict[str, Table], fed: dict[str, list[Any]]) -> Tables:
    return {name: table.bind(fed[name]) for name, table in tables.items()}


def _feed(call: Call) -> dict[str, np.ndarray]:
    arrays = {
        "labels": call.labels,
        "inputs": call.inputs,
        "upstream": call.upstream,
        "direction": call.direction,
    }
    if call.sampled_values is not None:
        arrays |= vars(call.sampled_values)
    return arrays


def _spec(array: np.ndarray) -> tf.TensorSpec:
    return tf.TensorSpec(array.shape, tf.as_dtype(array.dtype))


def _feed_specs(case: Case, problem: Problem) -> dict[str, tf.TensorSpec]:
    """Returns the shapes of the first call, without the batch size if it is unknown."""
    call = problem.calls[0]
    arrays = _feed(call)
    loss_size = len(call.upstream)

    def shape(name: str, array: np.ndarray) -> list[int | None]:
        has_no_batch = array.ndim == 1 and (name == "sampled_count" or loss_size == 1)
        no_batch = name == "ids" or has_no_batch
        is_known = case.static_batch or case.mode == STATIC
        if is_known or no_batch or array.shape[:1] != (loss_size,):
            return list(array.shape)
        return [None, *array.shape[1:]]

    return {
        name: tf.TensorSpec(shape(name, array), tf.as_dtype(array.dtype), name=name)
        for name, array in arrays.items()
    }


def _as_numpy(outputs: dict[str, Any]) -> dict[str, Any]:
    def convert(out: Any) -> Any:
        if out is None:
            return None
        if hasattr(out, "dense_shape"):  # IndexedSlices, or their value in a Session
            parts = (out.indices, out.values, out.dense_shape)
            return tuple(None if part is None else np.asarray(part) for part in parts)
        return np.asarray(out)

    return {name: convert(out) for name, out in outputs.items()}


def _devices_of(outputs: dict[str, Any]) -> dict[str, str]:
    """Returns where floating results lie."""
    return {
        name: out.device.split("device:")[-1]
        for name, out in _floating(outputs).items()
    }


def _devices_in_session(outputs: dict[str, Any], metadata: Any) -> dict[str, str]:
    """Returns where a run of a Session computed floating results."""
    nodes = (node for graph in metadata.partition_graphs for node in graph.node)
    devices = {node.name: node.device.split("device:")[-1] for node in nodes}
    return {name: devices[out.op.name] for name, out in _floating(outputs).items()}


def _floating(outputs: dict[str, Any]) -> dict[str, tf.Tensor]:
    tensors = {
        name: getattr(out, "values", out)
        for name, out in outputs.items()
        if out is not None
    }
    return {name: out for name, out in tensors.items() if out.dtype.is_floating}


def _static_facts(outputs: dict[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """Returns static shapes and dtypes."""
    tensors = {name: out for name, out in outputs.items() if out is not None}
    shapes = {
        name: None if out.shape.rank is None else tuple(out.shape.as_list())
        for name, out in tensors.items()
    }
    return shapes, {name: out.dtype.name for name, out in tensors.items()}


def _name_scopes(case: Case, graph: tf.Graph) -> tuple[str, ...]:
    if case.name_scope is None:
        return ()
    names = [op.name for op in graph.get_operations() if "/" in op.name]
    outermost = {name.split("/")[0] for name in names}
    return tuple(sorted(n for n in outermost if n.startswith(case.name_scope)))


_devices = ["CPU:0"]  # a stack: the last one is in use


@contextlib.contextmanager
def on_device(device: str, tf32: bool = False) -> Iterator[None]:
    """Runs the block on `device`; with `tf32` a GPU may round float32 factors."""
    allowed = tf.config.experimental.tensor_float_32_execution_enabled()
    tf.config.experimental.enable_tensor_float_32_execution(tf32)
    _devices.append(device)
    try:
        with tf.device(f"/{device}"):
            yield
    finally:
        _devices.pop()
        tf.config.experimental.enable_tensor_float_32_execution(allowed)


def new_session() -> tf.compat.v1.Session:
    """Returns a session that runs ops elsewhere if the device has no kernel."""
    config = tf.compat.v1.ConfigProto(allow_soft_placement=True)
    return tf.compat.v1.Session(config=config)


@contextlib.contextmanager
def new_graph() -> Iterator[tf.Graph]:
    """Enters a v1 graph on the device of `on_device`, which graphs do not inherit."""
    with tf.Graph().as_default() as graph, tf.device(f"/{_devices[-1]}"):
        yield graph
