"""The family of the candidate samplers alone."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from compat_checks.cases.case import EAGER, FUNCTION, GRAPH, JIT, Case

SAMPLERS = ("uniform", "log_uniform", "learned_unigram", "fixed_unigram", "all")
SEEDS = ((None, 17), (4, None), (4, 17), (0, 0))


def samplers() -> Iterator[Case]:
    """Yields every sampler in every mode, with varying sizes, replacement and seeds."""
    sizes = [(3, 3, 1), (40, 11, 2), (1000, 300, 1), (100_000, 2000, 2)]
    options = itertools.product(SAMPLERS, (EAGER, FUNCTION, GRAPH, JIT), (True, False))
    for number, (sampler, mode, unique) in enumerate(options):
        for num_classes, num_sampled, num_true in sizes:
            if mode == JIT and num_classes == 40:  # a compilation takes seconds
                continue
            seed, global_seed = SEEDS[number % len(SEEDS)]
            replacement = "unique" if unique else "duplicates"
            yield Case(
                f"samplers/{sampler} {num_sampled} of {num_classes} "
                f"{replacement} {mode}",
                kind="sampler",
                path=f"random.{sampler}_candidate_sampler",
                mode=mode,
                num_classes=num_classes,
                num_sampled=num_sampled,
                num_true=num_true,
                unique=unique,
                seed=seed,
                global_seed=global_seed,
                batch_sizes=(5, 5, 5) if mode == JIT else (5, 2, 7),
            )
    for sampler, mode in itertools.product(("uniform", "log_uniform"), (FUNCTION, JIT)):
        yield Case(
            f"samplers/{sampler} 2000 of 10000000 {mode}",
            kind="sampler",
            path=f"random.{sampler}_candidate_sampler",
            mode=mode,
            num_classes=10_000_000,
            num_sampled=2000,
            seed=9,
            batch_sizes=(5, 5, 5),
        )
