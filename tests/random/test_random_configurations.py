"""Random configurations of the samplers: every id of three calls, in three modes."""

import numpy as np
import pytest
import tensorflow as tf

import tfsampled
from tests.helpers import MODES, assert_equal_draws, sampler_arguments

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("case", range(25))
@pytest.mark.parametrize(
    "sampler", ["uniform", "log_uniform", "learned_unigram", "fixed_unigram"]
)
def test_every_id_of_three_calls(sampler, case):
    rng = np.random.default_rng([case, len(sampler)])
    most = 7.0 if sampler in ("uniform", "log_uniform") else 5.0
    range_max = int(10 ** rng.uniform(np.log10(3), most))
    unique = bool(rng.integers(2))
    num_sampled = int(rng.integers(1, min(range_max, 2000) + 1 if unique else 2001))
    num_true = int(rng.integers(1, 4))
    labels = tf.constant(rng.integers(0, range_max, (rng.integers(1, 9), num_true)))
    seed = int(rng.integers(2**40))
    arguments = sampler_arguments(sampler, num_sampled, unique, range_max, seed=seed)

    def three(module, mode):
        tf.random.set_seed(case)
        function = getattr(module, f"{sampler}_candidate_sampler")
        call = MODES[mode](lambda x: function(x, num_true, **arguments))
        return [call(labels) for _ in range(3)]

    expected = three(tf.random, "function")
    for mode in MODES:
        for a, b in zip(three(tfsampled.random, mode), expected, strict=True):
            assert_equal_draws(a, b)
