"""Sampled losses: draw candidates, look up rows, compute logits and loss."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from tfsampled._core import loss_arguments, validation
from tfsampled._core.candidate_sampling import samplers
from tfsampled._core.candidate_sampling.accidental_hits import find_accidental_hits
from tfsampled._core.candidate_sampling.samplers import Candidates
from tfsampled._core.embedding.sharded_table import Table
from tfsampled._core.loss_arguments import LossArguments
from tfsampled._core.sampled_loss.autodiff import sampled_loss_with_gradient
from tfsampled._core.sampled_loss.lookup import lookup
from tfsampled._core.sampled_loss.loss_functions import LossFunction, with_negatives
from tfsampled._core.static_ops import num_rows
from tfsampled._core.xla import on_host, size_depends_on_data, tracing_for_xla


@tf.autograph.experimental.do_not_convert  # a caller's tf.function need not rewrite it
def sampled_loss(
    loss_function: LossFunction,
    *,
    weights: Any,
    biases: Any,
    labels: Any,
    inputs: Any,
    num_sampled: Any,
    num_classes: Any,
    num_true: Any,
    sampled_values: Any,
    remove_accidental_hits: bool,
    partition_strategy: str,
    seed: int | None,
    name: str | None,
) -> tf.Tensor:
    """Validates the arguments, draws candidates unless they are given, computes a loss.

    Args:
        loss_function: One of `loss_functions`. The other arguments are those of
            `tfsampled.compat.v1.nn.sampled_softmax_loss`.

    Returns:
        The loss `[batch]`, in the dtype of `inputs`.
    """
    values = tf.nest.flatten([weights, biases, inputs, labels])
    with tf.compat.v1.name_scope(name, "compute_sampled_logits", values):
        arguments = loss_arguments.convert(
            weights=weights,
            biases=biases,
            labels=labels,
            inputs=inputs,
            num_true=num_true,
            partition_strategy=partition_strategy,
            flat_labels=sampled_values is not None and not remove_accidental_hits,
        )
        if sampled_values is None:
            arguments, candidates = _draw(arguments, num_sampled, num_classes, seed)
            if not isinstance(num_rows := arguments.num_rows, int):
                num_classes = tf.minimum(tf.cast(num_rows, tf.int64), int(num_classes))
        else:
            if not remove_accidental_hits:
                num_sampled = None  # TensorFlow reads it to find hits only
            arguments, candidates = _validate_sampled_values(
                arguments, sampled_values, num_sampled, num_classes
            )
            num_classes = arguments.num_rows
        if remove_accidental_hits:
            # TensorFlow takes a seed here, which changes those of later operations.
            tf.compat.v1.random.get_seed(None)
        loss = loss_from_candidates(
            loss_function,
            weights=arguments.weights,
            biases=arguments.biases,
            labels=arguments.labels,
            inputs=arguments.inputs,
            candidates=candidates,
            num_classes=num_classes,
            remove_accidental_hits=remove_accidental_hits,
        )
        loss = tf.cast(loss, arguments.inputs.dtype)
        loss.set_shape([arguments.static_batch])
        return loss


def loss_from_candidates(
    loss_function: LossFunction,
    *,
    weights: Table,
    biases: Table | None,
    labels: tf.Tensor,
    inputs: tf.Tensor,
    candidates: Candidates,
    num_classes: int | tf.Tensor,
    remove_accidental_hits: bool,
    label_weights: tf.Tensor | None = None,
    num_hard_negatives: int | None = None,
    negatives: tf.Tensor | None = None,
    soft_cap: float | None = None,
    num_valid: tf.Tensor | None = None,
) -> tf.Tensor:
    """Computes a loss from candidates. Validates nothing.

    Args:
        weights: Rows `[dim]`.
        biases: Rows `[]`, or None.
        labels: int64 `[batch, num_true]`.
        inputs: `[batch, dim]`, floating.
        candidates: Ids `[num_sampled]` and expected counts.
        num_classes: The bound of class ids; beyond it the loss is NaN.
        remove_accidental_hits: Whether a candidate that is a label of an example is
            left out of the example's loss.
        label_weights: `[batch, num_true]`, what each label weighs in its example. A
            label of weight 0 is padding and has no part in the loss. None for
            `1 / num_true`.
        num_hard_negatives: How many candidates of the highest logits enter an example's
            loss; None for all.
        negatives: int64 `[batch, n]`, classes that an example is compared with besides
            the candidates, -1 for none. Of the softmax loss only.
        soft_cap: Logits become `soft_cap * tanh(logits / soft_cap)` before they are
            corrected; None for no cap.
        num_valid: `[]` int32, how many examples are needed, which come first; None for
            all. The losses of others are arbitrary.

    Returns:
        `[batch]`, in float32, or in float64 for float64 inputs.
    """
    has_candidates = candidates.sampled_candidates.shape[0] != 0
    hit_classes = [labels] if remove_accidental_hits and has_candidates else []
    num_true, ids = labels.shape[1], labels
    if negatives is not None:
        is_negative = _is_negative(negatives, labels)
        with on_host():
            hit_classes.append(tf.where(is_negative, negatives, -1))
            # Looked up with the labels, so that a table gets one IndexedSlices. A
            # padding reads the row of a label, which is read anyway.
            negatives = tf.where(tf.equal(negatives, -1), labels[:, :1], negatives)
            ids = tf.concat([labels, negatives], axis=1)
        count = tf.ones_like(negatives, tf.float32)
        count = tf.concat([candidates.true_expected_count, count], axis=1)
        candidates = candidates._replace(true_expected_count=count)
    logit_inputs = lookup(
        weights=weights,
        biases=biases,
        labels=ids,
        inputs=inputs,
        candidates=candidates,
        num_classes=num_classes,
        soft_cap=soft_cap,
    )
    hits = None
    if hit_classes:
        batch = num_rows(logit_inputs.inputs)
        with on_host():
            classes = tf.concat(hit_classes, axis=1)
            num_lists = tf.compat.dimension_value(classes.shape[0])
            if not isinstance(batch, int) or num_lists != batch:
                classes = tf.broadcast_to(classes, [batch, classes.shape[1]])
        hits = find_accidental_hits(classes, candidates.sampled_candidates)
    if label_weights is not None:
        label_weights = tf.cast(label_weights, logit_inputs.true_logits.dtype)
    true_logits = logit_inputs.true_logits
    if negatives is not None:
        true_logits, logits = tf.split(true_logits, [num_true, -1], axis=1)
    loss = sampled_loss_with_gradient(
        loss_function,
        *logit_inputs._replace(true_logits=true_logits),
        hits=hits,
        label_weights=label_weights,
        num_hard=num_hard_negatives,
        soft_cap=soft_cap,
        num_valid=num_valid,
    )
    if negatives is None:
        return loss
    logits = tf.where(is_negative, logits, tf.constant(float("-inf"), logits.dtype))
    return with_negatives(loss, true_logits, label_weights, logits)


@on_host()
def _is_negative(negatives: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """Returns where `[batch, n]` ids are neither padding, nor a label, nor repeated."""
    # negatives = [[7, 5, 7, -1]], labels = [[5]] -> [[1, 0, 0, 0]]
    # order = [[3, 1, 0, 2]]: 7 at place 2 follows 7 at place 0
    order = tf.argsort(negatives, axis=1, stable=True)
    ascending = tf.gather(negatives, order, batch_dims=1)
    is_repeated = tf.pad(
        tf.equal(ascending[:, 1:], ascending[:, :-1]), [[0, 0], [1, 0]]
    )
    is_repeated = tf.gather(is_repeated, tf.argsort(order, axis=1), batch_dims=1)
    is_label = tf.reduce_any(
        tf.equal(negatives[:, :, tf.newaxis], labels[:, tf.newaxis]), axis=2
    )
    return tf.not_equal(negatives, -1) & ~is_label & ~is_repeated


def _draw(
    arguments: LossArguments, num_sampled: Any, num_classes: Any, seed: int | None
) -> tuple[LossArguments, Candidates]:
    """Validates the arguments, then draws log-uniform candidates."""
    num_classes = validation.positive_int(num_classes, "num_classes")
    num_sampled = validation.positive_int(
        num_sampled, "num_sampled", num_classes=num_classes
    )
    loss_arguments.check_classes(arguments.weights, arguments.biases, num_classes)
    checks = [validation.ids_check(arguments.labels, num_classes, "labels")]
    checks += validation.batch_checks(arguments.labels, arguments.inputs)
    checks += loss_arguments.rows_check(arguments.num_rows, num_classes)
    # The draw waits for the checks: a refused call leaves the sampler where it was.
    assertions = validation.assert_all(checks)
    arguments = arguments.after(assertions)
    with tf.control_dependencies(assertions):
        candidates = samplers.sample(
            "LogUniform",
            arguments.labels,
            arguments.num_true,
            num_sampled,
            True,
            num_classes,
            seed,
        )
    return arguments, candidates


def _validate_sampled_values(
    arguments: LossArguments, sampled_values: Any, num_sampled: Any, num_classes: Any
) -> tuple[LossArguments, Candidates]:
    """Validates the arguments and the caller's candidates.

    TensorFlow reads `num_classes` only to draw. A wrong one is refused where the call
    shows it; labels may be any row of the table.
    """
    num_classes = validation.static_int(num_classes, "num_classes")
    if num_classes is not None:
        loss_arguments.check_classes(arguments.weights, arguments.biases, num_classes)
    num_sampled = validation.static_int(num_sampled, "num_sampled", minimum=0)
    candidates = _convert_sampled_values(sampled_values, arguments, num_sampled)
    ids, num_rows = candidates.sampled_candidates, arguments.num_rows
    assertions = validation.assert_all(
        [
            validation.ids_check(arguments.labels, num_rows, "labels"),
            validation.ids_check(ids, num_rows, "sampled_candidates"),
            *validation.batch_checks(arguments.labels, arguments.inputs),
        ]
    )
    if assertions:
        with tf.control_dependencies(assertions), on_host():
            candidates = candidates._replace(sampled_candidates=tf.identity(ids))
    return arguments.after(assertions), candidates


def _convert_sampled_values(
    sampled_values: Any, arguments: LossArguments, num_sampled: int | None
) -> Candidates:
    """Converts the three tensors of a candidate sampler.

    Args:
        sampled_values: `(sampled_candidates, true_expected_count,
            sampled_expected_count)`, counts of any shape that broadcasts to
            `[batch, num_true]` and `[batch, num_sampled]`.
        num_sampled: How many candidates there must be, None for any number.

    Raises:
        ValueError: If they are not three tensors, or their shapes do not fit.
    """
    try:
        ids, true_count, sampled_count = sampled_values
    except (TypeError, ValueError):
        raise ValueError(
            "`sampled_values` must be (sampled_candidates, true_expected_count, "
            "sampled_expected_count), as a candidate sampler returns them. "
            f"Received: sampled_values={sampled_values!r}."
        ) from None
    with on_host():
        ids = validation.as_tensor(ids, tf.int64, "sampled_candidates")
        ids = tf.identity(tf.cast(ids, tf.int64))
    if not ids.shape.is_compatible_with([num_sampled]):
        raise ValueError(
            "`sampled_candidates` must have the shape [num_sampled]. Received: "
            f"sampled_candidates.shape={ids.shape}, num_sampled={num_sampled}."
        )
    if tracing_for_xla() and size_depends_on_data(ids):
        raise ValueError(
            "`sampled_candidates` must be of a number that is known before running, "
            "under jit_compile=True. Pad them to a fixed number: any class with a "
            "`sampled_expected_count` of infinity has no part in the loss. Received: "
            f"sampled_candidates={ids!r}."
        )
    with on_host():
        ids = tf.stop_gradient(tf.ensure_shape(ids, [None]))
    batch = arguments.static_batch
    return Candidates(
        ids,
        _convert_count(true_count, "true_expected_count", [batch, arguments.num_true]),
        _convert_count(sampled_count, "sampled_expected_count", [batch, ids.shape[0]]),
    )


def _convert_count(count: Any, name: str, shape: list[int | None]) -> tf.Tensor:
    count = tf.stop_gradient(validation.as_tensor(count, tf.float32, name))
    target = tf.TensorShape(shape)
    try:
        fits = tf.broadcast_static_shape(count.shape, target).is_compatible_with(target)
    except ValueError:
        fits = False
    if not fits:
        raise ValueError(
            f"`{name}` must broadcast to {target}, a count for each example and class. "
            f"Received: {name}.shape={count.shape}."
        )
    return count
