"""Records invalid labels of compiled steps, for `fit` to report.

A step that XLA has compiled cannot raise. It validates its labels first, skips the
update if any is invalid, and records that for the host to report.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from tfsampled._core import validation
from tfsampled._core.labels import Labels, class_list_check
from tfsampled.layers import SampledSoftmax
from tfsampled.layers import _head_labels as head_labels


class LabelCheck:
    """Records invalid labels of compiled steps."""

    def __init__(self, head: SampledSoftmax) -> None:
        self._head = head
        # The number of batches with ids out of range, the smallest and largest id of
        # the last one, and the numbers of batches with ids that the sampler never draws
        # and with `negatives` and `exclude` out of range.
        with tf.init_scope():
            self._violations = tf.Variable(tf.zeros(6, tf.int64), trainable=False)

    def record(
        self, targets: Labels, training: bool, class_ids: Any = None
    ) -> tf.Tensor:
        """Returns whether a step can use these labels; if not, records why.

        Args:
            targets: The labels of a batch.
            training: Whether the sampler has to draw the labels too.
            class_ids: The `negatives` of training, `exclude` of evaluation, or None.

        Returns:
            A scalar bool.
        """
        checks = head_labels.checks(
            self._head, targets.ids, targets.label_mask, training
        )
        in_range = checks[0].condition
        supported = checks[-1].condition
        smallest, largest = tf.reduce_min(targets.ids), tf.reduce_max(targets.ids)
        is_class = tf.constant(True)
        if class_ids is not None:
            class_ids = tf.cast(class_ids, tf.int64)
            check = class_list_check(class_ids, self._head.num_classes, "class_ids")
            is_class = check.condition
        count, low, high, unsupported, negatives, exclude = tf.unstack(self._violations)
        invalid = tf.cast(in_range & supported & ~is_class, tf.int64)
        self._violations.assign(
            [
                count + tf.cast(~in_range, tf.int64),
                tf.where(in_range, low, smallest),
                tf.where(in_range, high, largest),
                unsupported + tf.cast(in_range & ~supported, tf.int64),
                negatives + (invalid if training else 0),
                exclude + (0 if training else invalid),
            ]
        )
        return in_range & supported & is_class

    def take(self) -> str | None:
        """Returns the message for what was recorded, and clears it. Waits for the step.

        None if no violation was recorded.
        """
        values = self._violations.numpy().tolist()
        count, low, high, unsupported, negatives, exclude = values
        batches = count + unsupported + negatives + exclude
        if not batches:
            return None
        self._violations.assign(tf.zeros_like(self._violations))
        message = self._head.sampler.unsupported_label_message
        if negatives or exclude:
            message = (
                f"`{'negatives' if negatives else 'exclude'}` must be -1 or class ids "
                "in [0, num_classes). "
                f"Received: others, num_classes={self._head.num_classes}."
            )
        if count:
            message = validation.out_of_range_message(
                "labels", self._head.num_classes, low, high
            )
        return (
            f"{message} (Such batches: {batches}. A compiled step cannot raise. "
            "Training skipped them; an evaluation's result does not count.)"
        )


class PeriodicCheck(keras.callbacks.Callback):
    """Runs a check now and then during `fit`: reading a variable waits for the step."""

    EVERY = 10  # calls of the compiled function

    def __init__(self, check: Callable[[], None]) -> None:
        super().__init__()
        self._check = check
        self._num_calls = 0

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self._num_calls += 1
        if self._num_calls % self.EVERY == 0:
            self._check()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self._check()

    def on_test_begin(self, logs: Any = None) -> None:
        self._check()
