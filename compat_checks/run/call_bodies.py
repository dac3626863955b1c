"""What is run: a loss with its gradients, or the draw that the loss makes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import tensorflow as tf

from compat_checks.cases.case import GRAPH, Case
from compat_checks.run.modes import Body, Feed, Tables
from compat_checks.run.problem import Problem, split_shards

Library = Callable[[str], Callable[..., Any]]
"""A library under test: the function at a path such as "compat.v1.nn.nce_loss"."""


def loss_body(library: Library, case: Case, problem: Problem) -> Body:
    """Returns the body of a loss, its gradients and, on request, second derivatives."""
    function = library(case.path)
    strategy = case.effective_partition_strategy
    table_directions = {
        "weights": split_shards(problem.weight_direction, case.weight_shards, strategy),
        "biases": split_shards(problem.bias_direction, case.bias_shards, strategy),
    }

    def body(tables: Tables, feed: Feed) -> dict[str, Any]:
        sources, directions = {"inputs": feed["inputs"]}, [feed["direction"]]
        for name, shards in table_directions.items():
            directions += [tf.constant(shard) for shard in shards]
            for index, source in enumerate(tables[name].sources):
                sources[f"{name}[{index}]"] = source
        in_graph = case.mode == GRAPH
        with _Gradients(sources, in_graph or not case.second_order) as second_tape:
            with _Gradients(sources, in_graph) as tape:
                for _ in range(case.earlier_calls):
                    function(**_arguments(case, tables, feed))
                loss = function(**_arguments(case, tables, feed))
            gradients = tape.gradients(loss, feed["upstream"])
            outputs = {"loss": loss, **gradients}
            if not case.second_order:
                return outputs
            derivative = _directional_derivative(gradients.values(), directions)
        second = second_tape.gradients(derivative, None)
        return outputs | {f"second {name}": value for name, value in second.items()}

    return body


def changed_body(
    library: Library, case: Case, change: Callable[[dict[str, Any]], dict[str, Any]]
) -> Body:
    """Returns the body of a loss alone, with some arguments changed."""

    def body(tables: Tables, feed: Feed) -> dict[str, Any]:
        arguments = _arguments(case, tables, feed)
        return {"loss": library(case.path)(**arguments | change(arguments))}

    return body


def _arguments(case: Case, tables: Tables, feed: Feed) -> dict[str, Any]:
    """Returns the keyword arguments of the call under test."""
    kwargs: dict[str, Any] = {
        "weights": tables["weights"].argument,
        "biases": tables["biases"].argument,
        "labels": feed["labels"],
        "inputs": feed["inputs"],
        "num_sampled": case.num_sampled,
        "num_classes": case.effective_num_classes,
        "num_true": case.num_true,
    }
    optional: dict[str, Any] = {
        "remove_accidental_hits": case.remove_hits,
        "partition_strategy": case.partition_strategy,
        "seed": case.seed,
        "name": case.name_scope,
    }
    if "ids" in feed:
        counts = feed["true_count"], feed["sampled_count"]
        optional["sampled_values"] = (feed["ids"], *counts)
    return kwargs | {key: value for key, value in optional.items() if value is not None}


class _Gradients:
    """Takes gradients with a GradientTape, or with tf.gradients in a v1 graph.

    Args:
        sources: What the gradients are taken by, by name.
        without_tape: Whether no tape is recorded.
    """

    def __init__(self, sources: dict[str, Any], without_tape: bool):
        self.sources = sources
        self.tape = None if without_tape else tf.GradientTape()

    def __enter__(self) -> _Gradients:
        if self.tape is not None:
            self.tape.__enter__()
            self.tape.watch(list(self.sources.values()))
        return self

    def __exit__(self, *exception: Any) -> None:
        if self.tape is not None:
            self.tape.__exit__(*exception)

    def gradients(self, target: Any, upstream: Any) -> dict[str, Any]:
        sources = list(self.sources.values())
        if self.tape is not None:
            values = self.tape.gradient(target, sources, output_gradients=upstream)
        else:
            values = tf.gradients(target, sources, upstream)
        return dict(zip(self.sources, values, strict=True))


def _directional_derivative(
    gradients: Iterable[Any], directions: list[tf.Tensor]
) -> tf.Tensor:
    """Returns the sum of `<gradient, direction>` over the sources."""
    products = []
    for gradient, direction in zip(gradients, directions, strict=True):
        if isinstance(gradient, tf.IndexedSlices):
            direction = tf.gather(direction, gradient.indices)
            gradient = gradient.values
        products.append(tf.reduce_sum(gradient * direction))
    return tf.add_n(products)


def default_draw_body(case: Case) -> Body:
    """Returns the body of the draw that TensorFlow's loss makes, with the same seeds.

    If only the global seed is set, each op that takes a seed gets the next one, and
    `compute_accidental_hits` is such an op.
    """

    def draw(labels: tf.Tensor) -> Any:
        drawn = tf.random.log_uniform_candidate_sampler(
            true_classes=labels,
            num_true=case.num_true,
            num_sampled=case.num_sampled,
            unique=True,
            range_max=case.effective_num_classes,
            seed=case.seed,
        )
        if case.effective_remove_hits:
            tf.nn.compute_accidental_hits(labels, drawn[0], case.num_true)
        return drawn

    def body(tables: Tables, feed: Feed) -> dict[str, Any]:
        del tables
        labels = tf.cast(feed["labels"], tf.int64)
        for _ in range(case.earlier_calls):
            draw(labels)
        names = ("ids", "true_count", "sampled_count")
        return dict(zip(names, draw(labels), strict=True))

    return body
