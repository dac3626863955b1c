"""The candidates that enter a case: always TensorFlow's, by its own samplers."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import tensorflow as tf

from compat_checks.cases.case import Case
from compat_checks.run import modes
from compat_checks.run.call_bodies import sampler_body
from compat_checks.run.problem import Call, Problem, Sampled, shape_counts


def with_own_candidates(case: Case, problem: Problem) -> Problem:
    """Draws `sampled_values` for cases that hand them over."""
    if case.sampler in (None, "given"):
        return problem
    tf.random.set_seed(5)
    calls = []
    for call in problem.calls:
        drawn = _draw(case, call.labels.astype(np.int64))
        shaped = shape_counts(case, call, drawn)
        calls.append(dataclasses.replace(call, sampled=shaped))
    return dataclasses.replace(problem, calls=calls)


def _draw(case: Case, labels: np.ndarray) -> Sampled:
    name = f"{case.sampler}_candidate_sampler"
    drawn = getattr(tf.random, name)(labels, **sampler_arguments(case, name), seed=3)
    return Sampled(*(np.asarray(array) for array in drawn))


def sampler_arguments(case: Case, name: str) -> dict[str, Any]:
    """What the sampler `name` takes beside labels and seed."""
    kwargs: dict[str, Any] = {
        "num_true": case.num_true,
        "num_sampled": case.num_sampled,
        "unique": case.unique,
    }
    if name != "all_candidate_sampler":
        kwargs["range_max"] = case.classes
    if name == "fixed_unigram_candidate_sampler":
        kwargs["unigrams"] = [1.0 + (7 * i) % 11 for i in range(case.classes)]
        kwargs["distortion"] = 0.75
    return kwargs


def entering(case: Case, problem: Problem) -> list[Sampled]:
    """Per call, the candidates that enter: handed over, or drawn by the loss itself.

    For the default sampler TensorFlow's op is run by itself in the same mode, from
    the same seeds: the loss draws once per call, so the draws are the same.
    """
    if case.sampler is not None:
        return [call.sampled for call in problem.calls if call.sampled is not None]
    plain = case.replace(
        mode=case.reference_mode,
        holder="tensor",
        weight_shards=0,
        bias_shards=0,
        scope=None,
    )
    outcome = modes.run(plain, _labels_only(problem), sampler_body(case))
    return [modes.as_sampled(arrays) for arrays in outcome.results]


def _labels_only(problem: Problem) -> Problem:
    calls = [
        Call(call.labels, call.inputs, call.upstream, call.direction)
        for call in problem.calls
    ]
    nothing = [np.zeros((1, 1), np.float32)]
    return Problem(nothing, nothing, [], [], calls)
