"""The full softmax functions of `tfsampled.nn`: convert and check, then compute."""

from __future__ import annotations

import tensorflow as tf

from tfsampled._core import loss_arguments, validation
from tfsampled._core.embedding.sharded_table import Table
from tfsampled._core.full_softmax.loss import LossOptions, full_softmax_loss
from tfsampled._core.full_softmax.top_k import full_softmax_top_k
from tfsampled._core.labels import parse_class_lists
from tfsampled._core.loss_arguments import broadcast_batch
from tfsampled._core.xla import on_host


@tf.autograph.experimental.do_not_convert  # a caller's tf.function need not rewrite it
def softmax_loss(
    weights,
    biases,
    labels,
    inputs,
    num_true=1,
    partition_strategy="div",
    label_smoothing=0.0,
    logit_soft_cap=None,
    z_loss=0.0,
    name="softmax_loss",
):
    """Computes the softmax cross entropy over all classes, in chunks of classes.

    With logits `s_c = <inputs, weights_c> + biases_c` of the classes `c`,

        loss = log(sum_c exp(s_c)) - mean_{t in labels} s_t

    By default this equals `tf.nn.sparse_softmax_cross_entropy_with_logits`, but without
    the logits `[batch, num_classes]`: a chunk of a few thousand classes is computed at
    a time, and once more for the gradient. The loss can be differentiated once.

    Args:
        weights: The class embeddings `[num_classes, dim]`, floating, in any of the
            forms that `sampled_softmax_loss` takes. Every row is a class.
        biases: The class biases `[num_classes]`, in one of the same forms, or `None`
            for no bias. They need not be cut into as many shards as `weights`.
        labels: The target classes, integers `[batch, num_true]` in `[0, num_classes)`.
            A batch of 1, here or in `inputs`, is broadcast against the other.
        inputs: The activations `[batch, dim]`: float16, bfloat16, float32 or float64.
        num_true: An `int`, the number of labels of an example; each weighs
            `1 / num_true`.
        partition_strategy: The layout of a table in shards. "div": contiguous runs of
            `rows // n` rows, the first `rows % n` shards one row larger. "mod": class
            `c` of `n` shards is row `c // n` of shard `c % n`.
        label_smoothing: In `[0, 1]`: the labels' share of the target is one minus this,
            and the rest is spread over all classes alike.
        logit_soft_cap: A positive number `cap`: logits become
            `cap * tanh(s_c / cap)`. None for no cap.
        z_loss: A number in `[0, 1]`: `z_loss * log(sum_c exp(s_c)) ** 2` is added,
            which keeps the logits from drifting.
        name: A name scope for the operations.

    Returns:
        The loss of each example, `[batch]`, in the dtype of `inputs`. Products, softmax
        and loss are computed in float32, or in float64 for float64 inputs. The
        gradients of `weights` and `biases` are dense tensors.

    Raises:
        ValueError: If arguments do not fit each other, as far as known before running.
        tf.errors.InvalidArgumentError: If a label is out of range, or the batch sizes
            differ. Under XLA, which cannot raise, the loss of the example is NaN.

    Example:
        >>> import tensorflow as tf
        >>> import tfsampled
        >>> weights = tf.constant([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
        >>> inputs = tf.constant([[0.0, 0.0], [2.0, 1.0]])
        >>> loss = tfsampled.nn.softmax_loss(weights, None, [[0], [2]], inputs)
        >>> [round(float(x), 4) for x in loss]  # log(3), log(1 + exp(-1) + exp(-2))
        [1.0986, 0.4076]

    Reference:
        Milakov and Gimelshein, Online normalizer calculation for softmax, 2018,
        https://arxiv.org/abs/1805.02867; for `z_loss` Chowdhery et al., PaLM, 2022,
        https://arxiv.org/abs/2204.02311; for `logit_soft_cap` Gemma Team, Gemma 2,
        2024, https://arxiv.org/abs/2408.00118; Wijmans et al., Cut Your Losses in
        Large-Vocabulary Language Models, 2024, https://arxiv.org/abs/2411.09009
    """
    options = LossOptions(
        validation.fraction(label_smoothing, "label_smoothing"),
        validation.optional_positive_float(logit_soft_cap, "logit_soft_cap"),
        validation.fraction(z_loss, "z_loss"),
    )
    with tf.compat.v1.name_scope(name, "softmax_loss"):
        arguments = loss_arguments.convert(
            weights=weights,
            biases=biases,
            labels=labels,
            inputs=inputs,
            num_true=num_true,
            partition_strategy=partition_strategy,
        )
        checks = _table_checks(arguments.weights, arguments.biases)
        labels, num_rows = arguments.labels, arguments.weights.num_rows()
        checks += [validation.ids_check(labels, num_rows, "labels")]
        checks += validation.batch_checks(labels, arguments.inputs)
        arguments = arguments.after(validation.assert_all(checks))
        losses = full_softmax_loss(
            broadcast_batch(arguments.inputs, like=arguments.labels),
            arguments.weights,
            arguments.biases,
            broadcast_batch(arguments.labels, like=arguments.inputs),
            options=options,
        )
        losses = tf.cast(losses, arguments.inputs.dtype)
        losses.set_shape([arguments.static_batch])
        return losses


@tf.autograph.experimental.do_not_convert
def softmax_top_k(
    weights,
    biases,
    inputs,
    k,
    partition_strategy="div",
    exclude=None,
    name="softmax_top_k",
):
    """Finds the classes of the `k` largest logits, in chunks of classes.

    With logits `s_c = <inputs, weights_c> + biases_c`, it finds what `tf.math.top_k`
    finds among all logits `[batch, num_classes]`, without making them. Among equal
    logits the lower class id comes first; NaN comes last.

    Args:
        weights: The class embeddings `[num_classes, dim]`, floating, in any of the
            forms that `sampled_softmax_loss` takes. Every row is a class.
        biases: The class biases `[num_classes]`, in one of the same forms, or `None`
            for no bias. They need not be cut into as many shards as `weights`.
        inputs: The activations `[batch, dim]`: float16, bfloat16, float32 or float64.
        k: An `int` in `[1, num_classes]`.
        partition_strategy: "div" or "mod", as in `softmax_loss`.
        exclude: Class ids `[batch, n]` that may not be among the `k`, such as items
            already seen; -1 for none.
        name: A name scope for the operations.

    Returns:
        The logits in descending order, `[batch, k]`, in the dtype of `inputs`; and
        their class ids, int32, `[batch, k]`. Where `exclude` leaves fewer classes, they
        end in minus infinity and -1. Products are computed in float32, or in
        float64 for float64 inputs. The logits have gradients; those of `weights` and
        `biases` are `tf.IndexedSlices` of the classes found.

    Raises:
        ValueError: If arguments do not fit each other, or `k` is not in
            `[1, num_classes]`.
        tf.errors.InvalidArgumentError: If an id in `exclude` is out of range.

    Example:
        >>> import tensorflow as tf
        >>> import tfsampled
        >>> weights = tf.constant([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
        >>> logits, ids = tfsampled.nn.softmax_top_k(weights, None, [[2.0, 1.0]], k=2)
        >>> logits.numpy().tolist(), ids.numpy().tolist()
        ([[3.0, 2.0]], [[2, 0]])
        >>> logits, ids = tfsampled.nn.softmax_top_k(
        ...     weights, None, [[2.0, 1.0]], k=2, exclude=[[2]])
        >>> logits.numpy().tolist(), ids.numpy().tolist()
        ([[2.0, 1.0]], [[0, 1]])
    """
    with tf.compat.v1.name_scope(name, "softmax_top_k"):
        weights, biases = loss_arguments.convert_tables(
            weights, biases, partition_strategy
        )
        inputs = loss_arguments.convert_inputs(inputs, weights)
        checks = _table_checks(weights, biases)
        k = validation.positive_int(k, "k", num_classes=weights.static_rows)
        num_rows = weights.num_rows()
        if weights.static_rows is None:
            checks.append(_k_check(k, num_rows))
        if checks:
            with tf.control_dependencies(validation.assert_all(checks)):
                inputs = tf.identity(inputs)
        if exclude is not None:
            exclude = parse_class_lists(exclude, inputs.shape[:1], num_rows, "exclude")
        values, ids = full_softmax_top_k(inputs, weights, biases, k, exclude)
        return tf.cast(values, inputs.dtype), tf.cast(ids, tf.int32)


def _table_checks(weights: Table, biases: Table | None) -> list[validation.Check]:
    """Checks that weights and biases have as many rows, where that is unknown.

    Raises:
        ValueError: If it is known that they have not, or shards are not cut as
            `partition_strategy` says.
    """
    num_classes = weights.static_rows
    if num_classes is not None:
        loss_arguments.check_classes(weights, biases, num_classes)
    num_biases = num_classes if biases is None else biases.static_rows
    message = (
        "`biases` must have as many rows as `weights`. Received: "
        "{} biases, {} rows of weights."
    )
    if biases is not None and None in (num_classes, num_biases):
        sizes = [tf.cast(table.num_rows(), tf.int64) for table in (biases, weights)]
        with on_host():
            return [validation.Check(tf.equal(*sizes), message, lambda: sizes)]
    if num_biases != num_classes:
        raise ValueError(message.format(num_biases, num_classes))
    return []


@on_host()
def _k_check(k: int, num_rows: tf.Tensor) -> validation.Check:
    message = f"`k` must be at most `num_classes`. Received: k={k}, num_classes={{}}."
    return validation.Check(num_rows >= k, message, lambda: (num_rows,))
