"""Where a compiled sampler stands in its stream, and how long that is kept."""

import gc
import weakref

import numpy as np
import pytest
import tensorflow as tf

import tfsampled
from tests.helpers import SAMPLER_LABELS, assert_equal_draws, sampler_arguments
from tfsampled._core.candidate_sampling import state

SEED = 3


def uniform_sampler(module, jit_compile=None):
    """A function that draws 6 of 1024 classes."""
    function = module.random.uniform_candidate_sampler
    arguments = sampler_arguments("uniform", 6, True, 2**10, seed=SEED)
    return tf.function(
        lambda labels: function(labels, 2, **arguments), jit_compile=jit_compile
    )


@pytest.mark.slow
def test_each_traced_function_starts_anew():
    """A new shape is a new trace, and starts anew: in TensorFlow as well."""
    kernel = uniform_sampler(tf)
    expected = [kernel(SAMPLER_LABELS[:rows]) for rows in (3, 3, 2, 3)]
    compiled = uniform_sampler(tfsampled, jit_compile=True)
    for rows, draw in zip((3, 3, 2, 3), expected, strict=True):
        assert_equal_draws(compiled(SAMPLER_LABELS[:rows]), draw)


def test_a_loop_calls_the_sampler_in_each_iteration():
    function = tfsampled.random.uniform_candidate_sampler
    arguments = sampler_arguments("uniform", 6, True, 2**10, seed=SEED)

    @tf.function(jit_compile=True)
    def loop():
        def body(i, rows):
            ids = function(SAMPLER_LABELS, 2, **arguments).sampled_candidates
            return i + 1, tf.tensor_scatter_nd_update(rows, [[i]], [ids])

        zeros = tf.zeros([3, 6], tf.int64)
        return tf.while_loop(lambda i, _: i < 3, body, [0, zeros])[1]

    kernel = uniform_sampler(tf)
    rows = [kernel(SAMPLER_LABELS).sampled_candidates for _ in range(6)]
    np.testing.assert_array_equal(loop().numpy(), rows[:3])
    np.testing.assert_array_equal(loop().numpy(), rows[3:])


def test_state_lives_as_long_as_its_function():
    function = uniform_sampler(tfsampled, jit_compile=True)
    function(SAMPLER_LABELS)
    variables = [v for kept in state._VARIABLES.values() for v in kept]
    assert int(variables[-1]) == 1
    position = weakref.ref(variables[-1])
    del variables
    gc.collect()
    assert position() is not None
    del function
    gc.collect()
    assert position() is None


def test_weights_stop_growing_where_their_sum_would_not_fit():
    weights = tf.Variable([2**31 - 3, 0, 0], dtype=tf.int64)
    total = tf.constant(2**31 - 3, tf.int32)
    state.count_labels(weights, tf.constant([[1], [2], [2]], tf.int64), None, total)
    np.testing.assert_array_equal(weights.numpy(), [2**31 - 3, 1, 1])
