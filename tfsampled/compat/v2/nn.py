"""The functions of `tf.compat.v2.nn`, which are those of `tfsampled.nn`."""

from tfsampled.nn import (
    all_candidate_sampler,
    compute_accidental_hits,
    fixed_unigram_candidate_sampler,
    learned_unigram_candidate_sampler,
    nce_loss,
    sampled_softmax_loss,
)

__all__ = [
    "all_candidate_sampler",
    "compute_accidental_hits",
    "fixed_unigram_candidate_sampler",
    "learned_unigram_candidate_sampler",
    "nce_loss",
    "sampled_softmax_loss",
]
