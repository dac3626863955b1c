"""A table of classes that no single device holds: its rows divided among replicas."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from tfsampled import samplers
from tfsampled._core import replicas, validation
from tfsampled._core.candidate_sampling.accidental_hits import find_accidental_hits
from tfsampled._core.embedding.class_logits import cap_logits, class_logits
from tfsampled._core.full_softmax.loss import full_logsumexp
from tfsampled._core.full_softmax.ranks import count_classes_above
from tfsampled._core.full_softmax.shards import shards_of
from tfsampled._core.full_softmax.top_k import full_softmax_top_k, merge_top_k
from tfsampled._core.labels import (
    Labels,
    apply_weights,
    broadcast_to_examples,
    flatten_inputs,
    parse_labels,
    real_tensor,
)
from tfsampled._core.sampled_loss.autodiff import sampled_loss_with_gradient
from tfsampled._core.sampled_loss.lookup import lookup
from tfsampled._core.sampled_loss.loss_functions import LOGSUMEXP
from tfsampled._core.static_ops import compute_dtype
from tfsampled._core.xla import on_host
from tfsampled.distribute import _parts
from tfsampled.distribute._parts import Part, local_replicas
from tfsampled.layers import SampledSoftmax, _class_table
from tfsampled.layers._losses import logit_rows, with_log_q
from tfsampled.optimizers._row_sparse_optimizer import validate_strategy


class _Batch(NamedTuple):
    """The examples of all replicas, as one replica sees them.

    Attributes:
        inputs: `[N, dim]`, in at least float32.
        ids: int64 `[N, T]`, the labels.
        in_range: bool `[N, T]`, whether a label is a class. XLA drops assertions.
        is_own: bool `[N, T]`, whether a label is one of this replica's classes.
        own_ids: int64 `[N, T]`, which of them; 0 for a class of another replica.
        own_weights: `[N, T]`, what each label weighs in its example; 0 for a class of
            another replica, and for padding.
        start: Where this replica's examples start.
        shape: int32, the axes `...` of this replica's examples.
        own: The labels of this replica's examples.
        sample_weight: `[...]` of this replica's examples, or None.
    """

    inputs: tf.Tensor
    ids: tf.Tensor
    in_range: tf.Tensor
    is_own: tf.Tensor
    own_ids: tf.Tensor
    own_weights: tf.Tensor
    start: tf.Tensor
    shape: tf.Tensor
    own: Labels
    sample_weight: tf.Tensor | None


class ClassParallelSoftmax:
    """A `SampledSoftmax` whose classes are divided among the replicas of a strategy.

    For tables that do not fit on one device, in custom training loops. Replica `r`
    of `R` holds the classes `r, r + R, r + 2R, ...`, their optimizer slots, and a
    sampler that draws `num_sampled / R` of them. In a step the replicas gather their
    inputs and labels; each computes, for the examples of all, the logsumexp of its own
    logits,

        z_r = log(sum_{c of r} exp(s_c)),      loss = log(sum_r exp(z_r)) - s_label

    with the corrected logits `s` of `SampledSoftmax`. A step sends inputs, labels and a
    few numbers per example, however many classes there are; rows and their gradients
    stay on their devices.

    Create it outside the strategy's scope, and call its methods in the function that
    `strategy.run` runs, inside a `tf.function`. The loss of an example is that of a
    `SampledSoftmax` with the same candidates. Gradients are of the sum over all
    replicas, so divide by the size of the global batch. `jit_compile=True` is not
    possible around the methods with several replicas: XLA does not compile what they
    exchange; with one, the loss of a label out of range is NaN there. Inputs are
    exchanged in float32, or in float64 if the table is float64.

    Args:
        strategy: A `tf.distribute.MirroredStrategy` or `MultiWorkerMirroredStrategy`,
            or a strategy of one replica, such as `tf.distribute.get_strategy()`.
        num_classes: The number of classes.
        dim: The size of the inputs, and of each class's row.
        num_sampled: The number of classes that all replicas draw together. Each draws
            its share, rounded up, but not more than its classes.
        optimizer: A function that makes a `LazyAdam`, `Adagrad` or `RowWiseAdagrad` of
            `tfsampled.optimizers`, called once per replica. It must not clip by norm,
            since a replica knows the gradients of its own rows only. None for a table
            that is not trained: it has no slots, and `save` and `restore` handle only
            its rows and biases.
        sampler: `"log_uniform"`, `"uniform"`, or a `LogUniform`, `Uniform`,
            `FixedUnigram` or `LearnedUnigram`. Each replica gets its own for its
            classes, which keep their order by frequency.
        seed: Makes draws and initial rows repeatable; those of the replicas differ. A
            sampler's or initializer's own seed comes first.
        **options: Other arguments of `SampledSoftmax`: `num_true`, `use_bias`,
            `temperature`, `normalize`, `logit_soft_cap`, `log_q`, `ignore_class`,
            `remove_accidental_hits`, `kernel_initializer`, `bias_initializer`, `dtype`.
            An initializer makes the rows of each replica as a table of their own.

    Raises:
        ValueError: If an argument has an invalid value, or this is in the scope of a
            strategy.

    Example:
        >>> import tensorflow as tf
        >>> from tfsampled.distribute import ClassParallelSoftmax
        >>> from tfsampled.optimizers import LazyAdam
        >>> strategy = tf.distribute.get_strategy()  # of one replica
        >>> head = ClassParallelSoftmax(
        ...     strategy, 1000, 16, 50, lambda: LazyAdam(0.01)
        ... )
        >>> def step(inputs, labels):
        ...     with tf.GradientTape() as tape:
        ...         losses = head.sampled_loss(inputs, labels)
        ...         loss = tf.reduce_sum(losses) / 8  # examples of all replicas
        ...     head.apply(tape.gradient(loss, head.trainable_variables))
        ...     return losses
        >>> strategy.run(step, args=(tf.ones([8, 16]), tf.range(8))).shape
        TensorShape([8])

    Reference:
        An et al., Partial FC: Training 10 Million Identities on a Single Machine, 2020,
        https://arxiv.org/abs/2010.05222
    """

    def __init__(
        self,
        strategy: tf.distribute.Strategy,
        num_classes: int,
        dim: int,
        num_sampled: int,
        optimizer: Callable[[], keras.optimizers.Optimizer] | None,
        sampler: str | samplers.Sampler = "log_uniform",
        *,
        seed: int | None = None,
        **options: Any,
    ) -> None:
        _parts.validate_scope("ClassParallelSoftmax")
        validate_strategy(strategy)
        self.num_replicas = strategy.num_replicas_in_sync
        self._parts = _parts.make(
            "ClassParallelSoftmax",
            local_replicas(strategy),
            self.num_replicas,
            num_classes=num_classes,
            dim=dim,
            num_sampled=num_sampled,
            optimizer=optimizer,
            sampler=sampler,
            seed=seed,
            options=options,
        )
        self.num_classes, self.dim = int(num_classes), int(dim)
        self.num_sampled = int(num_sampled)

    @property
    def heads(self) -> list[SampledSoftmax]:
        """The layers of this process's replicas, in their order.

        With a strategy of one replica, the only layer has all classes. Use it to make a
        model for export.
        """
        return [part.head for part in self._parts.values()]

    @property
    def optimizers(self) -> list[Any]:
        """The optimizers of this process's replicas, in their order."""
        return _parts.optimizers_of(self._parts)

    @property
    def trainable_variables(self) -> list[keras.Variable]:
        """The variables of this replica's classes."""
        return self._part().head.trainable_variables

    @tf.autograph.experimental.do_not_convert
    def apply(self, gradients: Sequence[Any]) -> None:
        """Updates `trainable_variables` by their gradients, on this replica alone."""
        part = self._part()
        gradients = _parts.validate_gradients(gradients, [part])
        with replicas.alone():
            part.apply(gradients)

    @tf.autograph.experimental.do_not_convert
    def sampled_loss(
        self, inputs: Any, labels: Any, sample_weight: Any = None, mask: Any = None
    ) -> tf.Tensor:
        """Computes the sampled softmax loss of each example of this replica.

        Args:
            inputs: Floating, `[batch, dim]` or `[batch, time, dim]`. The batches of the
                replicas may differ in size.
            labels: Integer class ids, as of `SampledSoftmax.sampled_loss`.
            sample_weight: Weights that multiply the losses.
            mask: Boolean, one for each example; False makes its loss 0.

        Returns:
            The losses, `[batch]` or `[batch, time]`.

        Raises:
            ValueError: If dtypes or shapes do not fit.
            tf.errors.InvalidArgumentError: If a label of any replica is out of range,
                or one that the sampler never draws. No sampler has moved then.
        """
        return self._losses(inputs, labels, sample_weight, mask, _sampled_logsumexp)

    @tf.autograph.experimental.do_not_convert
    def exact_loss(
        self, inputs: Any, labels: Any, sample_weight: Any = None, mask: Any = None
    ) -> tf.Tensor:
        """Computes the cross entropy over all classes, in chunks of classes.

        Arguments, result and errors are those of `sampled_loss`, but labels that the
        sampler never draws are valid.
        """
        return self._losses(inputs, labels, sample_weight, mask, _full_logsumexp)

    def _losses(
        self, inputs: Any, labels: Any, sample_weight: Any, mask: Any, logsumexp: Any
    ) -> tf.Tensor:
        part = self._part()
        sampled = logsumexp is _sampled_logsumexp
        batch = self._gather(inputs, labels, mask, sample_weight, sampled)
        with replicas.alone():
            own = tf.stack(logsumexp(part, batch))
        # [R, 2, N]: each replica's logsumexp, and its labels' share of the logit
        (all_parts,) = replicas.all_gather(own[tf.newaxis])
        totals = tf.reduce_logsumexp(all_parts[:, 0], axis=0)
        losses = totals - tf.reduce_sum(all_parts[:, 1], axis=0)
        is_valid = tf.reduce_all(batch.in_range, axis=1)
        losses = tf.where(is_valid, losses, math.nan)
        losses = _take(losses, batch.start, batch.shape)
        losses = tf.reshape(tf.cast(losses, part.head.variable_dtype), batch.shape)
        losses.set_shape(tf.convert_to_tensor(inputs).shape[:-1])
        return apply_weights(losses, batch.sample_weight, batch.own.example_mask)

    @tf.autograph.experimental.do_not_convert
    def ranks(self, inputs: Any, labels: Any, mask: Any = None) -> tf.Tensor:
        """Counts the classes with a higher logit than the example's best label.

        See `SampledSoftmax.ranks`.

        Returns:
            int32, `[batch]` or `[batch, time]`: 0 where a label is the best class.
        """
        head = self._part().head
        batch = self._gather(inputs, labels, mask)
        rows = tf.stop_gradient(_rows(head, batch.inputs))
        weights, biases = _class_table.full(head), _class_table.biases(head)
        logits = class_logits(batch.own_ids, rows, weights, biases)
        logits = tf.where(batch.is_own, logits, tf.zeros_like(logits))
        (logits,) = replicas.all_gather(tf.stop_gradient(logits)[tf.newaxis])
        (shard,) = shards_of(weights, biases)
        shard = shard._replace(first_class=self._replica(), stride=self.num_replicas)
        logits = tf.reduce_sum(logits, axis=0)
        label_logits = tf.where(batch.in_range, logits, math.nan)
        count = count_classes_above([shard], rows, label_logits, batch.ids)
        (counts,) = replicas.all_gather(count[tf.newaxis])
        ranks = _take(tf.reduce_sum(counts, axis=0), batch.start, batch.shape)
        if batch.own.label_mask is not None:
            ranks = tf.where(batch.own.label_mask, ranks, tf.int32.max)
        best = tf.reduce_min(ranks, axis=1)
        return tf.reshape(tf.cast(best, tf.int32), batch.shape)

    @tf.autograph.experimental.do_not_convert
    def top_k(self, inputs: Any, k: int) -> tuple[tf.Tensor, tf.Tensor]:
        """Finds the `k` classes of the highest logits, in chunks of classes.

        Returns:
            The logits in descending order, `[..., k]`, and their class ids, int32.
            Among equal logits the lower id comes first.
        """
        head = self._part().head
        k = validation.positive_int(k, "k", num_classes=self.num_classes)
        rows, shape = self._flatten(inputs)
        all_inputs, start = self._gather_inputs(rows)
        found = min(k, head.num_classes)
        tables = _class_table.full(head), _class_table.biases(head)
        values, own_ids = full_softmax_top_k(_rows(head, all_inputs), *tables, found)
        ids = own_ids * self.num_replicas + self._replica()
        # A replica may have fewer classes than k. NaN comes last.
        missing = [[0, 0], [0, k - found]]
        values = tf.pad(values, missing, constant_values=math.nan)
        ids = tf.pad(ids, missing, constant_values=self.num_classes)
        (all_values,) = replicas.all_gather(values[tf.newaxis])
        (all_ids,) = replicas.all_gather(ids[tf.newaxis])
        parts = [tf.unstack(x, num=self.num_replicas) for x in (all_values, all_ids)]
        values, ids = merge_top_k(list(zip(*parts, strict=True)), k)
        values = cap_logits(_take(values, start, shape), head.logit_soft_cap)
        values, ids = tf.cast(values, head.variable_dtype), _take(ids, start, shape)
        shape = tf.concat([shape, [k]], axis=0)
        return tf.reshape(values, shape), tf.cast(tf.reshape(ids, shape), tf.int32)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes rows, biases, slots and samplers of this process's replicas.

        Each worker writes its own files, `<path>-<replica>-of-<replicas>`: the files of
        one save are complete once all workers have returned. Give each save a path of
        its own, so that the last complete one is left if a worker dies.

        Args:
            path: The start of the files' paths, such as "checkpoints/step-1000".

        Raises:
            ValueError: If another number of replicas has saved there.
        """
        _parts.save(path, self._parts, self.num_replicas)

    def restore(self, path: str | os.PathLike[str]) -> None:
        """Restores what `save` has written, with any number of replicas.

        Without an `optimizer`, only rows and biases are restored. Otherwise slots, the
        learning rate, the number of steps and the samplers are restored too. With
        another number of replicas, samplers continue from positions that are derived
        from the saved ones, so that no two of them draw the same classes.

        Raises:
            ValueError: If a file is missing, or the files do not come from a single
                save of a matching table. Nothing is changed then.
        """
        _parts.restore(path, self._parts, self.num_replicas)

    def _replica(self) -> int:
        """Returns the number of the replica that runs this code."""
        context = tf.distribute.get_replica_context()
        count = 0 if context is None else context.num_replicas_in_sync
        if count != self.num_replicas or (count > 1 and tf.executing_eagerly()):
            raise ValueError(
                "A method of ClassParallelSoftmax must be called in the function that "
                "`strategy.run` runs, inside a tf.function."
            )
        return int(tf.get_static_value(context.replica_id_in_sync_group))

    def _part(self) -> Part:
        return self._parts[self._replica()]

    def _flatten(self, inputs: Any) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns inputs as rows `[n, dim]` in the dtype of logits, and their axes."""
        dtype = compute_dtype(tf.as_dtype(self.heads[0].variable_dtype))
        return flatten_inputs(tf.cast(real_tensor(inputs, "inputs"), dtype), self.dim)

    def _gather(
        self,
        inputs: Any,
        labels: Any,
        mask: Any,
        sample_weight: Any = None,
        sampled: bool = False,
    ) -> _Batch:
        """Gathers the examples of all replicas, and validates their labels."""
        head, inputs = self._part().head, real_tensor(inputs, "inputs")
        rows, shape = self._flatten(inputs)
        checks = validation.same_batch_checks(
            inputs, labels=labels, sample_weight=sample_weight, mask=mask
        )
        examples = inputs.shape[:-1]
        own = parse_labels(labels, examples, head.num_true, head.ignore_class, mask)
        weight = broadcast_to_examples(sample_weight, examples, "sample_weight")
        with tf.control_dependencies(validation.assert_all(checks)):
            own_ids = tf.identity(own.ids)
        ids, label_mask = replicas.all_gather(own_ids, own.label_mask)
        if own.example_mask is not None:  # a NaN there would make every gradient NaN
            rows = tf.where(tf.reshape(own.example_mask, [-1, 1]), rows, 0)
        all_inputs, start = self._gather_inputs(rows)
        in_range = validation.in_range(ids, self.num_classes)
        is_own = in_range & tf.equal(ids % self.num_replicas, self._replica())
        if label_mask is not None:
            is_own &= label_mask
        own_ids = tf.where(is_own, ids // self.num_replicas, 0)
        # The same on all replicas: if one refuses, all do, and no sampler moves.
        checks = [validation.ids_check(ids, self.num_classes, "labels")]
        for check in head.sampler._support_checks(own_ids, is_own) if sampled else ():
            (conditions,) = replicas.all_gather(check.condition[tf.newaxis])
            checks.append(check._replace(condition=tf.reduce_all(conditions)))
        with tf.control_dependencies(validation.assert_all(checks)):
            own_ids = tf.identity(own_ids)
        weights = Labels(ids, label_mask, None).label_weights(rows.dtype)
        if weights is None:
            weights = tf.ones_like(ids, rows.dtype) / head.num_true
        return _Batch(
            inputs=all_inputs,
            ids=ids,
            in_range=in_range,
            is_own=is_own,
            own_ids=own_ids,
            own_weights=tf.where(is_own, weights, tf.zeros_like(weights)),
            start=start,
            shape=shape,
            own=own,
            sample_weight=weight,
        )

    def _gather_inputs(self, rows: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns inputs `[N, dim]` of all replicas, and where this one's start."""
        (all_inputs,) = replicas.all_gather(rows)
        (sizes,) = replicas.all_gather(tf.shape(rows)[:1])
        return all_inputs, tf.reduce_sum(sizes[: self._replica()])


def _rows(head: SampledSoftmax, inputs: tf.Tensor) -> tf.Tensor:
    """Returns inputs `[N, dim]` as scaled rows, in at least float32."""
    rows, _ = logit_rows(head, inputs)
    return tf.cast(rows, inputs.dtype)


def _take(values: tf.Tensor, start: tf.Tensor, shape: tf.Tensor) -> tf.Tensor:
    """Takes the examples `[...]` of one replica from values `[N, ...]` of all."""
    return values[start : start + tf.reduce_prod(shape)]


def _sampled_logsumexp(part: Part, batch: _Batch) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns, for each example, what its loss needs of this replica's classes.

    Returns:
        `[N]`, the logsumexp of the corrected logits of own candidates and own labels;
        and `[N]`, the weighted sum of the own labels' corrected logits.
    """
    head = part.head
    with on_host():
        drawn = part.draw(batch.own_ids, batch.is_own)
        candidates = with_log_q(head, drawn, batch.own_ids)
    # Another replica's label reads a row that is read anyway, and hits nothing.
    ids = tf.where(batch.is_own, batch.own_ids, candidates.sampled_candidates[0])
    counts = tf.where(batch.is_own, candidates.true_expected_count, 1.0)
    logits = lookup(
        weights=_class_table.sampled_rows(head),
        biases=_class_table.biases(head),
        labels=ids,
        inputs=logit_rows(head, batch.inputs)[0],
        candidates=candidates._replace(true_expected_count=counts),
        num_classes=head.num_classes,
        soft_cap=head.logit_soft_cap,
    )
    hits = None
    if head.remove_accidental_hits:
        labels = tf.where(batch.is_own, batch.own_ids, -1)
        hits = find_accidental_hits(labels, candidates.sampled_candidates)
    logsumexp = sampled_loss_with_gradient(
        LOGSUMEXP,
        *logits,
        hits=hits,
        label_weights=batch.own_weights,
        soft_cap=head.logit_soft_cap,
    )
    return logsumexp, _weighted_sum(logits.true_logits, batch)


def _full_logsumexp(part: Part, batch: _Batch) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the same as `_sampled_logsumexp`, of all own classes, uncorrected."""
    head = part.head
    rows = _rows(head, batch.inputs)
    tables = _class_table.full(head), _class_table.biases(head)
    cap = head.logit_soft_cap
    logits = cap_logits(class_logits(batch.own_ids, rows, *tables), cap)
    return full_logsumexp(rows, *tables, cap), _weighted_sum(logits, batch)


def _weighted_sum(logits: tf.Tensor, batch: _Batch) -> tf.Tensor:
    # That of another class than the label may be infinite.
    return tf.reduce_sum(tf.math.multiply_no_nan(logits, batch.own_weights), axis=1)
