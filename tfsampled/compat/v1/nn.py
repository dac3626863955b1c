"""As `tf.compat.v1.nn`: the losses say how a table is cut into shards.

Parameters carry no annotations because their signatures equal TensorFlow's.
"""

from tfsampled._core.candidate_sampling.accidental_hits import compute_accidental_hits
from tfsampled._core.sampled_loss import loss_functions as losses
from tfsampled._core.sampled_loss.api import sampled_loss
from tfsampled.random import (
    all_candidate_sampler,
    fixed_unigram_candidate_sampler,
    learned_unigram_candidate_sampler,
    log_uniform_candidate_sampler,
    uniform_candidate_sampler,
)

__all__ = [
    "all_candidate_sampler",
    "compute_accidental_hits",
    "fixed_unigram_candidate_sampler",
    "learned_unigram_candidate_sampler",
    "log_uniform_candidate_sampler",
    "nce_loss",
    "sampled_softmax_loss",
    "uniform_candidate_sampler",
]


def sampled_softmax_loss(
    weights,
    biases,
    labels,
    inputs,
    num_sampled,
    num_classes,
    num_true=1,
    sampled_values=None,
    remove_accidental_hits=True,
    partition_strategy="mod",
    name="sampled_softmax_loss",
    seed=None,
):
    """Softmax cross entropy over the labels and a sample of the other classes.

    `tfsampled.nn.sampled_softmax_loss`, which tells formula, arguments and errors, with
    a choice of how a table in shards is laid out.

    Args:
      weights: The class embeddings, in one piece or in shards.
      biases: The class biases, in one piece or in shards, or `None`. They need not be
        cut into as many shards as `weights`.
      labels: `[batch, num_true]`, integers.
      inputs: `[batch, dim]`, floating.
      num_sampled: An `int`.
      num_classes: An `int`.
      num_true: An `int`.
      sampled_values: A candidate sampler's three tensors, or `None`.
      remove_accidental_hits: A `bool`.
      partition_strategy: "mod": class `c` of `n` shards is row `c // n` of shard
        `c % n`. "div": contiguous runs of `rows // n` rows, the first `rows % n`
        shards one longer. In eager execution a `ShardedVariable` is read as it was
        cut, "div", as in TensorFlow.
      name: A name scope for the operations.
      seed: The operation seed of the draw.

    Returns:
      The loss of each example, `[batch]`, in the dtype of `inputs`.

    Raises:
      ValueError: Arguments that do not fit each other, shards that `num_classes`
        classes do not fit, or an unknown `partition_strategy`.
      tf.errors.InvalidArgumentError: A label or candidate that is no class.

    Example:
    >>> import tensorflow as tf
    >>> import tfsampled
    >>> table = tf.random.stateless_normal([10, 4], seed=[1, 2])
    >>> loss = tfsampled.compat.v1.nn.sampled_softmax_loss(
    ...     [table[0::2], table[1::2]],  # even classes, odd classes
    ...     tf.zeros([10]),
    ...     labels=[[3]],
    ...     inputs=tf.ones([1, 4]),
    ...     num_sampled=5,
    ...     num_classes=10,
    ...     partition_strategy="mod",
    ... )
    >>> loss.shape
    TensorShape([1])
    """
    return sampled_loss(
        losses.SOFTMAX,
        weights,
        biases,
        labels,
        inputs,
        num_sampled,
        num_classes,
        num_true,
        sampled_values,
        remove_accidental_hits,
        partition_strategy,
        name,
        seed,
    )


def nce_loss(
    weights,
    biases,
    labels,
    inputs,
    num_sampled,
    num_classes,
    num_true=1,
    sampled_values=None,
    remove_accidental_hits=False,
    partition_strategy="mod",
    name="nce_loss",
):
    """Noise-contrastive estimation: labels against a sample of noise classes.

    `tfsampled.nn.nce_loss`, which tells formula, arguments and errors, with a choice of
    how a table in shards is laid out.

    Args:
      weights: The class embeddings, in one piece or in shards.
      biases: The class biases, in one piece or in shards, or `None`.
      labels: `[batch, num_true]`, integers.
      inputs: `[batch, dim]`, floating.
      num_sampled: An `int`.
      num_classes: An `int`.
      num_true: An `int`.
      sampled_values: A candidate sampler's three tensors, or `None`.
      remove_accidental_hits: A `bool`.
      partition_strategy: "mod" or "div", as in `sampled_softmax_loss`.
      name: A name scope for the operations.

    Returns:
      The loss of each example, `[batch]`, in the dtype of `inputs`.

    Raises:
      ValueError: As in `sampled_softmax_loss`.
      tf.errors.InvalidArgumentError: A label or candidate that is no class.

    Example:
    >>> import tensorflow as tf
    >>> import tfsampled
    >>> table = tf.random.stateless_normal([9, 4], seed=[1, 2])
    >>> loss = tfsampled.compat.v1.nn.nce_loss(
    ...     [table[:5], table[5:]], None, [[3]], tf.ones([1, 4]), 5, 9,
    ...     partition_strategy="div",
    ... )
    >>> loss.shape
    TensorShape([1])
    """
    return sampled_loss(
        losses.LOGISTIC,
        weights,
        biases,
        labels,
        inputs,
        num_sampled,
        num_classes,
        num_true,
        sampled_values,
        remove_accidental_hits,
        partition_strategy,
        name,
        None,
    )
