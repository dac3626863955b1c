"""Labels that no step can train on, refused before anything has changed by them.

A step that XLA has compiled cannot raise. It looks at its labels first, leaves
everything as it is where one of them is wrong, and writes down what it saw, for
whoever asks later.
"""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from tfsampled._core import validation
from tfsampled._core.labels import parse_labels
from tfsampled.layers import SampledSoftmax


class LabelCheck:
    """Looks at labels before a step does.

    Labels are integers `[...]` or `[..., num_true]`; a mask is boolean `[...]`, False
    where any label will do, or None.

    Args:
        head: The head whose classes the labels are.
    """

    def __init__(self, head: SampledSoftmax) -> None:
        self._head = head
        # How many batches had ids outside, the last one's lowest and highest id; how
        # many had ids that the sampler never draws.
        self._seen = tf.Variable(tf.zeros(4, tf.int64), trainable=False)

    def assertions(self, labels: tf.Tensor, mask: tf.Tensor | None) -> list[Any]:
        """Ops that fail unless a step can train on all of these labels."""
        ids, real = self._real(labels, mask)
        inside = validation.assert_ids_in_range(ids, self._head.num_classes, "labels")
        return [*inside, *self._head.sampler.assertions(ids, real)]

    def note(
        self, labels: tf.Tensor, mask: tf.Tensor | None, training: bool
    ) -> tf.Tensor:
        """Whether a step can use all of these labels; if not, notes it.

        Args:
            labels: See the class.
            mask: See the class.
            training: Whether the sampler has to know the labels too.

        Returns:
            A scalar bool.
        """
        ids, real = self._real(labels, mask)
        inside = tf.reduce_all(validation.in_range(ids, self._head.num_classes))
        known = tf.constant(True)
        if training and (possible := self._head.sampler.supports(ids)) is not None:
            known = tf.reduce_all(possible | ~real)
        outside, unknown = ~inside, inside & ~known
        self._seen.assign(
            [
                self._seen[0] + tf.cast(outside, tf.int64),
                tf.where(outside, tf.reduce_min(ids), self._seen[1]),
                tf.where(outside, tf.reduce_max(ids), self._seen[2]),
                self._seen[3] + tf.cast(unknown, tf.int64),
            ]
        )
        return inside & known

    def raise_noted(self) -> None:
        """Says what was noted, if anything was, and forgets it. Waits for the step.

        Raises:
            tf.errors.InvalidArgumentError: Something was noted.
        """
        outside, low, high, unknown = self._seen.numpy().tolist()
        if not outside and not unknown:
            return
        self._seen.assign(tf.zeros_like(self._seen))
        sentence = self._head.sampler.unsupported_label_message
        if outside:
            sentence = validation.out_of_range_message(
                "labels", self._head.num_classes, low, high
            )
        raise tf.errors.InvalidArgumentError(
            None,
            None,
            f"{sentence} (Batches with such labels: {outside + unknown}. A compiled "
            "step cannot raise; it left them out, and nothing has changed by them.)",
        )

    def _real(
        self, labels: tf.Tensor, mask: tf.Tensor | None
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """The ids, int64, a class in the place of padding, and where there is none."""
        head = self._head
        if mask is not None:
            found = parse_labels(
                labels, mask.shape, head.num_true, head.ignore_class, mask
            )
            return found.ids, found.label_mask
        ids = tf.cast(labels, tf.int64)
        real = tf.ones_like(ids, tf.bool)
        if head.ignore_class is not None:
            real = ids != head.ignore_class
        return tf.where(real, ids, 0), real


class Watching(keras.callbacks.Callback):
    """Has questions asked during `fit` now and then: reading waits for the step.

    Args:
        questions: Functions to call.
    """

    EVERY = 10  # calls of the compiled function

    def __init__(self, *questions: Any) -> None:
        super().__init__()
        self._questions = questions
        self._calls = 0

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self._calls += 1
        if self._calls % self.EVERY == 0:
            self._ask()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self._ask()

    def on_test_begin(self, logs: Any = None) -> None:
        self._ask()

    def _ask(self) -> None:
        for question in self._questions:
            question()
