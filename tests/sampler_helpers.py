"""What the tests of the candidate samplers share: each sampler, ours and theirs."""

import numpy as np
import tensorflow as tf

from tfsampled import random as ours

LABELS = np.array([[0, 2], [1, 1], [2, 0]])
SAMPLERS = ["uniform", "log_uniform", "learned_unigram", "fixed_unigram", "all"]
MODES = {
    "eager": lambda f: f,
    "function": tf.function,
    "jit": lambda f: tf.function(f, jit_compile=True),
}


def mirror(sampler):
    return getattr(ours, f"{sampler}_candidate_sampler")


def tensorflows(sampler):
    return getattr(tf.random, f"{sampler}_candidate_sampler")


def arguments(sampler, num_sampled, unique, range_max, **more):
    """Everything but the labels and `num_true`, as keywords."""
    given = {"num_sampled": num_sampled, "unique": unique, "range_max": range_max}
    if sampler == "all":
        given.update(num_sampled=range_max)
        del given["range_max"]
    if sampler == "fixed_unigram":
        weights = np.random.default_rng(range_max).integers(1, 50, range_max)
        given.update(unigrams=weights.astype(float).tolist(), distortion=0.75)
    return given | more


def ulps(a, b):
    """The largest distance in units in the last place of two float32 arrays >= 0."""
    a, b = (np.asarray(x, np.float32).view(np.int32).astype(np.int64) for x in (a, b))
    return int(np.max(np.abs(a - b), initial=0))


def assert_equal_draws(mine, theirs):
    """Ids bit for bit, expected counts within 2 ulp, and dtypes and shapes."""
    for a, b in zip(mine, theirs, strict=True):
        assert a.dtype == b.dtype
        assert a.shape == b.shape
    np.testing.assert_array_equal(mine[0].numpy(), theirs[0].numpy())
    assert ulps(mine[1], theirs[1]) <= 2
    assert ulps(mine[2], theirs[2]) <= 2
