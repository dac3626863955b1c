"""The two sampled losses as functions of logits, and their derivatives by the logits.

Logits are corrected: the log expected count has been subtracted. A sampled class that
is a label of the example has the logit minus infinity: it adds nothing to the loss and
gets no gradient.

Shapes: `N` examples, `T` labels of each, `S` sampled classes. Each function takes
`label_weights` `[N, T]`, what each label weighs in its example, or None for `1 / T`.
A label of weight 0 is padding and has no part in the loss.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

from tfsampled._core.xla import can_branch_on_data

# The number of columns among which a logit of large probability is looked for.
_PROBE_COLUMNS = 16
# Probabilities below this have lost digits to the bottom of float32.
_MIN_PROBABILITY = 1e-30


class LossFunction(NamedTuple):
    """A loss, as one function and in the parts that chunks of sampled logits need.

    Attributes:
        from_logits: `(true_logits [N, T], sampled_logits [N, S], label_weights)
            -> loss [N]`, differentiable any number of times.
        reduce_sampled: `sampled_logits -> (partial [N], d_logits [N, S])`. `partial` is
            all that the loss needs of the sampled logits, and `d_logits` its derivative
            by them.
        combine: `(true_logits, partial, label_weights) -> (loss [N],
            d_true_logits [N, T], d_partial)`, the loss and its derivatives; `d_partial`
            has the shape of `partial`.
        combines_logits: Whether `combine` also takes the sampled logits `[N, S]` as
            `partial`: fewer operations, more passes over memory.
    """

    from_logits: Callable[..., tf.Tensor]
    reduce_sampled: Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]
    combine: Callable[..., tuple[tf.Tensor, tf.Tensor, tf.Tensor]]
    combines_logits: bool = False


def _softmax_from_logits(
    true_logits: tf.Tensor,
    sampled_logits: tf.Tensor,
    label_weights: tf.Tensor | None = None,
) -> tf.Tensor:
    """Computes `log(sum_j exp(s_j)) - sum_t weight_t s_t` over all columns of a row."""
    logsumexp = _logsumexp_from_logits(true_logits, sampled_logits, label_weights)
    return logsumexp - _weighted_sum(true_logits, label_weights)


def _softmax_reduce(logits: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the logsumexp of each row, and its softmax."""
    if not can_branch_on_data():
        return _stable_softmax(logits)
    # Each step is a pass over memory, but the softmax is a single one. Any column gives
    # logsumexp = logit - log(probability); a large probability gives it precisely:
    # logits = [1, 3, 2], probabilities = [0.09, 0.67, 0.24]
    # logsumexp = 3 - log(0.67) = 3.41
    probabilities = tf.nn.softmax(logits)
    probability = tf.reduce_max(probabilities[:, :_PROBE_COLUMNS], axis=1)
    logit = tf.reduce_max(logits[:, :_PROBE_COLUMNS], axis=1)
    return tf.cond(
        tf.reduce_min(probability) > _MIN_PROBABILITY,  # False for NaN
        lambda: (logit - tf.math.log(probability), probabilities),
        lambda: _stable_softmax(logits),
    )


def _stable_softmax(logits: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    shift = _finite(tf.reduce_max(logits, axis=1, keepdims=True))
    exp_logits = tf.exp(logits - shift)
    total = tf.reduce_sum(exp_logits, axis=1, keepdims=True)
    logsumexp = tf.squeeze(tf.math.log(total) + shift, axis=1)
    return logsumexp, tf.math.divide_no_nan(exp_logits, total)


def _softmax_combine(
    true_logits: tf.Tensor, partial: tf.Tensor, label_weights: tf.Tensor | None
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    shift, total, true_probabilities, d_partial = _columns(
        true_logits, partial, label_weights
    )
    label_logits = _weighted_sum(true_logits - shift, label_weights)
    loss = tf.squeeze(tf.math.log(total), axis=1) - label_logits
    if label_weights is None:
        label_weights = _uniform_weight(true_logits)
    return loss, true_probabilities - label_weights, d_partial


def _logsumexp_combine(
    true_logits: tf.Tensor, partial: tf.Tensor, label_weights: tf.Tensor | None
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    shift, total, true_probabilities, d_partial = _columns(
        true_logits, partial, label_weights
    )
    loss = tf.squeeze(tf.math.log(total) + shift, axis=1)
    return loss, true_probabilities, d_partial


def _columns(
    true_logits: tf.Tensor, partial: tf.Tensor, label_weights: tf.Tensor | None
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
    """Computes the softmax of the labels and the sampled classes.

    Returns:
        What was subtracted from the logits and the sum of their exponentials, `[N, 1]`;
        the probabilities of the labels `[N, T]` and, shaped like `partial`, of the
        sampled classes.
    """
    is_sum = partial.shape.rank == 1  # one more column beside the labels'
    sampled = tf.expand_dims(partial, 1) if is_sum else partial
    logits = _without_padding(true_logits, label_weights)
    columns = tf.concat([logits, sampled], axis=1)
    shift = tf.reduce_max(columns, axis=1, keepdims=True)
    if label_weights is not None:  # there may be no label and no sampled class left
        shift = _finite(shift)
    exp_columns = tf.exp(columns - shift)
    total = tf.reduce_sum(exp_columns, axis=1, keepdims=True)
    if label_weights is None:
        probabilities = exp_columns / total
    else:
        probabilities = tf.math.divide_no_nan(exp_columns, total)
    num_true = tf.compat.dimension_value(true_logits.shape[1])
    true_probabilities, d_partial = tf.split(probabilities, [num_true, -1], axis=1)
    if is_sum:
        d_partial = tf.squeeze(d_partial, axis=1)
    return shift, total, true_probabilities, d_partial


def with_negatives(
    loss: tf.Tensor,
    true_logits: tf.Tensor,
    label_weights: tf.Tensor | None,
    logits: tf.Tensor,
) -> tf.Tensor:
    """Adds classes of each example to the softmax loss `[N]` of the other classes.

    With `base` the logsumexp of the others, which is the loss plus the labels' logits,
    the loss grows by `log(1 + sum_j exp(logit_j - base))`.

    Args:
        loss: `[N]`, of the labels and the sampled classes.
        true_logits: `[N, T]`.
        label_weights: `[N, T]`, or None.
        logits: `[N, n]` of the added classes, minus infinity for none.
    """
    base = loss + _weighted_sum(true_logits, label_weights)
    base = _finite(base)  # there may be no label and no sampled class
    columns = tf.pad(logits - base[:, tf.newaxis], [[0, 0], [1, 0]])
    growth = tf.reduce_logsumexp(columns, axis=1, keepdims=True)
    return loss + tf.squeeze(growth, axis=1)


def _logistic_from_logits(
    true_logits: tf.Tensor,
    sampled_logits: tf.Tensor,
    label_weights: tf.Tensor | None = None,
) -> tf.Tensor:
    """Computes the binary cross entropy of every column, summed over a row.

    `sum_t [softplus(-s_t) + (1 - weight_t) s_t] + sum_j softplus(s_j)` for true logits
    `s_t` and sampled logits `s_j`.
    """
    partial = tf.reduce_sum(tf.math.softplus(sampled_logits), axis=1)
    return _logistic_true(true_logits, label_weights) + partial


def _logistic_true(
    true_logits: tf.Tensor, label_weights: tf.Tensor | None
) -> tf.Tensor:
    losses = tf.math.softplus(-true_logits)
    if label_weights is not None:
        losses += (1.0 - label_weights) * true_logits
        losses = tf.where(label_weights > 0, losses, tf.zeros_like(losses))
    elif (weight := _uniform_weight(true_logits)) < 1:
        losses += (1.0 - weight) * true_logits
    return tf.reduce_sum(losses, axis=1)


def _logistic_reduce(logits: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    return tf.reduce_sum(tf.math.softplus(logits), axis=1), tf.sigmoid(logits)


def _logistic_combine(
    true_logits: tf.Tensor, partial: tf.Tensor, label_weights: tf.Tensor | None
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    loss = _logistic_true(true_logits, label_weights) + partial
    if label_weights is None:
        d_true_logits = tf.sigmoid(true_logits) - _uniform_weight(true_logits)
    else:
        d_true_logits = tf.sigmoid(true_logits) - label_weights
        is_label = label_weights > 0
        d_true_logits = tf.where(is_label, d_true_logits, tf.zeros_like(true_logits))
    return loss, d_true_logits, tf.ones_like(partial)


def _uniform_weight(true_logits: tf.Tensor) -> float:
    return 1.0 / tf.compat.dimension_value(true_logits.shape[1])


def _weighted_sum(true_logits: tf.Tensor, label_weights: tf.Tensor | None) -> tf.Tensor:
    # With the axis kept, the gradient on a GPU does not wait for a shape.
    if label_weights is None:
        total = tf.reduce_mean(true_logits, axis=1, keepdims=True)
    else:  # padding has weight 0 and may have any logit, infinity too
        weighted = tf.math.multiply_no_nan(true_logits, label_weights)
        total = tf.reduce_sum(weighted, axis=1, keepdims=True)
    return tf.squeeze(total, axis=1)


def _without_padding(
    true_logits: tf.Tensor, label_weights: tf.Tensor | None
) -> tf.Tensor:
    """Sets the logits of labels of weight 0 to minus infinity."""
    if label_weights is None:
        return true_logits
    return tf.where(label_weights > 0, true_logits, float("-inf"))


def _finite(numbers: tf.Tensor) -> tf.Tensor:
    """Replaces non-finite values by 0."""
    return tf.where(tf.math.is_finite(numbers), numbers, tf.zeros_like(numbers))


def _logsumexp_from_logits(
    true_logits: tf.Tensor,
    sampled_logits: tf.Tensor,
    label_weights: tf.Tensor | None = None,
) -> tf.Tensor:
    """Computes `log(sum_j exp(s_j))` over all columns of a row."""
    logits = _without_padding(true_logits, label_weights)
    return tf.reduce_logsumexp(tf.concat([logits, sampled_logits], axis=1), axis=1)


SOFTMAX = LossFunction(_softmax_from_logits, _softmax_reduce, _softmax_combine, True)
# What a softmax loss needs of a part of the classes.
LOGSUMEXP = LossFunction(
    _logsumexp_from_logits, _softmax_reduce, _logsumexp_combine, True
)
LOGISTIC = LossFunction(_logistic_from_logits, _logistic_reduce, _logistic_combine)
