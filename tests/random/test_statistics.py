"""Over many draws, classes are sampled as often as the expected counts say."""

import numpy as np
import pytest
import tensorflow as tf

import tfsampled
from tests.helpers import SAMPLERS, sampler_arguments

CALLS = 2000
CLASSES = 40
NUM_SAMPLED = 10
# A test of 40 classes fails on right code with a probability below 1e-6: Bonferroni
# over the classes, P(|z| > 5.8) = 6.6e-9 < 1e-6 / 40, the frequencies taken as normal.
Z = 5.8
# TensorFlow takes the number of tries for fixed. For a class that is nearly always
# among 10 of 40 that overstates by this much; it does not depend on the draws.
APPROXIMATION = 0.07


def _inclusion(p):
    """The chance that a class is among the first `NUM_SAMPLED` different ones.

    Let class `v` ring at times of rate `p[v]`: the order of first rings is that of
    first draws. So `v` is in if fewer than `NUM_SAMPLED` others rang before it:
    `E[P(fewer than NUM_SAMPLED others by T)]` with `T` exponential of rate `p[v]`.
    """
    u = (np.arange(2000) + 0.5) / 2000
    chances = []
    for v, rate in enumerate(p):
        times = -np.log1p(-u) / rate
        rang = -np.expm1(-np.delete(p, v)[:, np.newaxis] * times)
        count = np.zeros([NUM_SAMPLED, len(times)])
        count[0] = 1.0
        for q in rang:
            count[1:] = count[1:] * (1 - q) + count[:-1] * q
            count[0] *= 1 - q
        chances.append(np.mean(np.sum(count, axis=0)))
    return np.array(chances)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sampler", "unique"),
    [
        *((sampler, unique) for sampler in SAMPLERS for unique in (False, True)),
    ],
)
def test_inclusion_frequencies_agree_with_expected_counts(sampler, unique):
    function = getattr(tfsampled.random, f"{sampler}_candidate_sampler")
    arguments = sampler_arguments(sampler, NUM_SAMPLED, unique, CLASSES, seed=1)
    every_class = tf.range(CLASSES, dtype=tf.int64)[:, tf.newaxis]

    @tf.function(jit_compile=True)
    def many():
        def turn(i, seen, expected):
            drawn = function(every_class, 1, **arguments)
            ones = tf.ones_like(drawn.sampled_candidates, tf.float64)
            seen += tf.math.unsorted_segment_sum(ones, drawn[0], CLASSES)
            return i + 1, seen, expected + tf.cast(drawn[1][:, 0], tf.float64)

        zeros = tf.zeros([CLASSES], tf.float64)
        return tf.while_loop(lambda i, *_: i < CALLS, turn, [0, zeros, zeros])[1:]

    seen, expected = (x.numpy() / CALLS for x in many())
    if sampler == "all":
        np.testing.assert_array_equal(seen, expected)
        return
    assert np.sum(seen) == pytest.approx(NUM_SAMPLED)
    if unique:
        with_copies = sampler_arguments(sampler, NUM_SAMPLED, False, CLASSES, seed=1)
        p = function(every_class, 1, **with_copies)[1].numpy()[:, 0]
        truth = _inclusion(p.astype(np.float64) / NUM_SAMPLED)
        assert np.max(np.abs(expected - truth)) < APPROXIMATION
        deviation = np.sqrt(truth * (1 - truth) / CALLS)
    else:
        truth = expected
        deviation = np.sqrt(truth * (1 - truth / NUM_SAMPLED) / CALLS)
    assert np.all(np.abs(seen - truth) <= Z * deviation + 1e-6)


def test_a_wrong_distribution_would_be_noticed():
    """The tolerance above tells log-uniform draws from uniform counts."""
    draw = tf.function(tfsampled.random.log_uniform_candidate_sampler)
    drawn = [draw([[0]], 1, 10, False, CLASSES, seed=1)[0] for _ in range(200)]
    seen = np.bincount(np.concatenate(drawn), minlength=CLASSES) / len(drawn)
    allowed = Z * np.sqrt(10 / CLASSES / len(drawn))
    assert np.max(np.abs(seen - 10 / CLASSES)) > allowed
