"""From corrected logits to the loss of each example.

The logits have had log expected counts taken off; a sampled class that is one of the
example's own labels stands at minus infinity, where it adds nothing to a loss and
receives no gradient. The `num_true` labels of an example weigh `1 / num_true` each.
"""

from __future__ import annotations

import tensorflow as tf


def softmax(true_logits: tf.Tensor, sampled_logits: tf.Tensor) -> tf.Tensor:
    """`log(sum_j exp(logit_j)) - mean_t(true_logit_t)` over all columns of a row.

    Args:
      true_logits: `[batch, num_true]`, floating.
      sampled_logits: `[batch, num_sampled]`, same dtype.

    Returns:
      `[batch]`, same dtype.
    """
    # A shift that cancels out of the loss: constant for gradients of any order.
    shift = tf.stop_gradient(
        tf.maximum(
            tf.reduce_max(true_logits, axis=1, keepdims=True),
            tf.reduce_max(sampled_logits, axis=1, keepdims=True),
        )
    )
    true_logits -= shift
    total = tf.reduce_sum(tf.exp(true_logits), axis=1) + tf.reduce_sum(
        tf.exp(sampled_logits - shift), axis=1
    )
    return tf.math.log(total) - tf.reduce_mean(true_logits, axis=1)


def logistic(true_logits: tf.Tensor, sampled_logits: tf.Tensor) -> tf.Tensor:
    """Binary cross entropy of every column, summed over a row.

    `sum_t [softplus(-s_t) + (1 - 1/num_true) s_t] + sum_j softplus(s_j)` for true
    logits `s_t` and sampled logits `s_j`.

    Args:
      true_logits: `[batch, num_true]`, floating.
      sampled_logits: `[batch, num_sampled]`, same dtype.

    Returns:
      `[batch]`, same dtype.
    """
    num_true = true_logits.shape[1]
    true_losses = tf.math.softplus(-true_logits)
    if num_true > 1:
        true_losses += (1.0 - 1.0 / num_true) * true_logits
    return tf.reduce_sum(true_losses, axis=1) + tf.reduce_sum(
        tf.math.softplus(sampled_logits), axis=1
    )
