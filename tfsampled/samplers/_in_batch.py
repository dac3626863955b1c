"""The samplers that take labels: those of the batch, or of the last batches."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfsampled._core import replicas, validation
from tfsampled._core.candidate_sampling.samplers import Draw
from tfsampled._core.candidate_sampling.union import distinct
from tfsampled._core.xla import tracing_for_xla
from tfsampled.samplers import _counts
from tfsampled.samplers._base import Sampler, reject_seed, variable
from tfsampled.samplers._label_frequency import LabelFrequency


class _LabelSampler(Sampler):
    """A sampler whose classes are labels, with the arguments of `LabelFrequency`."""

    takes_num_sampled = False
    samples_labels = True
    unsupported_label_message = (
        "`labels` must be classes whose count in the sampler is above 0."
    )

    def __init__(self, counts: Any = None, decay: float = 0.999, **kwargs: Any) -> None:
        reject_seed(self, kwargs)
        super().__init__(seed=0, **kwargs)
        self.frequency = LabelFrequency(counts, decay)

    def validate(self, num_classes: int, num_sampled: int | None) -> None:
        """See `Sampler.validate`."""
        super().validate(num_classes, num_sampled)
        _counts.validate_num_classes(self.frequency.counts, num_classes)

    def build(self, num_classes: int) -> None:
        """See `Sampler.build`."""
        self.frequency.build(num_classes)
        self.built = True

    def supports(self, labels: tf.Tensor) -> tf.Tensor | None:
        """See `Sampler.supports`: classes of the count 0 are not."""
        return self.frequency.supports(labels)

    def state(self) -> dict[str, tf.Variable]:
        """Returns the learned frequencies."""
        return self.frequency.state()

    def get_config(self) -> dict[str, Any]:
        """See `Sampler.get_config`."""
        return {"name": self.name, **self.frequency.get_config()}


@keras.saving.register_keras_serializable(package="tfsampled")
class InBatch(_LabelSampler):
    """Takes the labels of the other examples of the batch, of all replicas.

    Each class counts once, however many examples have it, and is never compared with an
    example that has it. Its expected count is `1 - (1 - p)**n`, the probability that at
    least one of the `n` labels of the other examples is this class, where `p` is its
    share of all labels. So a frequent class is not penalized for being in many batches.
    The only example of a batch is compared with its own labels alone.

    Args:
        counts: `[num_classes]`, how often each class is a label. None learns it while
            training, and saves it with the head.
        decay: If the frequency is learned, the weight of the labels of a step relative
            to those of the next. 0.999 remembers about a thousand steps.
        **kwargs: Arguments of `keras.layers.Layer`, such as `name`.

    Raises:
        ValueError: If `counts` or `decay` is invalid.

    Example:
        >>> from tfsampled.samplers import InBatch
        >>> sampler = InBatch(counts=[1, 2, 3, 2])
        >>> ids, of_labels, of_ids = sampler.sample([[1], [2], [1]], 4, None)
        >>> ids.numpy().tolist()
        [1, 2]

    Reference:
        Yi et al., Sampling-Bias-Corrected Neural Modeling for Large Corpus Item
        Recommendations, 2019, https://doi.org/10.1145/3298689.3346996
    """

    def draw(
        self,
        labels: tf.Tensor,
        label_mask: tf.Tensor | None,
        num_classes: int,
        num_sampled: None,
    ) -> Draw:
        """See `Sampler.draw`; learns from the labels first."""
        del num_sampled
        return self.take(labels, label_mask, num_classes, alone=1.0)

    def take(
        self,
        labels: tf.Tensor,
        label_mask: tf.Tensor | None,
        num_classes: int,
        alone: float,
    ) -> Draw:
        """Takes labels; `alone` is the count where only one example has any."""
        labels, label_mask = _gather_valid(labels, label_mask, num_classes)
        ids, is_label = _flat(labels, label_mask)
        self.frequency.update(ids, is_label)
        # label_mask = [[1, 1], [1, 0], [0, 0]]: 3 labels of 2 examples, so that an
        # example has 1.5 labels and the others 1.5
        if label_mask is None:
            label_mask = tf.ones_like(labels, tf.bool)
        num_labels = tf.reduce_sum(tf.cast(label_mask, tf.float32))
        examples = tf.cast(tf.reduce_any(label_mask, axis=1), tf.float32)
        others = num_labels - tf.math.divide_no_nan(num_labels, tf.reduce_sum(examples))

        def expected_count(classes: tf.Tensor) -> tf.Tensor:
            presence = self.frequency.presence(classes, others)
            return tf.where(others > 0, presence, alone)

        ids, is_drawn = distinct(ids, is_label)
        return Draw(ids, expected_count, is_drawn)


@keras.saving.register_keras_serializable(package="tfsampled")
class Recent(_LabelSampler):
    """Takes the last labels, of this batch and of those before it, of all replicas.

    Only the ids are kept: their rows are read anew, so nothing is stale. As with
    `InBatch` a class is compared with once, and expected with the probability that it
    is among so many labels.

    Args:
        size: How many labels to keep.
        counts: As in `InBatch`.
        decay: As in `InBatch`.
        **kwargs: Arguments of `keras.layers.Layer`, such as `name`.

    Raises:
        ValueError: If an argument is invalid.

    Example:
        >>> from tfsampled.samplers import Recent
        >>> sampler = Recent(size=3)
        >>> _ = sampler.sample([[7], [2]], 10, None)
        >>> ids, *_ = sampler.sample([[4], [5]], 10, None)
        >>> ids.numpy().tolist()
        [2, 4, 5]
    """

    def __init__(
        self, size: int, counts: Any = None, decay: float = 0.999, **kwargs: Any
    ) -> None:
        super().__init__(counts, decay, **kwargs)
        self.size = validation.positive_int(size, "size")
        self.recent: Any = None

    def build(self, num_classes: int) -> None:
        """See `Sampler.build`."""
        super().build(num_classes)
        # The last labels, the latest last; -1 for none.
        self.recent = variable(np.full(self.size, -1), "recent")

    def draw(
        self,
        labels: tf.Tensor,
        label_mask: tf.Tensor | None,
        num_classes: int,
        num_sampled: None,
    ) -> Draw:
        """See `Sampler.draw`; learns from the labels first."""
        del num_sampled
        ids, is_label = _flat(*_gather_valid(labels, label_mask, num_classes))
        self.frequency.update(ids, is_label)
        if is_label is not None:
            ids = tf.where(is_label, ids, -1)
        # recent = [-1, 7, 2], ids = [4, -1] -> [-1, -1, 7, 2, 4] -> [7, 2, 4]
        ids = tf.concat([self.recent, ids], axis=0)
        order = tf.argsort(tf.cast(ids >= 0, tf.int32), stable=True)
        ids = tf.gather(ids, order[-self.size :])
        self.recent.assign(ids)
        is_label = ids >= 0
        num_labels = tf.math.count_nonzero(is_label)

        def expected_count(classes: tf.Tensor) -> tf.Tensor:
            return self.frequency.presence(classes, num_labels)

        ids, is_drawn = distinct(ids, is_label)
        return Draw(ids, expected_count, is_drawn)

    def state(self) -> dict[str, tf.Variable]:
        """Returns the labels and the learned frequencies."""
        if self.recent is None:
            return {}
        return {**super().state(), "recent": self.recent}

    def get_config(self) -> dict[str, Any]:
        """See `Sampler.get_config`."""
        return {**super().get_config(), "size": self.size}


def _gather_valid(
    labels: tf.Tensor, label_mask: tf.Tensor | None, num_classes: int
) -> tuple[tf.Tensor, tf.Tensor | None]:
    """Returns the labels of all replicas, and which are labels.

    A label out of range, which XLA cannot refuse, counts as no label.
    """
    if tracing_for_xla():
        in_range = validation.in_range(labels, num_classes)
        labels = tf.where(in_range, labels, 0)
        label_mask = in_range if label_mask is None else in_range & label_mask
    labels, label_mask = replicas.all_gather(labels, label_mask)
    return labels, label_mask


def _flat(
    labels: tf.Tensor, label_mask: tf.Tensor | None
) -> tuple[tf.Tensor, tf.Tensor | None]:
    """Returns label ids `[n]`, and which are labels."""
    if label_mask is not None:
        label_mask = tf.reshape(label_mask, [-1])
    return tf.reshape(labels, [-1]), label_mask
