"""As `tf.compat.v2.nn`: the functions of `tfsampled.nn` that TensorFlow has."""

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
