"""Draws in tensor code: distributions, alias tables, rejected words, rounds."""

import numpy as np
import pytest
import tensorflow as tf

from tests.helpers import SAMPLER_LABELS, assert_equal_draws, slow
from tfsampled._core.candidate_sampling import (
    alias_method,
    distributions,
    philox,
    samplers,
    unique,
)

SEEDS = (11, 12)


def kernel(name, num_sampled, range_max, labels=SAMPLER_LABELS, **options):
    """TensorFlow's op, as a function with a kernel of its own."""
    op = getattr(tf.raw_ops, f"{name}CandidateSampler")
    return tf.function(
        lambda: op(
            true_classes=labels,
            num_true=labels.shape[1],
            num_sampled=num_sampled,
            unique=True,
            range_max=range_max,
            seed=SEEDS[0],
            seed2=SEEDS[1],
            **options,
        )
    )


@pytest.mark.parametrize(
    ("name", "range_max", "mode"),
    [
        slow("Uniform", 1000, "eager"),
        ("LogUniform", 10**6, "eager"),
        ("FixedUnigram", 1000, "eager"),
        slow("LogUniform", 10**6, "function"),
        slow("LogUniform", 10**6, "jit"),
        slow("FixedUnigram", 1000, "jit"),
    ],
)
def test_draws_with_an_owned_position_equal_tensorflows(name, range_max, mode):
    position = tf.Variable(0, dtype=tf.int64, trainable=False)
    weights = np.arange(1.0, 1001.0, dtype=np.float32)
    options = {}
    if name == "FixedUnigram":
        options = {"unigrams": weights.tolist()}
        table = alias_method.alias_table(weights)
        distribution = distributions.fixed_unigram(table)
    else:
        make = {
            "Uniform": distributions.uniform,
            "LogUniform": distributions.log_uniform,
        }
        distribution = make[name](range_max)

    def draw():
        stream = samplers.next_stream(position, SEEDS, 512 * 600)
        drawn = samplers.draw(distribution, range_max, 600, stream)
        return samplers.with_counts(drawn, tf.constant(SAMPLER_LABELS))

    if mode != "eager":
        draw = tf.function(draw, jit_compile=mode == "jit")
    expected = kernel(name, 600, range_max, **options)
    for _ in range(2):
        assert_equal_draws(draw(), expected())


@pytest.mark.slow
@pytest.mark.parametrize("jit_compile", [False, True])
def test_owned_class_weights_learn_as_tensorflows(jit_compile):
    position = tf.Variable(0, dtype=tf.int64, trainable=False)
    weights = tf.Variable(tf.ones([5], tf.int64), trainable=False)

    @tf.function(jit_compile=jit_compile)
    def draw():
        stream = samplers.next_stream(position, SEEDS, 512 * 4)
        labels = tf.constant(SAMPLER_LABELS)
        drawn = samplers.draw_and_learn(weights, labels, None, 4, stream)
        return samplers.with_counts(drawn, labels)

    expected = kernel("LearnedUnigram", 4, 5)
    for _ in range(3):
        assert_equal_draws(draw(), expected())
    counts = 1 + 3 * np.bincount(SAMPLER_LABELS.ravel(), minlength=5)
    np.testing.assert_array_equal(weights.numpy(), counts)


def test_learned_weights_grow_in_a_v1_graph():
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        get_variable = tf.compat.v1.get_variable
        position = get_variable("position", initializer=np.int64(0))
        weights = get_variable("weights", initializer=np.ones([5], "int64"))
        stream = samplers.next_stream(position, SEEDS, 512 * 2)
        labels = tf.constant([[1], [3]], tf.int64)
        draw = samplers.draw_and_learn(weights, labels, None, 2, stream).ids
        session.run(tf.compat.v1.global_variables_initializer())
        for _ in range(3):
            session.run(draw)
        assert session.run(position) == 3
        np.testing.assert_array_equal(session.run(weights), [1, 4, 1, 4, 1])


@pytest.mark.parametrize("make", [distributions.log_uniform, distributions.uniform])
def test_several_rounds_find_what_one_finds(make):
    propose = make(50).propose
    stream = philox.stream(SEEDS, tf.constant(0, tf.int64), 0)
    ids, num_tries = unique.sample_unique(propose, stream, 45, 2000)
    assert num_tries > 45
    by_rounds = unique.sample_unique(propose, stream, 45, 8)
    static = unique.sample_static(propose, stream, 45, True, 50, 8)
    for other in (by_rounds, static):
        np.testing.assert_array_equal(other[0], ids)
        np.testing.assert_array_equal(other[1], num_tries)


def test_rejected_words_shift_the_pairs():
    words = tf.constant([9, 0, 7, 8, 6, 5], tf.uint64)
    floats, columns, valid, used = distributions._resync_after_rejection(
        words[0::2], words[1::2], tf.constant(1, tf.uint64)
    )
    np.testing.assert_array_equal(valid, [True, True, False])
    np.testing.assert_array_equal(floats[:2], [9, 8])
    np.testing.assert_array_equal(columns[:2], [7, 6])
    assert int(used) == 5


def test_word_roles():
    # Few words are rejected unless there are a billion classes, so on made-up ones.
    rejecting = np.random.default_rng(0).random(999) < 0.3
    is_float, float_position = distributions._word_roles(tf.constant(rejecting))
    expected, positions, latest = [], [], -1
    is_column_next = False
    for position, rejected in enumerate(rejecting):
        expected.append(not is_column_next)
        if not is_column_next:
            latest, is_column_next = position, True
        else:
            is_column_next = bool(rejected)
        positions.append(latest)
    np.testing.assert_array_equal(is_float.numpy(), expected)
    np.testing.assert_array_equal(float_position.numpy(), positions)


def walker(weights):
    """The table as TensorFlow's kernel builds it, with two stacks."""
    total = np.add.accumulate(weights.astype(np.float64))[-1]
    shares = (weights * np.float32(len(weights))).astype(np.float64) / total
    small = np.flatnonzero(shares < 1).tolist()
    large = np.flatnonzero(shares >= 1).tolist()
    alias = np.arange(len(weights))
    while small and large:
        low, high = small.pop(), large.pop()
        alias[low] = high
        shares[high] -= 1 - shares[low]
        (small if shares[high] < 1 else large).append(high)
    shares[small + large] = 1
    alias[small + large] = small + large
    return shares.astype(np.float32), alias


@pytest.mark.parametrize(
    "make",
    [
        lambda rng, n: rng.integers(1, 50, n),
        lambda rng, n: np.tile([1, 2], n)[:n],  # shares next to 1, by rounding
        lambda rng, n: rng.lognormal(0, 4, n),
        lambda rng, n: rng.permutation(np.arange(n)) + 1 // n,
        lambda rng, n: np.ones(n),
    ],
)
def test_alias_table_equals_walkers_with_stacks(make):
    rng = np.random.default_rng(0)
    for n in (1, 2, 3, 7, 100, 1000):
        weights = make(rng, n).astype(np.float32)
        if not weights.any():
            continue
        table = alias_method.alias_table(weights)
        threshold, alias = walker(weights)
        np.testing.assert_array_equal(table.threshold, threshold)
        np.testing.assert_array_equal(table.alias, alias)
