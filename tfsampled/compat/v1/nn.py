"""The functions of `tf.compat.v1.nn`: the losses take a `partition_strategy`.

Parameters have no annotations because their signatures equal TensorFlow's.
"""

from tfsampled._core.candidate_sampling.accidental_hits import compute_accidental_hits
from tfsampled._core.sampled_loss import loss_functions
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
    """Computes the softmax cross entropy over the labels and a sample of the classes.

    This is `tfsampled.nn.sampled_softmax_loss` with a choice of how a sharded table is
    laid out. See there for the formula and for details of the arguments and errors.

    Args:
        weights: The class embeddings `[num_classes, dim]`, in one piece or in shards.
        biases: The class biases `[num_classes]`, in one piece or in shards, or `None`.
            They need not be cut into as many shards as `weights`.
        labels: The target classes, integers `[batch, num_true]`.
        inputs: The activations `[batch, dim]`, floating.
        num_sampled: An `int`, the number of classes to draw per call.
        num_classes: An `int`, the number of classes.
        num_true: An `int`, the number of labels of an example.
        sampled_values: The result of a candidate sampler, or `None`.
        remove_accidental_hits: A `bool`.
        partition_strategy: "mod": class `c` of `n` shards is row `c // n` of shard
            `c % n`. "div": contiguous runs of `rows // n` rows, the first `rows % n`
            shards one row larger. In eager execution a `ShardedVariable` is read as it
            was cut, "div", as in TensorFlow.
        name: A name scope for the operations.
        seed: An `int`, the operation seed of the draw.

    Returns:
        The loss of each example, `[batch]`, in the dtype of `inputs`.

    Raises:
        ValueError: If arguments do not fit each other, or the shards are not cut as
            `partition_strategy` says.
        tf.errors.InvalidArgumentError: If a label or candidate id is out of range.

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
        loss_functions.SOFTMAX,
        weights=weights,
        biases=biases,
        labels=labels,
        inputs=inputs,
        num_sampled=num_sampled,
        num_classes=num_classes,
        num_true=num_true,
        sampled_values=sampled_values,
        remove_accidental_hits=remove_accidental_hits,
        partition_strategy=partition_strategy,
        seed=seed,
        name=name,
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
    """Computes the noise-contrastive estimation loss: labels against noise classes.

    This is `tfsampled.nn.nce_loss` with a choice of how a sharded table is laid out.
    See there for the formula and for details of the arguments and errors.

    Args:
        weights: The class embeddings `[num_classes, dim]`, in one piece or in shards.
        biases: The class biases `[num_classes]`, in one piece or in shards, or `None`.
        labels: The target classes, integers `[batch, num_true]`.
        inputs: The activations `[batch, dim]`, floating.
        num_sampled: An `int`, the number of noise classes to draw per call.
        num_classes: An `int`, the number of classes.
        num_true: An `int`, the number of labels of an example.
        sampled_values: The result of a candidate sampler, or `None`.
        remove_accidental_hits: A `bool`.
        partition_strategy: "mod" or "div", as in `sampled_softmax_loss`.
        name: A name scope for the operations.

    Returns:
        The loss of each example, `[batch]`, in the dtype of `inputs`.

    Raises:
        ValueError: As in `sampled_softmax_loss`.
        tf.errors.InvalidArgumentError: If a label or candidate id is out of range.

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
        loss_functions.LOGISTIC,
        weights=weights,
        biases=biases,
        labels=labels,
        inputs=inputs,
        num_sampled=num_sampled,
        num_classes=num_classes,
        num_true=num_true,
        sampled_values=sampled_values,
        remove_accidental_hits=remove_accidental_hits,
        partition_strategy=partition_strategy,
        seed=None,
        name=name,
    )
