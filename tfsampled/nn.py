"""The functions of `tf.nn`: the same names, signatures and numbers.

They also run where TensorFlow's do not: under XLA, in float16, bfloat16 and float64,
without biases, on tuples of shards and on lists of labels. The losses that take a
`partition_strategy` are in `tfsampled.compat.v1.nn`.

`softmax_loss` and `softmax_top_k` are additions: the full softmax over all classes,
computed in chunks of classes.

Parameters have no annotations because their signatures equal TensorFlow's.
"""

from tfsampled._core.candidate_sampling.accidental_hits import compute_accidental_hits
from tfsampled._core.full_softmax.api import softmax_loss, softmax_top_k
from tfsampled.compat.v1 import nn as v1
from tfsampled.random import (
    all_candidate_sampler,
    fixed_unigram_candidate_sampler,
    learned_unigram_candidate_sampler,
)

__all__ = [
    "all_candidate_sampler",
    "compute_accidental_hits",
    "fixed_unigram_candidate_sampler",
    "learned_unigram_candidate_sampler",
    "nce_loss",
    "sampled_softmax_loss",
    "softmax_loss",
    "softmax_top_k",
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
    seed=None,
    name="sampled_softmax_loss",
):
    """Computes the softmax cross entropy over the labels and a sample of the classes.

    With corrected logits `s_c = <inputs, weights_c> + biases_c - log Q_c`, where `Q_c`
    is the expected count of class `c` among the candidates,

        loss = log(sum_{t in labels} exp(s_t) + sum_{c in sampled} exp(s_c))
               - mean_{t in labels} s_t

    For training only: it estimates, and usually underestimates, the full softmax loss.
    By default the candidates are log-uniform, so class ids should be ordered by
    decreasing frequency. Shards of a table are contiguous ("div").

    If `sampled_values` repeats a class, only its last copy is removed as an accidental
    hit, as in TensorFlow.

    Args:
        weights: The class embeddings `[num_classes, dim]`, floating: a tensor, a
            `tf.Variable` or Keras variable, a list or tuple of shards, a
            `PartitionedVariable` or a `ShardedVariable`. It may have more rows than
            `num_classes`.
        biases: The class biases `[num_classes]`, in one of the same forms, or `None`
            for no bias.
        labels: The target classes, integers `[batch, num_true]` in `[0, num_classes)`.
            A batch of 1, here or in `inputs`, is broadcast against the other.
        inputs: The activations `[batch, dim]`: float16, bfloat16, float32 or float64.
        num_sampled: An `int`, the number of classes to draw per call.
        num_classes: An `int`, the number of classes.
        num_true: An `int`, the number of labels of an example; each weighs
            `1 / num_true`.
        sampled_values: The result of a candidate sampler: `(sampled_candidates
            [num_sampled], true_expected_count [batch, num_true],
            sampled_expected_count [num_sampled])`. `None` draws `num_sampled` distinct
            log-uniform candidates.
        remove_accidental_hits: A `bool`, whether a candidate that is a label of an
            example is left out of the example's sum.
        seed: An `int`, the operation seed of the draw. With it, or with
            `tf.random.set_seed`, the candidates are TensorFlow's, call by call.
        name: A name scope for the operations.

    Returns:
        The loss of each example, `[batch]`, in the dtype of `inputs`. Softmax, sums and
        loss are computed in float32, or in float64 for float64 inputs. Weights and
        inputs in bfloat16 are multiplied as they are where the processor does so, as
        are float16 ones under XLA.
        The gradient of `weights` and `biases` is a `tf.IndexedSlices`.

    Raises:
        ValueError: If arguments do not fit each other, as far as known before running.
        tf.errors.InvalidArgumentError: If a label or candidate id is out of range, or
            the batch sizes differ. Under XLA, which cannot raise, the loss of the
            example is NaN.

    Example:
        >>> import tensorflow as tf
        >>> import tfsampled
        >>> weights = tf.random.stateless_normal([1000, 8], seed=[1, 2])
        >>> biases = tf.zeros([1000])
        >>> inputs = tf.random.stateless_normal([2, 8], seed=[3, 4])
        >>> loss = tfsampled.nn.sampled_softmax_loss(
        ...     weights, biases, [[3], [17]], inputs, num_sampled=32, num_classes=1000
        ... )
        >>> loss.shape
        TensorShape([2])

    Reference:
        Jean et al., On Using Very Large Target Vocabulary for Neural Machine
        Translation, 2015, https://arxiv.org/abs/1412.2007, section 3; Candidate
        Sampling Algorithms Reference,
        https://www.tensorflow.org/extras/candidate_sampling.pdf
    """
    sizes = num_sampled, num_classes, num_true
    options = sampled_values, remove_accidental_hits, "div", name, seed
    return v1.sampled_softmax_loss(weights, biases, labels, inputs, *sizes, *options)


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
    name="nce_loss",
):
    """Computes the noise-contrastive estimation loss: labels against noise classes.

    With corrected logits `s_c = <inputs, weights_c> + biases_c - log Q_c`, where `Q_c`
    is the expected count of class `c` among the candidates, and targets `z_c`,
    `1 / num_true` for a label and 0 for a candidate,

        loss = sum_{c in labels and sampled} softplus(s_c) - z_c s_c

    With `remove_accidental_hits=True` this is the sampled logistic loss.

    Args:
        weights: The class embeddings `[num_classes, dim]`, floating, in any of the
            forms that `sampled_softmax_loss` takes.
        biases: The class biases `[num_classes]`, in one of the same forms, or `None`
            for no bias.
        labels: The target classes, integers `[batch, num_true]` in `[0, num_classes)`.
            A batch of 1, here or in `inputs`, is broadcast against the other.
        inputs: The activations `[batch, dim]`: float16, bfloat16, float32 or float64.
        num_sampled: An `int`, the number of noise classes to draw per call.
        num_classes: An `int`, the number of classes.
        num_true: An `int`, the number of labels of an example.
        sampled_values: The result of a candidate sampler, as in `sampled_softmax_loss`.
            `None` draws distinct log-uniform candidates; with `tf.random.set_seed` they
            are TensorFlow's.
        remove_accidental_hits: A `bool`, whether a candidate that is a label of an
            example is left out of the example's sum.
        name: A name scope for the operations.

    Returns:
        The loss of each example, `[batch]`, in the dtype of `inputs`. The gradient of
        `weights` and `biases` is a `tf.IndexedSlices`.

    Raises:
        ValueError: If arguments do not fit each other, as far as known before running.
        tf.errors.InvalidArgumentError: If a label or candidate id is out of range, or
            the batch sizes differ. Under XLA, which cannot raise, the loss of the
            example is NaN.

    Example:
        >>> import tensorflow as tf
        >>> import tfsampled
        >>> weights = tf.Variable(tf.random.stateless_normal([1000, 8], seed=[1, 2]))
        >>> inputs = tf.random.stateless_normal([2, 8], seed=[3, 4])
        >>> with tf.GradientTape() as tape:
        ...     loss = tfsampled.nn.nce_loss(
        ...         weights, None, [[3, 4], [17, 9]], inputs, 32, 1000, num_true=2
        ...     )
        >>> tape.gradient(loss, weights).values.shape  # 2 x 2 labels, 32 candidates
        TensorShape([36, 8])

    Reference:
        Gutmann and Hyvärinen, Noise-contrastive estimation, 2010,
        https://proceedings.mlr.press/v9/gutmann10a.html; Candidate Sampling Algorithms
        Reference, https://www.tensorflow.org/extras/candidate_sampling.pdf
    """
    sizes = num_sampled, num_classes, num_true
    options = sampled_values, remove_accidental_hits, "div", name
    return v1.nce_loss(weights, biases, labels, inputs, *sizes, *options)
