"""The two losses as functions of logits, against float64."""

import numpy as np
import pytest
import tensorflow as tf

from tfsampled._core.sampled_loss import loss_functions


def softmax_truth(true, sampled):
    """`log sum exp` of all columns minus the mean of the true ones, in float64."""
    both = np.concatenate([true, sampled], axis=1).astype(np.float64)
    top = both.max(axis=1, keepdims=True)
    total = np.log(np.exp(both - top).sum(axis=1)) + top[:, 0]
    return total - true.astype(np.float64).mean(axis=1)


def logistic_truth(true, sampled):
    """Binary cross entropy with targets `1 / num_true` and 0, in float64."""
    true, sampled = true.astype(np.float64), sampled.astype(np.float64)
    positives = np.logaddexp(0, true) - true / true.shape[1]
    return positives.sum(axis=1) + np.logaddexp(0, sampled).sum(axis=1)


TRUTHS = {
    loss_functions.SOFTMAX.from_logits: softmax_truth,
    loss_functions.LOGISTIC.from_logits: logistic_truth,
}


@pytest.mark.parametrize("loss", TRUTHS, ids=lambda loss: loss.__name__)
@pytest.mark.parametrize("num_true", [1, 3])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 30.0, 1e4])
def test_within_ulps_of_float64(loss, num_true, scale):
    rng = np.random.default_rng(0)
    true = (scale * rng.normal(size=(6, num_true))).astype(np.float32)
    sampled = (scale * rng.normal(size=(6, 40))).astype(np.float32)
    truth = TRUTHS[loss](true, sampled)
    # A sum of terms is known to a few ulp of its largest partial sum.
    largest = np.abs(np.concatenate([true, sampled], axis=1)).max() + np.log(40)
    scale_of_sum = np.maximum(np.abs(truth), largest)
    error = np.abs(loss(tf.constant(true), tf.constant(sampled)) - truth)
    assert np.all(error <= 4 * np.finfo(np.float32).eps * scale_of_sum)


@pytest.mark.parametrize("loss", TRUTHS, ids=lambda loss: loss.__name__)
def test_logits_of_minus_infinity_have_no_effect(loss):
    true = tf.constant([[1.0], [-2.0]])
    logits = tf.constant([[0.5, 3.0], [1.0, -1.0]])
    masked = tf.fill([2, 2], -float("inf"))
    with tf.GradientTape() as outer:
        outer.watch([true, logits, masked])
        with tf.GradientTape() as tape:
            tape.watch([true, logits, masked])
            value = loss(true, tf.concat([logits, masked], axis=1))
        gradients = tape.gradient(value, [true, logits, masked])
        total = tf.add_n([tf.reduce_sum(gradient**2) for gradient in gradients])
    second = outer.gradient(total, [true, logits, masked])
    np.testing.assert_array_equal(value, loss(true, logits))
    assert all(np.all(np.isfinite(gradient)) for gradient in gradients)
    np.testing.assert_array_equal(gradients[2], np.zeros([2, 2]))
    np.testing.assert_array_equal(second[2], np.zeros([2, 2]))


def test_a_small_softmax_loss_keeps_its_digits():
    """The true class far ahead: the loss is about `exp(-15)`, not 0 and not noise."""
    loss, _, _ = loss_functions.SOFTMAX.combine(
        tf.constant([[1000.0]]), tf.constant([[985.0]]), None
    )
    assert abs(loss[0] - np.log1p(np.exp(-15.0))) <= np.finfo(np.float32).eps
    assert loss[0] > 0


@pytest.mark.parametrize("name", ["SOFTMAX", "LOGISTIC"])
@pytest.mark.parametrize("padding_logit", [0.0, 1e4, np.inf, np.nan])
def test_labels_of_weight_0_have_no_effect(name, padding_logit):
    """The loss and its derivatives are those of the example without padding."""
    loss = getattr(loss_functions, name)
    rng = np.random.default_rng(0)
    true, sampled = rng.normal(size=(4, 3)), rng.normal(size=(4, 5))
    num_labels = np.array([1, 2, 3, 3])
    is_label = np.arange(3) < num_labels[:, np.newaxis]
    weights = tf.constant(is_label / num_labels[:, np.newaxis])
    padded = tf.constant(np.where(is_label, true, padding_logit))
    partial, _ = loss.reduce_sampled(tf.constant(sampled))
    actual = loss.combine(padded, partial, weights)
    np.testing.assert_allclose(
        loss.from_logits(padded, tf.constant(sampled), weights), actual[0], rtol=1e-13
    )
    for row, count in enumerate(num_labels):
        labels = tf.constant(true[row : row + 1, :count])
        expected = loss.combine(labels, partial[row : row + 1], None)
        np.testing.assert_allclose(actual[0][row], expected[0][0], rtol=1e-13)
        np.testing.assert_allclose(actual[1][row, :count], expected[1][0], rtol=1e-13)
        np.testing.assert_array_equal(actual[1][row, count:], np.zeros(3 - count))
        np.testing.assert_allclose(actual[2][row], expected[2][0], rtol=1e-13)


def test_an_example_without_labels_and_candidates_has_finite_derivatives():
    minus_infinity = tf.fill([1], -float("inf"))
    _, d_true_logits, d_partial = loss_functions.SOFTMAX.combine(
        tf.constant([[2.0, 3.0]]), minus_infinity, tf.constant([[0.0, 0.0]])
    )
    np.testing.assert_array_equal(d_true_logits, [[0, 0]])
    np.testing.assert_array_equal(d_partial, [0])
