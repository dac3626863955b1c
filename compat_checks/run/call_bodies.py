"""What is run in a mode: a loss with its gradients, or a sampler alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from compat_checks.cases.case import GRAPH, Case
from compat_checks.run.modes import Body, Feed
from compat_checks.run.problem import Problem

Subject = Callable[[str], Callable[..., Any]]
"""A library under test: path, such as "compat.v1.nn.nce_loss", -> function."""


def arguments(case: Case, tables: dict[str, Any], feed: Feed) -> dict[str, Any]:
    """The keyword arguments of the call under test."""
    kwargs: dict[str, Any] = {
        "weights": tables["weights"][0],
        "biases": tables["biases"][0],
        "labels": feed["labels"],
        "inputs": feed["inputs"],
        "num_sampled": case.num_sampled,
        "num_classes": case.classes,
        "num_true": case.num_true,
    }
    if "ids" in feed:
        counts = feed["true_count"], feed["sampled_count"]
        kwargs["sampled_values"] = (feed["ids"], *counts)
    optional = {
        "remove_accidental_hits": case.remove_hits,
        "partition_strategy": case.partition,
        "seed": case.seed,
        "name": case.scope,
    }
    return kwargs | {key: value for key, value in optional.items() if value is not None}


def loss_body(subject: Subject, case: Case, problem: Problem) -> Body:
    """The loss of `subject`, with gradients and, on request, second derivatives."""
    function = subject(case.path)

    def body(tables: dict[str, Any], feed: Feed) -> dict[str, Any]:
        sources = {"inputs": feed["inputs"]}
        directions = [feed["direction"]]
        along = {
            "weights": problem.weight_directions,
            "biases": problem.bias_directions,
        }
        for name, arrays in along.items():
            for shard, source in enumerate(tables[name][1]):
                sources[f"{name}[{shard}]"] = source
                directions.append(tf.constant(arrays[shard]))
        in_graph = case.mode == GRAPH
        with _Tape(sources, case.second, in_graph) as outer:
            with _Tape(sources, True, in_graph) as inner:
                for _ in range(case.before):
                    function(**arguments(case, tables, feed))
                loss = function(**arguments(case, tables, feed))
            gradients = inner.gradient(loss, feed["upstream"])
            if case.second:
                slope = _along(gradients.values(), directions)
        out = {"loss": loss, **gradients}
        if case.second:
            second = outer.gradient(slope, None)
            out |= {f"second {name}": value for name, value in second.items()}
        return out

    return body


def sampler_body(case: Case) -> Body:
    """TensorFlow's own draw, with the seeds of the case, as the loss makes it.

    `compute_accidental_hits` takes an op seed of its own, so that where only the
    global seed is set the loss uses up two seeds a call.
    """

    def draw(classes: tf.Tensor) -> Any:
        drawn = tf.random.log_uniform_candidate_sampler(
            true_classes=classes,
            num_true=case.num_true,
            num_sampled=case.num_sampled,
            unique=True,
            range_max=case.classes,
            seed=case.seed,
        )
        if case.hits_removed:
            tf.nn.compute_accidental_hits(classes, drawn[0], case.num_true)
        return drawn

    def body(tables: dict[str, Any], feed: Feed) -> dict[str, Any]:
        del tables
        classes = tf.cast(feed["labels"], tf.int64)
        for _ in range(case.before):
            draw(classes)
        names = ("ids", "true_count", "sampled_count")
        return dict(zip(names, draw(classes), strict=True))

    return body


class _Tape:
    """Gradients by a GradientTape, or by tf.gradients in a v1 graph."""

    def __init__(self, sources: dict[str, Any], needed: bool, in_graph: bool):
        self.sources = sources
        self.in_graph = in_graph
        self.tape = tf.GradientTape() if needed and not self.in_graph else None

    def __enter__(self) -> _Tape:
        if self.tape is not None:
            self.tape.__enter__()
            self.tape.watch(list(self.sources.values()))
        return self

    def __exit__(self, *exception: Any) -> None:
        if self.tape is not None:
            self.tape.__exit__(*exception)

    def gradient(self, target: Any, upstream: Any) -> dict[str, Any]:
        sources = list(self.sources.values())
        if self.in_graph:
            got = tf.gradients(
                target, sources, None if upstream is None else [upstream]
            )
        else:
            assert self.tape is not None
            got = self.tape.gradient(target, sources, output_gradients=upstream)
        return dict(zip(self.sources, got, strict=True))


def _along(gradients: Any, directions: list[tf.Tensor]) -> tf.Tensor:
    """<gradient, direction>, summed over the sources."""
    parts = []
    for gradient, direction in zip(gradients, directions, strict=True):
        if isinstance(gradient, tf.IndexedSlices):
            direction = tf.gather(direction, gradient.indices)
            gradient = gradient.values
        parts.append(tf.reduce_sum(gradient * direction))
    return tf.add_n(parts)
