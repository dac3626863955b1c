"""The samplers draw what TensorFlow's draw, call by call."""

import inspect

import numpy as np
import pytest
import tensorflow as tf

import tfsampled
from tests.helpers import (
    MODES,
    SAMPLER_LABELS,
    SAMPLERS,
    assert_equal_draws,
    cases,
    sampler_arguments,
    slow,
)

# num_sampled, unique, range_max: all classes, many classes (hashed ids), with copies.
CONFIGURATIONS = [
    (3, True, 3),
    (300, True, 301),
    (2000, True, 3_000_000),
    (101, False, 70),
]
QUICK = [
    ("all", (300, True, 301)),
]


def candidate_sampler(module, sampler):
    return getattr(module, f"{sampler}_candidate_sampler")


def three_calls(module, sampler, mode, arguments):
    function = candidate_sampler(module, sampler)
    call = MODES[mode](lambda labels: function(labels, 2, **arguments))
    return [call(tf.constant(SAMPLER_LABELS)) for _ in range(3)]


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_signatures_equal_tensorflows(sampler):
    actual, expected = (
        inspect.signature(candidate_sampler(module, sampler))
        for module in (tfsampled.random, tf.random)
    )
    assert actual == expected


@pytest.mark.parametrize(
    ("sampler", "configuration"),
    cases(SAMPLERS, CONFIGURATIONS, quick=lambda *case: case in QUICK),
    ids=str,
)
def test_three_compiled_calls_equal_tensorflows_first_three(sampler, configuration):
    num_sampled, unique, range_max = configuration
    if range_max > 10**6 and sampler not in ("uniform", "log_uniform"):
        pytest.skip("a list of weights this long is in the slow tests")
    arguments = sampler_arguments(sampler, num_sampled, unique, range_max, seed=7)
    actual = three_calls(tfsampled.random, sampler, "jit", arguments)
    expected = three_calls(tf.random, sampler, "function", arguments)
    for a, b in zip(actual, expected, strict=True):
        assert_equal_draws(a, b)


@pytest.mark.parametrize("mode", ["eager", "function"])
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_three_calls_off_xla_equal_tensorflows(sampler, mode):
    arguments = sampler_arguments(sampler, 20, True, 30, seed=7)
    actual = three_calls(tfsampled.random, sampler, mode, arguments)
    tf.random.set_seed(20160410)
    expected = three_calls(tf.random, sampler, mode, arguments)
    for a, b in zip(actual, expected, strict=True):
        assert_equal_draws(a, b)


def test_eager_calls_share_tensorflows_position():
    arguments = sampler_arguments("uniform", 9, True, 1000, seed=3)
    expected = three_calls(tf.random, "uniform", "eager", arguments)
    tf.random.set_seed(20160410)
    modules = (tfsampled.random, tf.random, tfsampled.random)
    for module, draw in zip(modules, expected, strict=True):
        function = candidate_sampler(module, "uniform")
        assert_equal_draws(function(SAMPLER_LABELS, 2, **arguments), draw)


@pytest.mark.parametrize(
    ("global_seed", "seed"), [(5, None), slow(None, 5), slow(0, 0), slow(2**40, 2**35)]
)
def test_seeds_are_read_as_tensorflow_reads_them(global_seed, seed):
    def two_sites(module):
        """Two draws: without an operation seed the second's depends on the first."""
        function = candidate_sampler(module, "uniform")
        arguments = sampler_arguments("uniform", 8, False, 2**14, seed=seed)
        return [function(SAMPLER_LABELS, 2, **arguments) for _ in range(2)]

    tf.random.set_seed(global_seed)
    compiled = tf.function(lambda: two_sites(tfsampled.random), jit_compile=True)
    kernel = tf.function(lambda: two_sites(tf.random))
    for _ in range(2):
        for actual, expected in zip(compiled(), kernel(), strict=True):
            assert_equal_draws(actual, expected)


def test_without_seeds_each_trace_draws_other_ids():
    tf.random.set_seed(None)
    function = tfsampled.random.uniform_candidate_sampler
    first, second = (
        tf.function(lambda: function([[1]], 1, 8, False, 2**40), jit_compile=True)()
        for _ in range(2)
    )
    assert not np.array_equal(first[0], second[0])


@pytest.mark.slow
def test_fixed_unigram_reads_files_shards_and_reserved_ids(tmp_path):
    path = tmp_path / "vocabulary.csv"
    weights = np.random.default_rng(2).integers(0, 9, 102) / 4
    path.write_text("".join(f"word {i},x,{w}\n" for i, w in enumerate(weights)))
    arguments = {
        "num_sampled": 20,
        "unique": False,
        "range_max": 36,
        "vocab_file": str(path),
        "distortion": 0.6,
        "num_reserved_ids": 5,
        "num_shards": 3,
        "shard": 1,
        "seed": 4,
    }
    actual = three_calls(tfsampled.random, "fixed_unigram", "jit", arguments)
    expected = three_calls(tf.random, "fixed_unigram", "function", arguments)
    for a, b in zip(actual, expected, strict=True):
        assert_equal_draws(a, b)


def test_fixed_unigram_takes_an_array():
    draws = []
    for weights in (np.arange(1.0, 7.0), np.arange(1.0, 7.0).tolist()):
        tf.random.set_seed(3)
        function = tfsampled.random.fixed_unigram_candidate_sampler
        draws.append(function([[0]], 1, 3, True, 6, unigrams=weights, seed=1))
    assert_equal_draws(*draws)


def test_fixed_unigram_keeps_its_table_out_of_the_graph():
    def graph_bytes(range_max):
        arguments = sampler_arguments("fixed_unigram", 8, True, range_max, seed=1)
        sampler = tfsampled.random.fixed_unigram_candidate_sampler
        function = tf.function(
            lambda: sampler(SAMPLER_LABELS, 2, **arguments), jit_compile=True
        )
        return function.get_concrete_function().graph.as_graph_def().ByteSize()

    # Both have powers of two: equal ops. The table itself has 12 bytes a class.
    assert abs(graph_bytes(2**14) - graph_bytes(2**10)) < 2000


@pytest.mark.parametrize(
    ("sampler", "labels", "num_true", "num_sampled", "message"),
    [
        ("uniform", [[1, 2]], 1, 4, r"`true_classes` must have shape \(batch, num_tr"),
        ("log_uniform", [1], 1, 4, r"Received: shape=\(1,\), num_true=1"),
        ("all", [[1]], 0, 4, "`num_true` must be an int of at least 1"),
        ("learned_unigram", [[1]], 1, 0, "`num_sampled` must be an int of at least 1"),
        ("fixed_unigram", [[1]], 1, 11, "Received: num_sampled=11, range_max=10"),
    ],
)
def test_invalid_arguments_raise(sampler, labels, num_true, num_sampled, message):
    arguments = sampler_arguments(sampler, num_sampled, True, 10)
    with pytest.raises(ValueError, match=message):
        candidate_sampler(tfsampled.random, sampler)(labels, num_true, **arguments)


def test_too_many_classes_raise():
    with pytest.raises(ValueError, match="`range_max` must be at most 2147483646"):
        tfsampled.random.learned_unigram_candidate_sampler([[0]], 1, 1, True, 2**31)
    with pytest.raises(ValueError, match="Received: range_max=9223372036854775808"):
        tfsampled.random.uniform_candidate_sampler([[0]], 1, 1, True, 2**63)


def test_a_refused_draw_takes_no_seed():
    def draw(num_sampled=5):
        function = tfsampled.random.uniform_candidate_sampler
        return function([[0], [2]], 1, num_sampled, True, 9)[0].numpy()

    tf.random.set_seed(1)
    undisturbed = draw()
    tf.random.set_seed(1)
    with pytest.raises(ValueError, match="`num_sampled` must be at most `range_max`"):
        draw(100)
    np.testing.assert_array_equal(draw(), undisturbed)


@pytest.mark.parametrize(
    "sampler",
    [s if s == "uniform" else slow(s) for s in SAMPLERS],
)
def test_labels_out_of_range_raise_or_are_nan(sampler):
    arguments = sampler_arguments(sampler, 4, True, 10)
    function = candidate_sampler(tfsampled.random, sampler)
    for mode in ("eager", "function"):
        with pytest.raises(tf.errors.InvalidArgumentError, match=r"\[0, 10\).*-1"):
            MODES[mode](lambda labels: function(labels, 1, **arguments))([[3], [-1]])
    compiled = MODES["jit"](lambda labels: function(labels, 1, **arguments))
    count = compiled(tf.constant([[3], [-1], [10], [2**40]], tf.int64))[1].numpy()
    np.testing.assert_array_equal(np.isnan(count), [[False], [True], [True], [True]])


@pytest.mark.slow
def test_expected_counts_have_no_gradient():
    weights = tf.Variable([1.0, 2.0])

    @tf.function(jit_compile=True)
    def gradient():
        with tf.GradientTape() as tape:
            drawn = tfsampled.random.log_uniform_candidate_sampler(
                SAMPLER_LABELS, 2, 2, True, 50
            )
            loss = tf.reduce_sum(weights * drawn.sampled_expected_count)
        return tape.gradient(loss, weights), drawn.sampled_expected_count

    actual, expected = gradient()
    np.testing.assert_array_equal(actual.numpy(), expected.numpy())


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"unigrams": [1.0, 2.0], "num_reserved_ids": 4}, "by which 2 of 6 classes"),
        ({"unigrams": [1.0] * 5 + [-1.0]}, "Received: -1.0 for class 5"),
        ({"unigrams": [float("nan")] + [1.0] * 5}, "Received: nan for class 0"),
        ({"unigrams": [1e9] * 6, "distortion": 4.5}, "Received: inf for class 0"),
        ({"unigrams": [1e38] * 6}, "positive and finite sum in float32"),
        ({"unigrams": [0.0] * 6}, "positive and finite sum in float32"),
        # The third class has a probability of 0 in float32: TensorFlow's op, and a
        # head, would draw for good.
        ({"unigrams": [1.0] * 2 + [1e-9] * 4, "distortion": 5.0}, "by which 2 of 6"),
        ({"unigrams": [1.0] * 4}, "Received: range_max=6, 4 weights"),
        ({}, "Received: vocab_file='' and 0 unigrams"),
        ({"unigrams": [1.0] * 6, "vocab_file": "x"}, "'x' and 6 unigrams"),
        ({"vocab_file": "/no/such/file"}, "`vocab_file` must be an existing file"),
        ({"unigrams": [1.0] * 6, "num_shards": 2, "shard": 2}, "shard=2, num_shards=2"),
    ],
)
def test_invalid_weights_raise(weights, message):
    with pytest.raises(ValueError, match=message):
        tfsampled.random.fixed_unigram_candidate_sampler(
            [[0]], 1, 3, True, 6, **weights
        )


def test_an_invalid_vocabulary_raises(tmp_path):
    path = tmp_path / "vocabulary.csv"
    path.write_text("a,1\nb,many\n")
    with pytest.raises(ValueError, match=r"line 2 of .* is 'b,many'"):
        tfsampled.random.fixed_unigram_candidate_sampler(
            [[1]], 1, 1, True, 2, vocab_file=str(path)
        )
