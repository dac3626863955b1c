"""Calls a candidate sampler alone, several times, in the mode of a case."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from compat_checks.cases.case import EAGER, GRAPH, JIT, Case
from compat_checks.run import modes
from compat_checks.run.call_bodies import Library
from compat_checks.run.candidates import sampler_arguments


def run(case: Case, library: Library) -> list[list[np.ndarray]]:
    """Returns ids, expected counts of labels and of candidates, for each call."""
    sampler = library(case.path)
    kwargs = sampler_arguments(case, case.path.rsplit(".", 1)[1]) | {"seed": case.seed}

    def draw(labels: Any) -> Any:
        return tuple(sampler(true_classes=labels, **kwargs))

    if case.mode == GRAPH:
        return _run_in_session(case, draw)
    tf.random.set_seed(case.global_seed)
    if case.mode != EAGER:
        spec = tf.TensorSpec([None, case.num_true], tf.int64)
        draw = tf.function(
            draw,
            input_signature=[spec],
            autograph=False,
            jit_compile=case.mode == JIT,
        )
    return [[np.asarray(part) for part in draw(labels)] for labels in _labels(case)]


def _run_in_session(case: Case, draw: Callable[[Any], Any]) -> list[list[np.ndarray]]:
    with modes.new_graph(), modes.new_session() as session:
        tf.compat.v1.set_random_seed(case.global_seed)
        placeholder = tf.compat.v1.placeholder(tf.int64, [None, case.num_true])
        drawn = draw(placeholder)
        return [session.run(drawn, {placeholder: labels}) for labels in _labels(case)]


def _labels(case: Case) -> list[np.ndarray]:
    num_classes = case.effective_num_classes
    rng = np.random.default_rng(num_classes)
    limit = case.num_sampled if "all_candidate" in case.path else num_classes
    return [rng.integers(0, limit, (size, case.num_true)) for size in case.batch_sizes]
