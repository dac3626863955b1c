"""A candidate sampler alone: three calls, ours beside TensorFlow's, in one mode."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from compat_checks.cases.case import EAGER, GRAPH, JIT, Case
from compat_checks.run import modes
from compat_checks.run.call_bodies import Subject
from compat_checks.run.candidates import sampler_arguments

COUNT_ULPS = 2
NAMES = ("ids", "true_expected_count", "sampled_expected_count")


def run(case: Case, subject: Subject) -> list[list[np.ndarray]]:
    """What the sampler of `case` returned for each of its calls."""
    sampler = subject(case.path)
    kwargs = sampler_arguments(case, case.path.rsplit(".", 1)[1]) | {"seed": case.seed}

    def draw(labels: Any) -> Any:
        return tuple(sampler(true_classes=labels, **kwargs))

    if case.mode == GRAPH:
        return _in_graph(case, draw)
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


def _in_graph(case: Case, draw: Any) -> list[list[np.ndarray]]:
    with modes.new_graph(), modes.new_session() as session:
        tf.compat.v1.set_random_seed(case.global_seed)
        fed = tf.compat.v1.placeholder(tf.int64, [None, case.num_true])
        drawn = draw(fed)
        return [session.run(drawn, {fed: labels}) for labels in _labels(case)]


def _labels(case: Case) -> list[np.ndarray]:
    rng = np.random.default_rng(case.classes)
    limit = case.num_sampled if "all_candidate" in case.path else case.classes
    return [rng.integers(0, limit, (batch, case.num_true)) for batch in case.batches]


def differences(
    ours: list[list[np.ndarray]], theirs: list[list[np.ndarray]]
) -> list[str]:
    """In words: ids that differ at all, counts further apart than COUNT_ULPS."""
    found = []
    for call, (mine, others) in enumerate(zip(ours, theirs, strict=True)):
        for name, a, b in zip(NAMES, mine, others, strict=True):
            where = f"call {call}: {name}"
            if (a.dtype, a.shape) != (b.dtype, b.shape):
                found.append(f"{where} is {a.dtype}{a.shape}, not {b.dtype}{b.shape}")
            elif name == "ids" and not np.array_equal(a, b):
                found.append(f"{where}: {np.sum(a != b)} of {a.size} differ")
            elif name != "ids" and _ulps(a, b) > COUNT_ULPS:
                found.append(f"{where} is {_ulps(a, b)} ulp away")
    return found


def _ulps(a: np.ndarray, b: np.ndarray) -> int:
    """Steps between two arrays of float32 numbers that are not negative."""
    steps = [x.astype(np.float32).view(np.int32).astype(np.int64) for x in (a, b)]
    return int(abs(steps[0] - steps[1]).max(initial=0))
