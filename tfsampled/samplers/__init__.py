"""Samplers for `tfsampled.layers.SampledSoftmax`: which classes a step looks at.

One protocol: integer labels in; class ids, the labels' expected counts and the ids'
expected counts out. A sampler owns its state, the number of calls so far first of all,
so that it draws in compiled code as outside it, and a run that goes on from a
checkpoint or a `.keras` file draws what the unbroken run would have drawn.
"""

from __future__ import annotations

from tfsampled._core.candidate_sampling.samplers import Candidates
from tfsampled.samplers._base import Sampler
from tfsampled.samplers._log_uniform import LogUniform
from tfsampled.samplers._uniform import Uniform
from tfsampled.samplers._unigram import FixedUnigram, LearnedUnigram

__all__ = [
    "Candidates",
    "FixedUnigram",
    "LearnedUnigram",
    "LogUniform",
    "Sampler",
    "Uniform",
    "get",
]

_BY_NAME = {"log_uniform": LogUniform, "uniform": Uniform}


def get(identifier: str | Sampler, seed: int | None = None) -> Sampler:
    """The sampler of a name, or the sampler itself.

    Args:
        identifier: `"log_uniform"`, `"uniform"` or a `Sampler`.
        seed: Of the sampler that is made from a name.

    Raises:
        ValueError: There is no such sampler, or it has its own seed.

    Example:
        >>> type(get("uniform", seed=3)).__name__
        'Uniform'
    """
    if isinstance(identifier, Sampler):
        if seed is not None:
            raise ValueError(
                f"seed is {seed}, but the sampler is an object, which has its own: "
                f"pass {type(identifier).__name__}(seed={seed}) instead."
            )
        return identifier
    if isinstance(identifier, str) and identifier in _BY_NAME:
        return _BY_NAME[identifier](seed=seed)
    raise ValueError(
        f"sampler is {identifier!r}; it must be one of {sorted(_BY_NAME)} or an object "
        "of tfsampled.samplers."
    )
