"""Where a compiled sampler stands in its stream, and how that is kept and saved."""

import gc
import weakref

import numpy as np
import pytest
import tensorflow as tf

from tests.sampler_helpers import (
    LABELS,
    arguments,
    assert_equal_draws,
    mirror,
    tensorflows,
)
from tfsampled._core.candidate_sampling import samplers as candidates
from tfsampled._core.candidate_sampling import state as sampler_state

SEEDS = (11, 12)


def _kernel():
    """TensorFlow's op with the same seeds, as a function with a kernel of its own."""
    given = arguments("uniform", 6, True, 2**10)
    return tf.function(
        lambda: tf.raw_ops.UniformCandidateSampler(
            true_classes=LABELS, num_true=2, seed=SEEDS[0], seed2=SEEDS[1], **given
        )
    )


def _compiled(position=None, jit_compile=True):
    return tf.function(
        lambda: candidates.uniform(LABELS, 2, 6, True, 2**10, SEEDS, position=position),
        jit_compile=jit_compile,
    )


def test_each_traced_function_starts_anew():
    first, second = _compiled(), _compiled()
    expected = [_kernel()() for _ in range(2)]
    for function in (first, second):
        assert_equal_draws(function(), expected[0])


def test_a_loop_calls_the_sampler_once_a_turn():
    @tf.function(jit_compile=True)
    def looped():
        def turn(i, rows):
            drawn = candidates.uniform(LABELS, 2, 6, True, 2**10, SEEDS)
            return i + 1, tf.tensor_scatter_nd_update(
                rows, [[i]], [drawn.sampled_candidates]
            )

        return tf.while_loop(lambda i, _: i < 3, turn, [0, tf.zeros([3, 6], tf.int64)])[
            1
        ]

    kernel = _kernel()
    rows = [kernel().sampled_candidates for _ in range(6)]
    np.testing.assert_array_equal(looped().numpy(), rows[:3])
    np.testing.assert_array_equal(looped().numpy(), rows[3:])


def test_state_goes_with_the_function_it_belongs_to():
    function = _compiled()
    function()
    held = [v for kept in sampler_state._KEPT.values() for v in kept]
    assert int(held[-1]) == 1
    position = weakref.ref(held[-1])
    del held
    gc.collect()
    assert position() is not None
    del function
    gc.collect()
    assert position() is None


@pytest.mark.parametrize("mode", ["eager", "function", "jit"])
def test_an_owned_position_is_saved_and_restored(mode, tmp_path):
    def sampler():
        position = tf.Variable(0, dtype=tf.int64, trainable=False)
        if mode == "eager":
            return position, lambda: candidates.uniform(
                LABELS, 2, 6, True, 2**10, SEEDS, position=position
            )
        return position, _compiled(position, mode == "jit")

    kernel = _kernel()
    expected = [kernel() for _ in range(4)]
    position, draw = sampler()
    for call in range(2):
        assert_equal_draws(draw(), expected[call])
    path = tf.train.Checkpoint(position=position).write(str(tmp_path / "state"))
    position, draw = sampler()
    tf.train.Checkpoint(position=position).read(path).assert_consumed()
    for call in range(2, 4):
        assert_equal_draws(draw(), expected[call])


@pytest.mark.parametrize("jit_compile", [False, True])
def test_owned_class_weights_learn_as_tensorflows(jit_compile):
    position = tf.Variable(0, dtype=tf.int64, trainable=False)
    weights = tf.Variable(tf.ones([5], tf.int64), trainable=False)

    @tf.function(jit_compile=jit_compile)
    def ours(labels):
        return candidates.learned_unigram(
            labels, 2, 4, True, 5, SEEDS, position=position, class_weights=weights
        )

    @tf.function
    def theirs(labels):
        return tf.raw_ops.LearnedUnigramCandidateSampler(
            true_classes=labels,
            num_true=2,
            num_sampled=4,
            unique=True,
            range_max=5,
            seed=SEEDS[0],
            seed2=SEEDS[1],
        )

    labels = tf.constant(LABELS)
    for _ in range(3):
        assert_equal_draws(ours(labels), theirs(labels))
    seen = 1 + 3 * np.bincount(LABELS.ravel(), minlength=5)
    np.testing.assert_array_equal(weights.numpy(), seen)


def test_position_and_class_weights_come_together():
    position = tf.Variable(0, dtype=tf.int64)
    with pytest.raises(ValueError, match="position and class_weights together"):
        candidates.learned_unigram(LABELS, 2, 4, True, 5, SEEDS, position=position)


def test_weights_stop_growing_where_their_sum_would_not_fit():
    weights = tf.Variable([2**31 - 3, 0, 0], dtype=tf.int64)
    total = tf.constant(2**31 - 3, tf.int32)
    sampler_state.count_labels(weights, tf.constant([[1], [2], [2]], tf.int64), total)
    np.testing.assert_array_equal(weights.numpy(), [2**31 - 3, 1, 1])


def test_an_owned_position_makes_bad_labels_an_error_off_xla():
    position = tf.Variable(0, dtype=tf.int64)
    with pytest.raises(tf.errors.InvalidArgumentError, match="`true_classes` must be"):
        candidates.uniform([[8]], 1, 4, True, 8, SEEDS, position=position)
    assert int(position) == 0


def test_the_mirror_and_tensorflow_agree_through_a_new_shape():
    """A new shape is a new trace, and starts anew: in TensorFlow as well."""
    given = arguments("uniform", 6, True, 2**10, seed=3)

    def call(function, jit_compile):
        return tf.function(
            lambda labels: function(labels, 2, **given), jit_compile=jit_compile
        )

    ours = call(mirror("uniform"), True)
    theirs = call(tensorflows("uniform"), None)
    for rows in (3, 3, 2, 3):
        labels = tf.constant(LABELS[:rows])
        assert_equal_draws(ours(labels), theirs(labels))


def test_a_refused_draw_takes_no_seed():
    def draw():
        return mirror("uniform")([[0], [2]], 1, 5, True, 9)[0].numpy()

    tf.random.set_seed(1)
    undisturbed = draw()
    tf.random.set_seed(1)
    with pytest.raises(ValueError, match="num_sampled is 100, but there are 9 classes"):
        mirror("uniform")([[0], [2]], 1, 100, True, 9)
    np.testing.assert_array_equal(draw(), undisturbed)


def test_learned_weights_grow_in_a_v1_graph():
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        position = tf.compat.v1.get_variable("position", initializer=np.int64(0))
        weights = tf.compat.v1.get_variable(
            "weights", initializer=np.ones([5], "int64")
        )
        drawn = candidates.learned_unigram(
            [[1], [3]], 1, 2, True, 5, (3, 4), position=position, class_weights=weights
        )
        session.run(tf.compat.v1.global_variables_initializer())
        for _ in range(3):
            session.run(drawn)
        assert session.run(position) == 3
        np.testing.assert_array_equal(session.run(weights), [1, 4, 1, 4, 1])
