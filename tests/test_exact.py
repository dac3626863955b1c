"""The exact softmax in blocks, at the edges of the blocks."""

import numpy as np
import pytest
import tensorflow as tf

from tfsampled._core import exact

N, D, BLOCK = 5, 4, 8

# classes: fewer than a block, whole blocks, a remainder below and above half of one
SIZES = [1, 7, 8, 9, 15, 16, 17, 23, 31, 40]


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(exact, "BLOCK", BLOCK)


@pytest.fixture
def rng():
    return np.random.default_rng(3)


def problem(rng, num_classes):
    return (
        rng.normal(size=(N, D)),
        rng.normal(size=(num_classes, D)),
        rng.normal(size=num_classes),
    )


def log_sum_exp(logits):
    top = logits.max(axis=-1, keepdims=True)
    return (top + np.log(np.exp(logits - top).sum(axis=-1, keepdims=True)))[:, 0]


@pytest.mark.parametrize("num_classes", SIZES)
@pytest.mark.parametrize("graph", [False, True])
def test_log_sum_exp_is_numpys(rng, num_classes, graph):
    inputs, weights, biases = problem(rng, num_classes)
    ours = tf.function(exact.log_sum_exp) if graph else exact.log_sum_exp
    np.testing.assert_allclose(
        ours(tf.constant(inputs), tf.constant(weights), tf.constant(biases)),
        log_sum_exp(inputs @ weights.T + biases),
        rtol=1e-14,
    )


@pytest.mark.parametrize("num_classes", SIZES)
def test_top_k_is_tensorflows(rng, num_classes):
    inputs, weights, _ = problem(rng, num_classes)
    weights[-1] = weights[0]  # a tie across the blocks
    for k in {1, min(3, num_classes), num_classes}:
        values, ids = exact.top_k(
            tf.constant(inputs), tf.constant(weights), biases=None, k=k
        )
        expected, expected_ids = tf.math.top_k(inputs @ weights.T, k)
        np.testing.assert_array_equal(ids, expected_ids)
        np.testing.assert_allclose(values, expected, rtol=1e-14)


def test_loss_stays_finite_with_huge_logits(rng):
    inputs, weights, biases = problem(rng, 20)
    labels = tf.constant(rng.integers(0, 20, (N, 1)))
    losses = exact.loss(
        tf.constant(inputs * 1e4),
        tf.constant(weights * 1e4),
        tf.constant(biases),
        labels,
    )
    logits = inputs @ weights.T * 1e8 + biases
    true = np.take_along_axis(logits, labels.numpy(), axis=1)[:, 0]
    np.testing.assert_allclose(
        losses, log_sum_exp(logits) - true, rtol=1e-13, atol=1e-6
    )


def test_a_label_out_of_range_is_nan_for_its_example_only(rng):
    inputs, weights, biases = problem(rng, 20)
    labels = tf.constant([[0], [20], [19], [-1], [5]])
    losses = exact.loss(
        tf.constant(inputs), tf.constant(weights), tf.constant(biases), labels
    )
    np.testing.assert_array_equal(np.isnan(losses), [False, True, False, True, False])


@pytest.mark.parametrize("graph", [False, True])
def test_gradients_are_those_of_the_whole_softmax(rng, graph):
    values = problem(rng, 21)
    labels = tf.constant(rng.integers(0, 21, (N, 2)))

    def blocks(inputs, weights, biases):
        return exact.loss(inputs, weights, biases, labels)

    def whole(inputs, weights, biases):
        logits = tf.matmul(inputs, weights, transpose_b=True) + biases
        targets = tf.reduce_mean(tf.one_hot(labels, 21, dtype=tf.float64), axis=1)
        return tf.nn.softmax_cross_entropy_with_logits(targets, logits)

    def gradients(loss):
        parts = [tf.constant(value) for value in values]
        with tf.GradientTape() as tape:
            tape.watch(parts)
            total = tf.reduce_sum(loss(*parts))
        return [
            tf.convert_to_tensor(gradient) for gradient in tape.gradient(total, parts)
        ]

    ours = (
        tf.function(gradients, autograph=False)(blocks) if graph else gradients(blocks)
    )
    for one, other in zip(ours, gradients(whole), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-14)


def test_no_tensor_of_all_the_logits_exists(rng):
    num_classes = 50 * BLOCK
    function = tf.function(exact.loss).get_concrete_function(
        tf.TensorSpec((N, D)),
        tf.TensorSpec((num_classes, D)),
        tf.TensorSpec((num_classes,)),
        tf.TensorSpec((N, 1), tf.int64),
    )
    widest = max(
        (tensor.shape[-1] or 0)
        for operation in function.graph.get_operations()
        for tensor in operation.outputs
        if tensor.shape.rank == 2 and tensor.shape[0] == N
    )
    assert widest < 2 * BLOCK
