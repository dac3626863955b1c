"""The samplers draw what TensorFlow's draw, call by call."""

import inspect

import numpy as np
import pytest
import tensorflow as tf

from tests.sampler_helpers import (
    LABELS,
    MODES,
    SAMPLERS,
    arguments,
    assert_equal_draws,
    mirror,
    tensorflows,
)
from tfsampled._core.candidate_sampling import distributions as draws
from tfsampled._core.candidate_sampling import samplers as candidates

# num_sampled, unique, range_max: all classes, a few of many, hashed ids, copies.
CONFIGURATIONS = [
    pytest.param((3, True, 3), marks=pytest.mark.slow),
    (300, True, 301),
    (2000, True, 3_000_000),
    (101, False, 70),
]


def _three_calls(sampler, function, mode, given):
    labels = tf.constant(LABELS)
    call = MODES[mode](lambda labels: function(labels, 2, **given))
    return [call(labels) for _ in range(3)]


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_signatures_are_tensorflows(sampler):
    ours, theirs = mirror(sampler), tensorflows(sampler)
    assert inspect.signature(ours) == inspect.signature(theirs)


@pytest.mark.parametrize("configuration", CONFIGURATIONS, ids=str)
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_three_compiled_calls_are_tensorflows_first_three(sampler, configuration):
    num_sampled, unique, range_max = configuration
    if range_max > 10**6 and sampler not in ("uniform", "log_uniform"):
        pytest.skip("a list of weights this long is in the slow tests")
    given = arguments(sampler, num_sampled, unique, range_max, seed=7)
    mine = _three_calls(sampler, mirror(sampler), "jit", given)
    theirs = _three_calls(sampler, tensorflows(sampler), "function", given)
    for a, b in zip(mine, theirs, strict=True):
        assert_equal_draws(a, b)


@pytest.mark.parametrize("mode", ["eager", "function"])
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_off_xla_three_calls_are_tensorflows(sampler, mode):
    given = arguments(sampler, 20, True, 30, seed=7)
    mine = _three_calls(sampler, mirror(sampler), mode, given)
    tf.random.set_seed(20160410)
    theirs = _three_calls(sampler, tensorflows(sampler), mode, given)
    for a, b in zip(mine, theirs, strict=True):
        assert_equal_draws(a, b)


def test_eager_calls_share_tensorflows_position():
    given = arguments("uniform", 9, True, 1000, seed=3)
    alone = _three_calls("uniform", tensorflows("uniform"), "eager", given)
    tf.random.set_seed(20160410)
    labels = tf.constant(LABELS)
    for function, expected in zip(
        (mirror("uniform"), tensorflows("uniform"), mirror("uniform")),
        alone,
        strict=True,
    ):
        assert_equal_draws(function(labels, 2, **given), expected)


@pytest.mark.parametrize(
    ("global_seed", "seed"), [(5, None), (None, 5), (5, 6), (0, 0), (2**40, 2**35)]
)
def test_seeds_are_read_as_tensorflow_reads_them(global_seed, seed):
    def two_sites(function):
        """Two draws: without an operation seed the second's depends on the first."""
        given = arguments("uniform", 8, False, 2**14, seed=seed)
        return function(LABELS, 2, **given), function(LABELS, 2, **given)

    tf.random.set_seed(global_seed)
    compiled = tf.function(lambda: two_sites(mirror("uniform")), jit_compile=True)
    kernel = tf.function(lambda: two_sites(tensorflows("uniform")))
    for _ in range(2):
        for mine, theirs in zip(compiled(), kernel(), strict=True):
            assert_equal_draws(mine, theirs)


def test_without_seeds_every_trace_draws_something_else():
    tf.random.set_seed(None)
    given = arguments("uniform", 8, False, 2**40)
    draws = [
        tf.function(lambda: mirror("uniform")(LABELS, 2, **given), jit_compile=True)()
        for _ in range(2)
    ]
    assert not np.array_equal(draws[0][0], draws[1][0])


def test_fixed_unigram_reads_files_shards_and_reserved_ids(tmp_path):
    path = tmp_path / "vocabulary.csv"
    weights = np.random.default_rng(2).integers(0, 9, 102) / 4
    path.write_text("".join(f"word {i},x,{w}\n" for i, w in enumerate(weights)))
    given = {
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
    name = "fixed_unigram"
    mine = _three_calls(name, mirror(name), "jit", given)
    theirs = _three_calls(name, tensorflows(name), "function", given)
    for a, b in zip(mine, theirs, strict=True):
        assert_equal_draws(a, b)


def test_fixed_unigram_handles_rejected_words():
    # Few words are rejected unless there are a billion classes: so this checks who
    # plays which part on a stream of its own.
    rejecting = np.random.default_rng(0).random(999) < 0.3
    is_float, at = draws._parts(tf.constant(rejecting))
    expected, floats, latest = [], [], -1
    column_next = False
    for place, rejected in enumerate(rejecting):
        expected.append(not column_next)
        if not column_next:
            latest, column_next = place, True
        else:
            column_next = bool(rejected)
        floats.append(latest)
    np.testing.assert_array_equal(is_float.numpy(), expected)
    np.testing.assert_array_equal(at.numpy(), floats)


def test_fixed_unigram_keeps_its_table_out_of_the_graph():
    def graph_bytes(range_max):
        given = arguments("fixed_unigram", 8, True, range_max, seed=1)
        function = tf.function(mirror("fixed_unigram"), jit_compile=True)
        graph = function.get_concrete_function(LABELS, 2, **given).graph
        return graph.as_graph_def().ByteSize()

    # Both have powers of two: equal ops. The table itself has 12 bytes a class.
    assert abs(graph_bytes(2**16) - graph_bytes(2**10)) < 2000


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize(
    ("labels", "num_true", "num_sampled", "message"),
    [
        ([[1, 2]], 1, 4, r"true_classes has shape \(1, 2\); it must be \[batch, num_t"),
        ([1], 1, 4, r"true_classes has shape \(1,\)"),
        ([[1]], 0, 4, "`num_true` must be an int of at least 1. Received: num_true=0"),
        (
            [[1]],
            1,
            0,
            "`num_sampled` must be an int of at least 1. Received: num_sampled=0",
        ),
        ([[1]], 1, 11, "num_sampled is 11, but there are 10 classes to draw from"),
    ],
)
def test_bad_arguments(sampler, mode, labels, num_true, num_sampled, message):
    given = arguments(sampler, num_sampled, True, 10)
    if sampler == "all":
        if num_sampled == 11:
            pytest.skip("its range is num_sampled")
        given["num_sampled"] = num_sampled
    with pytest.raises(ValueError, match=message):
        MODES[mode](lambda: mirror(sampler)(labels, num_true, **given))()


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_labels_out_of_range(sampler):
    given = arguments(sampler, 4, True, 10)
    for bad in (-1, 10, 2**40):
        labels = tf.constant([[3], [bad]], tf.int64)
        for mode in ("eager", "function"):
            call = MODES[mode](lambda x: mirror(sampler)(x, 1, **given))
            with pytest.raises(
                tf.errors.InvalidArgumentError, match=rf"\[0, 10\).*{bad}"
            ):
                call(labels)
    labels = tf.constant([[3], [-1], [10], [2**40]], tf.int64)
    count = MODES["jit"](lambda x: mirror(sampler)(x, 1, **given))(labels)[1].numpy()
    np.testing.assert_array_equal(np.isnan(count), [[False], [True], [True], [True]])


def test_a_vocabulary_without_numbers_is_refused(tmp_path):
    path = tmp_path / "vocabulary.csv"
    path.write_text("a,1\nb,many\n")
    with pytest.raises(ValueError, match=r"line 2: 'b,many' does not end in a number"):
        MODES["jit"](
            lambda: mirror("fixed_unigram")([[1]], 1, 1, True, 2, vocab_file=str(path))
        )()


def test_counts_have_no_gradient():
    weights = tf.Variable([1.0, 2.0])

    @tf.function(jit_compile=True)
    def gradient():
        with tf.GradientTape() as tape:
            drawn = candidates.log_uniform(LABELS, 2, 2, True, 50, (1, 2))
            loss = tf.reduce_sum(weights * drawn.sampled_expected_count)
        return tape.gradient(loss, weights), drawn.sampled_expected_count

    found, expected = gradient()
    np.testing.assert_array_equal(found.numpy(), expected.numpy())


BAD_WEIGHTS = [
    (
        {"unigrams": [1.0, 2.0], "num_reserved_ids": 4},
        "2 classes have a weight above 0",
    ),
    ({"unigrams": [1.0] * 5 + [-1.0]}, "the weight of class 5 is -1.0"),
    ({"unigrams": [float("nan")] + [1.0] * 5}, "the weight of class 0 is nan"),
    ({"unigrams": [1.0] * 4}, "range_max is 6, but 4 classes have a weight"),
    ({}, "from vocab_file or from unigrams, but neither were given"),
    ({"unigrams": [1.0] * 6, "vocab_file": "x"}, "but both were given"),
    ({"vocab_file": "/no/such/file"}, "vocab_file '/no/such/file' does not exist"),
    (
        {"unigrams": [1.0] * 6, "num_shards": 2, "shard": 2},
        "shard is 2 of num_shards 2",
    ),
]


@pytest.mark.parametrize("mode", MODES.values(), ids=MODES.keys())
@pytest.mark.parametrize(("given", "says"), BAD_WEIGHTS)
def test_weights_that_cannot_be_drawn_from(given, says, mode):
    draw = mode(lambda: mirror("fixed_unigram")([[0]], 1, 3, True, 6, **given))
    with pytest.raises(ValueError, match=says):
        draw()


def test_weights_in_an_array():
    drawn = []
    for weights in (np.arange(1.0, 7.0), np.arange(1.0, 7.0).tolist()):
        tf.random.set_seed(3)
        draw = mirror("fixed_unigram")([[0]], 1, 3, True, 6, unigrams=weights, seed=1)
        drawn.append(draw)
    assert_equal_draws(*drawn)
