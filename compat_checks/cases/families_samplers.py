"""Families of cases for samplers alone, and for losses under XLA."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from compat_checks.cases.case import EAGER, FUNCTION, GRAPH, JIT, Case
from compat_checks.cases.variants import LOSSES, V1, V2

SAMPLERS = ("uniform", "log_uniform", "learned_unigram", "fixed_unigram", "all")
SEEDS = ((None, 17), (4, None), (4, 17), (0, 0))


def samplers() -> Iterator[Case]:
    """Every sampler in every mode: range, sample size, replacement and seeds varied."""
    sizes = [(3, 3, 1), (40, 11, 2), (1000, 300, 1), (100_000, 2000, 2)]
    options = itertools.product(SAMPLERS, (EAGER, FUNCTION, GRAPH, JIT), (True, False))
    for number, (sampler, mode, unique) in enumerate(options):
        for classes, num_sampled, num_true in sizes:
            if mode == JIT and classes == 40:  # a compilation takes seconds
                continue
            seed, global_seed = SEEDS[number % len(SEEDS)]
            drawn = "unique" if unique else "duplicates"
            yield Case(
                f"samplers/{sampler} {num_sampled} of {classes} {drawn} {mode}",
                kind="draw",
                path=f"random.{sampler}_candidate_sampler",
                mode=mode,
                num_classes=classes,
                num_sampled=num_sampled,
                num_true=num_true,
                unique=unique,
                seed=seed,
                global_seed=global_seed,
                batches=(5, 5, 5) if mode == JIT else (5, 2, 7),
            )
    for sampler, mode in itertools.product(("uniform", "log_uniform"), (FUNCTION, JIT)):
        yield Case(
            f"samplers/{sampler} 2000 of 10000000 {mode}",
            kind="draw",
            path=f"random.{sampler}_candidate_sampler",
            mode=mode,
            num_classes=10_000_000,
            num_sampled=2000,
            seed=9,
            batches=(5, 5, 5),
        )


def jit() -> Iterator[Case]:
    """The losses under jit_compile=True, against TensorFlow's without it."""
    for loss, remove_hits, num_true in itertools.product(LOSSES, (True, False), (1, 3)):
        hits = "hits removed" if remove_hits else "hits kept"
        start = Case(
            f"jit/{loss} {hits} {num_true} true",
            path=V2 + loss,
            mode=JIT,
            remove_hits=remove_hits,
            num_true=num_true,
        )
        yield start.replace(batches=(5, 5, 5))
        yield start.replace(
            name=f"{start.name} duplicates",
            sampler="uniform",
            unique=False,
            rows=13,
            num_sampled=9,
        )
    for loss, partition in itertools.product(LOSSES, ("mod", "div")):
        yield Case(
            f"jit/{loss} {partition} 3 shards",
            path=V1 + loss,
            mode=JIT,
            partition=partition,
            weight_shards=3,
            bias_shards=3,
        )
    for loss, dtype in itertools.product(LOSSES, ("float16", "bfloat16", "float64")):
        yield Case(
            f"jit/{loss} {dtype}",
            path=V2 + loss,
            mode=JIT,
            dtype=dtype,
            # Counts of ours are within 2 ulp of float32: in float64 that would show.
            sampler="log_uniform" if dtype == "float64" else None,
            expect="beyond",
            remove_hits=True,
        )
    for loss in LOSSES:
        yield Case(f"jit/{loss} second", path=V2 + loss, mode=JIT, second=True)
