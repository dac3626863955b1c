"""The candidate samplers of `tf.random`, which also run under XLA.

A sampler draws `num_sampled` class ids and returns them with the expected counts of the
labels and of these ids. With replacement, the expected count of a class of probability
`P` is `P * num_sampled`. With `unique=True` it is `1 - (1 - P)**num_tries`, where
`num_tries` draws were needed to find `num_sampled` different classes. See
https://www.tensorflow.org/extras/candidate_sampling.pdf.

Each function draws the ids that TensorFlow draws from the same seeds, call by call.
Without XLA, it calls TensorFlow's own op. In a `tf.function(jit_compile=True)`, where
that op does not exist, compiled code draws them, with these differences:

- The first call of a traced function draws what the first call of TensorFlow's op in
  a function draws, the second what its second draws, and so on. A new trace (new
  shapes) starts anew, as in TensorFlow. But `tf.random.set_seed`, which restarts the
  ops of traced functions too, does not restart compiled code that was traced before:
  make the function anew to start again.
- Ops called eagerly with equal arguments share one position in the random stream. In
  compiled code, only the calls of the same trace share a position.
- Without any seed the draws are different in each process and each trace.
- The expected count of a label out of range is NaN instead of an error.
- A traced function that is called in several places has one position for all of them.
  TensorFlow gives each place, and the forward pass that a gradient tape records, a
  position of its own.
- A compiled function that draws cannot be exported as a SavedModel by itself, nor run
  in other replicas of a distribution strategy than the first.
- A plain `tf.function` that was traced before keeps TensorFlow's op: if a compiled
  function calls it afterwards, XLA refuses it. Compile the inner function too, or call
  the outer one first.
"""

from tfsampled._core.candidate_sampling import samplers as _samplers

__all__ = [
    "all_candidate_sampler",
    "fixed_unigram_candidate_sampler",
    "learned_unigram_candidate_sampler",
    "log_uniform_candidate_sampler",
    "uniform_candidate_sampler",
]


def uniform_candidate_sampler(
    true_classes, num_true, num_sampled, unique, range_max, seed=None, name=None
):
    """Samples classes that are all equally likely, `P(class) = 1 / range_max`.

    Args:
        true_classes: int64 `[batch, num_true]`, the labels. They may be sampled too.
        num_true: int, the labels of an example.
        num_sampled: int, how many classes to sample.
        unique: bool, sample without replacement; needs `num_sampled <= range_max`.
        range_max: int, the number of classes.
        seed: int, the seed of this operation; see `tf.random.set_seed`.
        name: A name for the operation.

    Returns:
        A tuple `(sampled_candidates, true_expected_count, sampled_expected_count)`:
        int64 `[num_sampled]`, float32 `[batch, num_true]`, float32 `[num_sampled]`.

    Raises:
        ValueError: If an argument is invalid, whatever the data.
        tf.errors.InvalidArgumentError: If a label is outside `[0, range_max)`. Under
            XLA its expected count is NaN instead.

    Example:
        >>> import tensorflow as tf
        >>> import tfsampled
        >>> tf.random.set_seed(1)
        >>> draw = tf.function(
        ...     tfsampled.random.uniform_candidate_sampler, jit_compile=True)
        >>> actual = draw([[3]], 1, 4, True, 1000, seed=2)
        >>> kernel = tf.random.uniform_candidate_sampler(
        ...     [[3]], 1, 4, True, 1000, seed=2)
        >>> actual[0].numpy().tolist() == kernel[0].numpy().tolist()
        True
    """
    return _samplers.sample(
        "Uniform", true_classes, num_true, num_sampled, unique, range_max, seed, name
    )


def log_uniform_candidate_sampler(
    true_classes, num_true, num_sampled, unique, range_max, seed=None, name=None
):
    """Samples classes from a log-uniform (Zipfian) distribution.

    `P(class) = (log(class + 2) - log(class + 1)) / log(range_max + 1)`: for classes in
    order of falling frequency, like the words of a vocabulary.

    Args:
        true_classes: int64 `[batch, num_true]`, the labels. They may be sampled too.
        num_true: int, the labels of an example.
        num_sampled: int, how many classes to sample.
        unique: bool, sample without replacement; needs `num_sampled <= range_max`.
        range_max: int, the number of classes.
        seed: int, the seed of this operation; see `tf.random.set_seed`.
        name: A name for the operation.

    Returns:
        A tuple `(sampled_candidates, true_expected_count, sampled_expected_count)`:
        int64 `[num_sampled]`, float32 `[batch, num_true]`, float32 `[num_sampled]`.

    Raises:
        ValueError: If an argument is invalid, whatever the data.
        tf.errors.InvalidArgumentError: If a label is outside `[0, range_max)`. Under
            XLA its expected count is NaN instead.

    Example:
        >>> import tensorflow as tf
        >>> import tfsampled
        >>> ids, of_labels, of_ids = tfsampled.random.log_uniform_candidate_sampler(
        ...     [[0], [999]], 1, 64, True, 1000)
        >>> ids.shape, of_labels.shape, of_ids.shape
        (TensorShape([64]), TensorShape([2, 1]), TensorShape([64]))
        >>> bool(of_labels[0, 0] > of_labels[1, 0])
        True
    """
    return _samplers.sample(
        "LogUniform", true_classes, num_true, num_sampled, unique, range_max, seed, name
    )


def learned_unigram_candidate_sampler(
    true_classes, num_true, num_sampled, unique, range_max, seed=None, name=None
):
    """Samples classes in proportion to how often they were labels before.

    `P(class) = (1 + labels seen so far of this class) / (range_max + labels seen)`;
    the labels of this call count from the next call on. What was learned is not saved
    in checkpoints. In compiled code it belongs to the traced function, and each call
    sums all `range_max` weights.

    Args:
        true_classes: int64 `[batch, num_true]`, the labels. They may be sampled too.
        num_true: int, the labels of an example.
        num_sampled: int, how many classes to sample.
        unique: bool, sample without replacement; needs `num_sampled <= range_max`.
        range_max: int, the number of classes; less than `2**31 - 1`.
        seed: int, the seed of this operation; see `tf.random.set_seed`.
        name: A name for the operation.

    Returns:
        A tuple `(sampled_candidates, true_expected_count, sampled_expected_count)`:
        int64 `[num_sampled]`, float32 `[batch, num_true]`, float32 `[num_sampled]`.

    Raises:
        ValueError: If an argument is invalid, whatever the data.
        tf.errors.InvalidArgumentError: If a label is outside `[0, range_max)`. Under
            XLA its expected count is NaN instead, and it is not learned.

    Example:
        >>> import tensorflow as tf
        >>> import tfsampled
        >>> tf.random.set_seed(1)
        >>> draw = tf.function(
        ...     tfsampled.random.learned_unigram_candidate_sampler, jit_compile=True)
        >>> labels = tf.zeros([8, 1], tf.int64)
        >>> [float(draw(labels, 1, 1, False, 8).true_expected_count[0, 0])
        ...  for _ in range(2)]
        [0.125, 0.5625]
    """
    return _samplers.sample(
        "LearnedUnigram",
        true_classes,
        num_true,
        num_sampled,
        unique,
        range_max,
        seed,
        name,
    )


def fixed_unigram_candidate_sampler(
    true_classes,
    num_true,
    num_sampled,
    unique,
    range_max,
    vocab_file="",
    distortion=1.0,
    num_reserved_ids=0,
    num_shards=1,
    shard=0,
    unigrams=(),
    seed=None,
    name=None,
):
    """Samples classes in proportion to given weights.

    `P(class) = weight**distortion / sum of all weight**distortion`. In compiled code
    the weights are an input of the graph. Without XLA they are an attribute of
    TensorFlow's op, which takes four bytes per class in every saved graph.

    With `unique=True`, the weights must let `num_sampled` distinct classes be found in
    fewer than `2**31` tries on average: after that many, TensorFlow's op aborts the
    process.

    Args:
        true_classes: int64 `[batch, num_true]`, the labels. They may be sampled too.
        num_true: int, the labels of an example.
        num_sampled: int, how many classes to sample.
        unique: bool, sample without replacement; needs `num_sampled <= range_max`.
        range_max: int, the number of classes: as many as have a weight.
        vocab_file: A file with a line for each class, whose last comma-separated field
            is the weight. Either this or `unigrams`.
        distortion: float, the power that weights are raised to; 0 makes them equal.
        num_reserved_ids: int, classes at the front that are never drawn.
        num_shards: int, parts that the classes are dealt out to.
        shard: int, the part that this sampler draws from.
        unigrams: The weights, as a list of floats.
        seed: int, the seed of this operation; see `tf.random.set_seed`.
        name: A name for the operation.

    Returns:
        A tuple `(sampled_candidates, true_expected_count, sampled_expected_count)`:
        int64 `[num_sampled]`, float32 `[batch, num_true]`, float32 `[num_sampled]`.

    Raises:
        ValueError: If an argument is invalid, whatever the data.
        tf.errors.InvalidArgumentError: If a label is outside `[0, range_max)`. Under
            XLA its expected count is NaN instead.

    Example:
        >>> import tensorflow as tf
        >>> import tfsampled
        >>> ids, of_labels, _ = tfsampled.random.fixed_unigram_candidate_sampler(
        ...     [[1]], 1, 100, False, 3, unigrams=[0.0, 1.0, 3.0])
        >>> sorted(set(ids.numpy().tolist())), of_labels.numpy().tolist()
        ([1, 2], [[25.0]])
    """
    return _samplers.sample(
        "FixedUnigram",
        true_classes,
        num_true,
        num_sampled,
        unique,
        range_max,
        seed,
        name,
        vocab_file=vocab_file,
        distortion=distortion,
        num_reserved_ids=num_reserved_ids,
        num_shards=num_shards,
        shard=shard,
        unigrams=unigrams,
    )


def all_candidate_sampler(
    true_classes, num_true, num_sampled, unique, seed=None, name=None
):
    """Returns every class: the samples with which a sampled loss is the full one.

    Args:
        true_classes: int64 `[batch, num_true]`, the labels.
        num_true: int, the labels of an example.
        num_sampled: int, the number of classes.
        unique: bool, without effect.
        seed: int, without effect. As in TensorFlow, a call without it moves on the
            seeds of the operations that follow in a graph.
        name: A name for the operation.

    Returns:
        A tuple `(sampled_candidates, true_expected_count, sampled_expected_count)`:
        the int64 numbers below `num_sampled`, and float32 ones.

    Raises:
        ValueError: If an argument is invalid, whatever the data.
        tf.errors.InvalidArgumentError: If a label is outside `[0, num_sampled)`. Under
            XLA its expected count is NaN instead.

    Example:
        >>> import tfsampled
        >>> ids, _, _ = tfsampled.random.all_candidate_sampler([[2]], 1, 3, True)
        >>> ids.numpy().tolist()
        [0, 1, 2]
    """
    return _samplers.sample(
        "All", true_classes, num_true, num_sampled, unique, num_sampled, seed, name
    )
