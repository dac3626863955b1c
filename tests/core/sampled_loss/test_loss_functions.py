"""The two losses on logits, against float64."""

import numpy as np
import pytest
import tensorflow as tf

from tfsampled._core.sampled_loss import loss_functions as losses


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
    losses.SOFTMAX.composed: softmax_truth,
    losses.LOGISTIC.composed: logistic_truth,
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
def test_a_column_at_minus_infinity_does_not_exist(loss):
    true = tf.constant([[1.0], [-2.0]])
    kept = tf.constant([[0.5, 3.0], [1.0, -1.0]])
    gone = tf.fill([2, 2], -float("inf"))
    with tf.GradientTape() as outer:
        outer.watch([true, kept, gone])
        with tf.GradientTape() as tape:
            tape.watch([true, kept, gone])
            value = loss(true, tf.concat([kept, gone], axis=1))
        gradients = tape.gradient(value, [true, kept, gone])
        total = tf.add_n([tf.reduce_sum(gradient**2) for gradient in gradients])
    second = outer.gradient(total, [true, kept, gone])
    np.testing.assert_array_equal(value, loss(true, kept))
    assert all(np.all(np.isfinite(gradient)) for gradient in gradients)
    np.testing.assert_array_equal(gradients[2], np.zeros([2, 2]))
    np.testing.assert_array_equal(second[2], np.zeros([2, 2]))


def test_a_small_softmax_loss_keeps_its_digits():
    """The true class far ahead: the loss is about `exp(-15)`, not 0 and not noise."""
    loss = losses.SOFTMAX.composed(tf.constant([[1000.0]]), tf.constant([[985.0]]))
    assert abs(loss[0] - np.log1p(np.exp(-15.0))) <= np.finfo(np.float32).eps
    assert loss[0] > 0
