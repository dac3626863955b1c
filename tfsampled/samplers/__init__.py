"""Samplers for `tfsampled.layers.SampledSoftmax`: which classes a step looks at.

A sampler takes integer labels and returns class ids, the labels' expected counts and
the ids' expected counts. It owns its state, such as the number of calls so far, so it
draws the same ids in compiled code, and a run that is resumed from a checkpoint or a
`.keras` file draws what the uninterrupted run would have drawn.
"""

from __future__ import annotations

import keras

from tfsampled._core.candidate_sampling.samplers import Candidates
from tfsampled.samplers._base import Sampler
from tfsampled.samplers._in_batch import InBatch, Recent
from tfsampled.samplers._log_uniform import LogUniform
from tfsampled.samplers._mixed import Mixed
from tfsampled.samplers._uniform import Uniform
from tfsampled.samplers._unigram import FixedUnigram, LearnedUnigram

__all__ = [
    "Candidates",
    "FixedUnigram",
    "InBatch",
    "LearnedUnigram",
    "LogUniform",
    "Mixed",
    "Recent",
    "Sampler",
    "Uniform",
    "get",
]

_BY_NAME = {"log_uniform": LogUniform, "uniform": Uniform}


def get(
    identifier: str | Sampler, seed: int | keras.random.SeedGenerator | None = None
) -> Sampler:
    """Returns the sampler of a name, or the sampler itself.

    Args:
        identifier: `"log_uniform"`, `"uniform"` or a `Sampler`.
        seed: The seed of a sampler that is given by name.

    Raises:
        ValueError: If there is no such sampler, or `seed` is given with a `Sampler`.

    Example:
        >>> type(get("uniform", seed=3)).__name__
        'Uniform'
    """
    if isinstance(identifier, Sampler):
        if seed is not None:
            raise ValueError(
                "`seed` must be None if the sampler is an object, which has its own. "
                f"Received: seed={seed}. Pass {type(identifier).__name__}(seed={seed})."
            )
        return identifier
    if isinstance(identifier, str) and identifier in _BY_NAME:
        return _BY_NAME[identifier](seed=seed)
    raise ValueError(
        f"`sampler` must be one of {sorted(_BY_NAME)} or an object of "
        f"tfsampled.samplers. Received: sampler={identifier!r}."
    )
