"""The exact softmax in blocks against float64 NumPy, at the edges of the blocks."""

import functools

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import tfsampled
from tests import exact_truth as truth

WIDTH = 8  # classes in a block, as `small_blocks` sets them

# classes: fewer than a block, whole blocks, a remainder below and above half of one
SIZES = [1, 7, 8, 9, 16, 23, 31, 40]


@pytest.fixture(autouse=True, scope="module")
def small_blocks():
    with pytest.MonkeyPatch.context() as patch:
        truth.narrow_blocks(patch, WIDTH)
        yield


def eagerly(function):
    return function


def in_function(function):
    return tf.function(function, autograph=False)


def compiled(function):
    return tf.function(function, autograph=False, jit_compile=True)


def of_unknown_batch(function):
    """As Keras traces a training step: the batch comes when the graph runs."""

    def call(inputs, *others):
        spec = tf.TensorSpec([None, inputs.shape[1]], inputs.dtype)
        traced = tf.function(
            lambda x: function(x, *others), autograph=False, input_signature=[spec]
        )
        return traced(inputs)

    return call


def sizes_and_modes(test):
    """Every size without XLA, which compiles long, and three with it."""
    cases = [
        (size, mode)
        for mode in (eagerly, in_function, of_unknown_batch, compiled)
        for size in (SIZES if mode is not compiled else (7, 16, 23))
    ]
    return pytest.mark.parametrize(("num_classes", "mode"), cases)(test)


def problem(num_classes, batch=5, dim=4, num_true=1, seed=3):
    rng = np.random.default_rng(seed)
    return (
        rng.normal(size=(batch, dim)),
        rng.normal(size=(num_classes, dim)),
        rng.normal(size=num_classes),
        rng.integers(0, num_classes, (batch, num_true)),
    )


def first_and_second(inputs, weights, biases, labels, upstream, directions):
    """The loss, its gradients, and theirs along directions; biases may be None."""
    num_true = labels.shape[1]
    sources = [x for x in (inputs, weights, biases) if x is not None]
    with tf.GradientTape() as outer:
        outer.watch([*sources, upstream])
        with tf.GradientTape() as inner:
            inner.watch(sources)
            losses = tfsampled.nn.softmax_loss(
                weights, biases, labels, inputs, num_true
            )
        gradients = inner.gradient(losses, sources, upstream)
        along = tf.add_n(
            [
                tf.reduce_sum(gradient * direction)
                for gradient, direction in zip(gradients, directions, strict=True)
            ]
        )
    return losses, gradients, outer.gradient(along, [*sources, upstream])


@sizes_and_modes
@pytest.mark.parametrize("num_true", [pytest.param(1, marks=pytest.mark.slow), 3])
def test_loss_and_both_derivatives_are_numpys(num_classes, num_true, mode):
    inputs, weights, biases, labels = problem(num_classes, num_true=num_true)
    values = inputs, weights, biases
    rng = np.random.default_rng(4)
    upstream = rng.normal(size=len(labels))
    directions = [rng.normal(size=value.shape) for value in values]
    losses, gradients, seconds = mode(first_and_second)(
        *map(tf.constant, values),
        tf.constant(labels),
        tf.constant(upstream),
        [tf.constant(direction) for direction in directions],
    )
    close = functools.partial(np.testing.assert_allclose, rtol=1e-12, atol=1e-13)
    close(losses, truth.loss(*values, labels))
    expected = truth.gradients(*values, labels, upstream)
    for one, other in zip(gradients, expected, strict=True):
        close(one, other)
    expected = truth.second(*values, labels, upstream, directions)
    for one, other in zip(seconds, expected, strict=True):
        close(one, other)


@sizes_and_modes
def test_top_k_is_tensorflows(num_classes, mode):
    inputs, weights, _, _ = problem(num_classes)
    weights[-1] = weights[0]  # a tie across the blocks
    for k in {1, min(3, num_classes), num_classes}:

        def ours(inputs, weights, k=k):
            return tfsampled.nn.softmax_top_k(weights, None, inputs, k)

        values, ids = mode(ours)(tf.constant(inputs), tf.constant(weights))
        expected, expected_ids = tf.math.top_k(inputs @ weights.T, k)
        np.testing.assert_array_equal(ids, expected_ids)
        np.testing.assert_allclose(values, expected, rtol=1e-14)


@st.composite
def tables(draw):
    """A problem in whole numbers, which have ties and no rounding, and its cut."""
    num_classes = draw(st.integers(1, 45))
    batch = draw(st.integers(0, 4))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    span = draw(st.sampled_from([1, 3, 1000]))
    inputs = rng.integers(-span, span + 1, (batch, 3)).astype(np.float64)
    weights = rng.integers(-2, 3, (num_classes, 3)).astype(np.float64)
    biases = rng.integers(-2, 3, num_classes).astype(np.float64)
    num_true = draw(st.integers(1, 3))
    labels = rng.integers(0, num_classes, (batch, num_true))
    if draw(st.booleans()):
        biases[rng.random(num_classes) < 0.3] = -np.inf
        biases[rng.integers(num_classes)] = 0
    strategy = draw(st.sampled_from(["mod", "div"]))
    cuts = [draw(st.integers(1, min(5, num_classes))) for _ in range(2)]
    return inputs, weights, biases, labels, strategy, cuts


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(tables(), st.data())
def test_any_table_any_cut(table, data):
    inputs, weights, biases, labels, strategy, (cut, bias_cut) = table
    k = data.draw(st.integers(1, len(weights)))
    shards = truth.cut(weights, cut, strategy)
    bias_shards = truth.cut(biases, bias_cut, strategy)
    logits = inputs @ weights.T + biases
    values, ids = tfsampled.nn.softmax_top_k(
        shards, bias_shards, inputs, k, partition_strategy=strategy
    )
    order = truth.top_k(logits, k)
    np.testing.assert_array_equal(ids, order)
    np.testing.assert_array_equal(values, np.take_along_axis(logits, order, 1))

    sources = [tf.constant(x) for x in (inputs, *shards, *bias_shards)]
    with tf.GradientTape() as tape:
        tape.watch(sources)
        losses = tfsampled.nn.softmax_loss(
            sources[1 : 1 + cut],
            sources[1 + cut :],
            labels,
            sources[0],
            labels.shape[1],
            partition_strategy=strategy,
        )
    with np.errstate(invalid="ignore"):
        np.testing.assert_allclose(
            losses, truth.loss(inputs, weights, biases, labels), rtol=1e-13, atol=1e-12
        )
    upstream = np.ones(len(inputs))
    of_inputs, of_weights, of_biases = truth.gradients(
        inputs, weights, biases, labels, upstream
    )
    expected = [
        of_inputs,
        *truth.cut(of_weights, cut, strategy),
        *truth.cut(of_biases, bias_cut, strategy),
    ]
    for one, other in zip(tape.gradient(losses, sources), expected, strict=True):
        np.testing.assert_allclose(
            tf.convert_to_tensor(one), other, rtol=1e-12, atol=1e-11
        )
