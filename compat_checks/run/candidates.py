"""The candidates of a case, always drawn by TensorFlow's own samplers."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import tensorflow as tf

from compat_checks.cases.case import Case
from compat_checks.run import modes
from compat_checks.run.call_bodies import default_draw_body
from compat_checks.run.problem import Problem, SampledValues, reshape_counts


def add_sampled_values(case: Case, problem: Problem) -> Problem:
    """Draws the argument `sampled_values` if the case names a sampler for it."""
    if case.sampler in (None, "numpy"):
        return problem
    name = f"{case.sampler}_candidate_sampler"
    sampler, kwargs = getattr(tf.random, name), sampler_arguments(case, name)
    tf.random.set_seed(5)
    calls = []
    for call in problem.calls:
        drawn = sampler(call.labels.astype(np.int64), **kwargs, seed=3)
        sampled_values = reshape_counts(
            case, len(call.upstream), SampledValues(*map(np.asarray, drawn))
        )
        calls.append(dataclasses.replace(call, sampled_values=sampled_values))
    return dataclasses.replace(problem, calls=calls)


def sampler_arguments(case: Case, name: str) -> dict[str, Any]:
    """Returns what the sampler `name` takes beside labels and seed."""
    kwargs: dict[str, Any] = {
        "num_true": case.num_true,
        "num_sampled": case.num_sampled,
        "unique": case.unique,
    }
    num_classes = case.effective_num_classes
    if name != "all_candidate_sampler":
        kwargs["range_max"] = num_classes
    if name == "fixed_unigram_candidate_sampler":
        kwargs["unigrams"] = [1.0 + (7 * i) % 11 for i in range(num_classes)]
        kwargs["distortion"] = 0.75
    return kwargs


def candidates_of_calls(case: Case, problem: Problem) -> list[SampledValues]:
    """Returns the candidates of each call: the argument, or what the loss draws.

    To know what the loss draws, TensorFlow's op is run by itself in the same mode from
    the same seeds.
    """
    if case.sampler is not None:
        values = [call.sampled_values for call in problem.calls]
        return [sampled_values for sampled_values in values if sampled_values]
    draw_case = case.replace(
        mode=case.reference_mode,
        table_type="tensor",
        weight_shards=0,
        bias_shards=0,
        name_scope=None,
    )
    outcome = modes.run(draw_case, problem, default_draw_body(case))
    return [SampledValues(**arrays) for arrays in outcome.results]
