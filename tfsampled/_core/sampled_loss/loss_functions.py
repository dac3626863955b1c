"""The two losses: what sampled logits add, and how steep the loss is in each.

The logits have had log expected counts taken off; a sampled class that is one of the
example's own labels stands at minus infinity, where it adds nothing to a loss and
receives no gradient. The `num_true` labels of an example weigh `1 / num_true` each.

Shapes: `N` examples, `T` labels each, `S` sampled classes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

from tfsampled._core.xla import tracing_for_xla

# Columns among which a row's softmax is compared with its logits.
_REFERENCES = 16
# A probability below this has lost digits to the bottom of float32.
_TINY = 1e-30


class Loss(NamedTuple):
    """A loss, whole and in the parts that a block of examples is computed in.

    Attributes:
      composed: `(true_logits [N, T], sampled_logits [N, S]) -> [N]`, differentiable
        any number of times.
      summed: `sampled_logits -> (sums [N], slopes [N, S])`. The loss needs no more of
        the sampled logits than `sums`; `slopes` times a number for each row are the
        derivative of the loss by them.
      joined: `(true_logits, sums) -> (loss [N], true_slopes [N, T], scales [N])`:
        derivatives by the true logits, and those numbers.
    """

    composed: Callable[[tf.Tensor, tf.Tensor], tf.Tensor]
    summed: Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]
    joined: Callable[[tf.Tensor, tf.Tensor], tuple[tf.Tensor, tf.Tensor, tf.Tensor]]


def _softmax(true_logits: tf.Tensor, sampled_logits: tf.Tensor) -> tf.Tensor:
    """`log(sum_j exp(logit_j)) - mean_t(true_logit_t)` over all columns of a row."""
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


def _softmax_summed(logits: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """`log(sum_j exp(logit_j))` of each row, and the softmax of the row."""
    if tracing_for_xla():  # fuses what follows into few passes
        return _softmax_in_steps(logits)
    # Off XLA every step is a pass over memory, but for the softmax, which is one
    # alone. It tells the probability of every column: any one of them, its logit
    # beside it, tells the sum.
    probabilities = tf.nn.softmax(logits)
    nearest = tf.reduce_max(probabilities[:, :_REFERENCES], axis=1)
    logit = tf.reduce_max(logits[:, :_REFERENCES], axis=1)
    return tf.cond(
        # Not so where they are too small, or the row is not a number.
        tf.reduce_min(nearest) > _TINY,
        lambda: (logit - tf.math.log(nearest), probabilities),
        lambda: _softmax_in_steps(logits),
    )


def _softmax_in_steps(logits: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    shift = _finite(tf.reduce_max(logits, axis=1, keepdims=True))
    powers = tf.exp(logits - shift)
    total = tf.reduce_sum(powers, axis=1, keepdims=True)
    sums = tf.squeeze(tf.math.log(total) + shift, axis=1)
    return sums, powers / tf.where(total > 0, total, tf.ones_like(total))


def _softmax_joined(
    true_logits: tf.Tensor, sums: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    columns = tf.concat([true_logits, sums[:, tf.newaxis]], axis=1)
    columns -= tf.reduce_max(columns, axis=1, keepdims=True)
    powers = tf.exp(columns)
    total = tf.reduce_sum(powers, axis=1, keepdims=True)
    loss = tf.math.log(total[:, 0]) - tf.reduce_mean(columns[:, :-1], axis=1)
    shares = powers / total
    return loss, shares[:, :-1] - _share(true_logits), shares[:, -1]


def _finite(numbers: tf.Tensor) -> tf.Tensor:
    """The numbers, 0 in the place of infinity and of what is no number."""
    return tf.where(tf.math.is_finite(numbers), numbers, tf.zeros_like(numbers))


def _logistic(true_logits: tf.Tensor, sampled_logits: tf.Tensor) -> tf.Tensor:
    """Binary cross entropy of every column, summed over a row.

    `sum_t [softplus(-s_t) + (1 - 1/num_true) s_t] + sum_j softplus(s_j)` for true
    logits `s_t` and sampled logits `s_j`.
    """
    sums = tf.reduce_sum(tf.math.softplus(sampled_logits), axis=1)
    return _logistic_true(true_logits) + sums


def _logistic_true(true_logits: tf.Tensor) -> tf.Tensor:
    losses = tf.math.softplus(-true_logits)
    share = _share(true_logits)
    if share < 1:
        losses += (1.0 - share) * true_logits
    return tf.reduce_sum(losses, axis=1)


def _logistic_summed(logits: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    return tf.reduce_sum(tf.math.softplus(logits), axis=1), tf.sigmoid(logits)


def _logistic_joined(
    true_logits: tf.Tensor, sums: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    slopes = tf.sigmoid(true_logits) - _share(true_logits)
    return _logistic_true(true_logits) + sums, slopes, tf.ones_like(sums)


def _share(true_logits: tf.Tensor) -> float:
    """What each label of an example weighs."""
    return 1.0 / tf.compat.dimension_value(true_logits.shape[1])


SOFTMAX = Loss(_softmax, _softmax_summed, _softmax_joined)
LOGISTIC = Loss(_logistic, _logistic_summed, _logistic_joined)
