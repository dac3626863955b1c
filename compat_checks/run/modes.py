"""Runs one body eagerly, in a tf.function (compiled or not), or in a v1 Session.

A body is a function of (tables, feed): the two `Held` tables bound to tensors, and
a dict of tensors for one call. It returns a dict whose values are tensors,
IndexedSlices or None. Each mode starts from fresh seeds, so that two libraries that
draw candidates draw the same ones.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from compat_checks.cases import case as modes
from compat_checks.cases.case import Case
from compat_checks.run.problem import Call, Problem, Sampled
from compat_checks.run.table_types import Held, hold

Feed = dict[str, Any]
Body = Callable[[dict[str, tuple[Any, list[Any]]], Feed], dict[str, Any]]


@dataclasses.dataclass
class Outcome:
    """What came back: per call a dict of arrays; static facts of the first call.

    results: name -> NumPy array, (indices, values, dense shape) or None.
    static: name -> static shape where there is a graph. scopes: the outermost name
    scopes in the graph that begin with the case's scope.
    """

    results: list[dict[str, Any]]
    static: dict[str, tuple[int | None, ...] | None]
    dtypes: dict[str, str]
    scopes: tuple[str, ...] = ()


def run(case: Case, problem: Problem, body: Body) -> Outcome:
    """Runs `body` once for every call of the problem, in the case's mode."""
    runner = {
        modes.EAGER: _run_eager,
        modes.FUNCTION: _run_function,
        modes.STATIC: _run_function,
        modes.GRAPH: _run_graph,
        modes.JIT: _run_function,
    }[case.mode]
    return runner(case, problem, body)


def _fresh_seeds(case: Case) -> None:
    """Seeds as new, where ids are drawn: every kernel has to be built again for it."""
    if case.sampler is None:
        tf.random.set_seed(case.global_seed)


def _held(case: Case, problem: Problem) -> dict[str, Held]:
    bias_holder = case.holder
    if case.holder in ("sharded", "partitioned") and not case.bias_shards:
        bias_holder = "variable"
    return {
        "weights": hold(case.holder, problem.weights, case.weight_shards, "weights"),
        "biases": hold(bias_holder, problem.biases, case.bias_shards, "biases"),
    }


def _feed(call: Call) -> dict[str, np.ndarray]:
    feed = {
        "labels": call.labels,
        "inputs": call.inputs,
        "upstream": call.upstream,
        "direction": call.direction,
    }
    if call.sampled is not None:
        feed["ids"] = call.sampled.ids
        feed["true_count"] = call.sampled.true_count
        feed["sampled_count"] = call.sampled.sampled_count
    return feed


def _bind(held: dict[str, Held], fed: dict[str, list[Any]]) -> dict[str, Any]:
    return {name: table.bind(fed[name]) for name, table in held.items()}


def _numpy(tensor: Any) -> Any:
    if tensor is None:
        return None
    if hasattr(tensor, "dense_shape"):  # IndexedSlices, or their value in a Session
        parts = (tensor.indices, tensor.values, tensor.dense_shape)
        return tuple(None if part is None else np.asarray(part) for part in parts)
    return np.asarray(tensor)


def _facts(out: dict[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    static, dtypes = {}, {}
    for name, tensor in out.items():
        if tensor is None:
            continue
        shape = tensor.shape
        static[name] = None if shape.rank is None else tuple(shape.as_list())
        dtypes[name] = tensor.dtype.name
    return static, dtypes


def _run_eager(case: Case, problem: Problem, body: Body) -> Outcome:
    held = _held(case, problem)
    _fresh_seeds(case)
    fed = {name: [tf.constant(a) for a in table.fed] for name, table in held.items()}
    results, facts = [], None
    for call in problem.calls:
        feed = {name: tf.constant(array) for name, array in _feed(call).items()}
        if case.label_numpy:
            feed["labels"] = call.labels
        out = body(_bind(held, fed), feed)
        facts = facts or _facts(out)
        results.append({name: _numpy(tensor) for name, tensor in out.items()})
    static, dtypes = facts if facts is not None else ({}, {})
    return Outcome(results, static, dtypes)


def _specs(case: Case, problem: Problem) -> dict[str, tf.TensorSpec]:
    """Shapes of the first call; batch dimensions unknown unless the mode is static."""
    call = problem.calls[0]
    batch = call.upstream.shape[0]

    def shape(name: str, array: np.ndarray) -> list[int | None]:
        free = case.mode != modes.STATIC and name != "ids" and array.ndim
        if not free or array.shape[0] != batch or (batch == 1 and array.ndim == 1):
            return list(array.shape)
        if name == "sampled_count" and array.ndim == 1:
            return list(array.shape)
        return [None, *array.shape[1:]]

    return {
        name: tf.TensorSpec(shape(name, array), tf.as_dtype(array.dtype), name=name)
        for name, array in _feed(call).items()
    }


def _run_function(case: Case, problem: Problem, body: Body) -> Outcome:
    held = _held(case, problem)
    _fresh_seeds(case)
    tables = {
        name: [tf.TensorSpec(a.shape, tf.as_dtype(a.dtype)) for a in table.fed]
        for name, table in held.items()
    }
    traced: list[dict[str, Any]] = []

    @tf.function(
        input_signature=[tables, _specs(case, problem)],
        autograph=False,
        jit_compile=case.mode == modes.JIT,
    )
    def function(fed: dict[str, list[Any]], feed: Feed) -> dict[str, Any]:
        traced.append(body(_bind(held, fed), feed))
        return traced[-1]

    trace = function.get_concrete_function()  # one trace serves every batch size
    fed = {name: [tf.constant(a) for a in table.fed] for name, table in held.items()}
    results = []
    for call in problem.calls:
        feed = {name: tf.constant(array) for name, array in _feed(call).items()}
        out = trace(fed, feed)
        results.append({name: _numpy(tensor) for name, tensor in out.items()})
    return Outcome(results, *_facts(traced[0]), _scopes(case, trace.graph))


def _run_graph(case: Case, problem: Problem, body: Body) -> Outcome:
    with new_graph() as graph:
        tf.compat.v1.set_random_seed(case.global_seed)
        held = _held(case, problem)
        fed = {
            name: [
                tf.compat.v1.placeholder(tf.as_dtype(a.dtype), a.shape)
                for a in table.fed
            ]
            for name, table in held.items()
        }
        feed = {
            name: tf.compat.v1.placeholder(spec.dtype, spec.shape, name)
            for name, spec in _specs(case, problem).items()
        }
        out = body(_bind(held, fed), feed)
        fetches = {name: tensor for name, tensor in out.items() if tensor is not None}
        tables = {
            placeholder: array
            for name, table in held.items()
            for placeholder, array in zip(fed[name], table.fed, strict=True)
        }
        results = []
        with new_session() as session:
            session.run(tf.compat.v1.global_variables_initializer())
            for call in problem.calls:
                arrays = _feed(call)
                values = {feed[name]: array for name, array in arrays.items()}
                got = session.run(fetches, values | tables)
                results.append({name: _numpy(got.get(name)) for name in out})
    return Outcome(results, *_facts(out), _scopes(case, graph))


def _scopes(case: Case, graph: tf.Graph) -> tuple[str, ...]:
    """Outermost name scopes that the case's own `name` opened in `graph`."""
    if case.scope is None:
        return ()
    outermost = {
        op.name.split("/")[0] for op in graph.get_operations() if "/" in op.name
    }
    return tuple(sorted(name for name in outermost if name.startswith(case.scope)))


_devices = ["CPU:0"]  # the last is where things run now


@contextlib.contextmanager
def on_device(device: str) -> Iterator[None]:
    """Everything inside runs on `device`, in float32 proper (no TF32)."""
    allowed = tf.config.experimental.tensor_float_32_execution_enabled()
    tf.config.experimental.enable_tensor_float_32_execution(False)
    _devices.append(device)
    try:
        with tf.device(f"/{device}"):
            yield
    finally:
        _devices.pop()
        tf.config.experimental.enable_tensor_float_32_execution(allowed)


def new_session() -> tf.compat.v1.Session:
    """A session in which ops that a device lacks run on another."""
    config = tf.compat.v1.ConfigProto(allow_soft_placement=True)
    return tf.compat.v1.Session(config=config)


@contextlib.contextmanager
def new_graph() -> Iterator[tf.Graph]:
    """A v1 graph on the device of `on_device`, which a new graph does not inherit."""
    with tf.Graph().as_default() as graph, tf.device(f"/{_devices[-1]}"):
        yield graph


def as_sampled(arrays: dict[str, Any]) -> Sampled:
    return Sampled(arrays["ids"], arrays["true_count"], arrays["sampled_count"])
