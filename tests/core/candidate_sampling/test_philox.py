"""The words of TensorFlow's sampling kernels, and their exp."""

import numpy as np
import pytest
import tensorflow as tf

from tests.helpers import slow
from tfsampled._core.candidate_sampling import floor_exp, philox

KEYS = [(1, 2), (2**31 - 2, 87654321), (2**64 - 1, 2**63 + 5)]
some_keys = pytest.mark.parametrize("seeds", [slow(KEYS[0]), slow(KEYS[1]), KEYS[2]])


def _words(seeds, call, num_sampled, first, count, jit_compile):
    @tf.function(jit_compile=jit_compile)
    def draw(call, first):
        stream = philox.stream(seeds, call, philox.blocks_per_call(num_sampled))
        return philox.words(stream, first, count)

    return draw(tf.constant(call, tf.int64), tf.constant(first, tf.int64)).numpy()


@some_keys
def test_compiled_words_equal_those_of_tensorflows_generator(seeds):
    expected = _words(seeds, 3, 10, 0, 64, jit_compile=False)
    assert expected.max() < 2**32
    np.testing.assert_array_equal(_words(seeds, 3, 10, 0, 64, True), expected)
    np.testing.assert_array_equal(_words(seeds, 3, 10, 5, 40, True), expected[5:45])


@some_keys
def test_the_block_number_carries_into_the_upper_counter(seeds):
    # A first call that starts 511 blocks below 2**64, as TensorFlow's wrap has it.
    num_sampled = 2**21 - 1
    assert philox.blocks_per_call(num_sampled) == -511
    words = _words(seeds, 1, num_sampled, 0, 4 * 600, jit_compile=True)
    expected = _words(seeds, 1, num_sampled, 0, 4 * 600, jit_compile=False)
    np.testing.assert_array_equal(words, expected)
    later = _words(seeds, 1, num_sampled, 4 * 520, 80, jit_compile=True)
    np.testing.assert_array_equal(later, expected[4 * 520 : 4 * 540])


@pytest.mark.slow
@pytest.mark.parametrize("num_sampled", [2**20 - 1, 2**20, 2**21 - 1, 2**21, 2**21 + 5])
def test_calls_of_more_than_a_million_start_where_tensorflows_32_bits_wrap(num_sampled):
    arguments = {
        "true_classes": [[0]],
        "num_true": 1,
        "num_sampled": num_sampled,
        "unique": False,
        "range_max": 4096,
        "seed": 5,
        "seed2": 77,
    }
    for call in range(12):
        ids = tf.raw_ops.UniformCandidateSampler(**arguments).sampled_candidates
        step = philox.blocks_per_call(num_sampled)
        stream = philox.stream((5, 77), tf.constant(call, tf.int64), step)
        pairs = philox.pairs(stream, 0, 64)
        np.testing.assert_array_equal(pairs.numpy() % 4096, ids[:64].numpy())


@pytest.mark.parametrize("jit_compile", [False, True])
def test_floor_exp_is_that_of_the_c_library(jit_compile):
    rng = np.random.default_rng(1)
    x = rng.uniform(0.0, np.log(1e12), 20_000)
    expected = np.exp(x).astype(np.int64)
    # NumPy's vectorised exp may differ from the C library's by its last bit.
    near = np.abs(np.exp(x) - np.round(np.exp(x))) < 1e-14 * np.exp(x)
    functions = [floor_exp.floor_exp_exact, lambda v: floor_exp.floor_exp(v, 10**12)]
    for function in functions:
        ids = tf.function(function, jit_compile=jit_compile)(tf.constant(x)).numpy()
        np.testing.assert_array_equal(ids[~near], expected[~near])


def test_floor_exp_exact_next_to_integers():
    # log(n) rounded to float64 and its neighbours: exp on either side of n.
    n = np.arange(2, 3000, dtype=np.float64)
    for side in (-1, 1):
        x = np.log(n) * (1 + side * 2.0**-48)
        actual = floor_exp.floor_exp_exact(tf.constant(x)).numpy()
        np.testing.assert_array_equal(actual, n - (side < 0))


def test_pairs_are_words_two_by_two():
    stream = philox.stream(KEYS[1], tf.constant(2, tf.int64), 512)
    words = philox.words(stream, 8, 40).numpy()
    pairs = philox.pairs(stream, 8, 20)
    np.testing.assert_array_equal(pairs, words[0::2] + (words[1::2] << np.uint64(32)))
    compiled = tf.function(lambda: philox.pairs(stream, 8, 20), jit_compile=True)
    np.testing.assert_array_equal(compiled(), pairs)
