"""How frequent each class is among the labels: given, or learned while training."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from tfsampled._core import replicas, validation
from tfsampled._core.candidate_sampling.expected_count import gather_clipped
from tfsampled._core.xla import constant_reader, tracing_for_xla
from tfsampled.samplers import _counts
from tfsampled.samplers._base import variable


class LabelFrequency(tf.Module):
    """The share of each class among the labels.

    If learned, it is the share of the labels so far, where each step weighs `decay`
    times as much as the next. A step reads and writes only the classes of its batch:
    for each class, its sum at the last step that had it is stored, and that step's
    number.

    Args:
        counts: `[num_classes]`, how often each class is a label; None to learn it.
        decay: In `(0, 1]`; 1 weighs all steps alike.
    """

    def __init__(self, counts: Any, decay: float) -> None:
        super().__init__()  # a checkpoint holds the variables of a module
        self.decay = validation.positive_float(decay, "decay")
        if self.decay > 1:
            raise ValueError(f"`decay` must be at most 1. Received: decay={decay}.")
        self.counts = None if counts is None else _counts.as_counts(counts)
        if self.counts is not None and not self.counts.any():
            raise ValueError("`counts` must not all be 0.")
        self._probabilities: Any = None
        self._sums: Any = None

    def build(self, num_classes: int) -> None:
        """Makes the variables, or the table of given frequencies."""
        if self.counts is not None:
            share = self.counts / np.sum(self.counts, dtype=np.float64)
            self._probabilities = constant_reader(share.astype(np.float32))
        else:
            self._sums = variable(np.zeros(num_classes), "sums", np.float64)
            self._steps = variable(np.zeros(num_classes), "steps")
            self._total = variable(0.0, "total", np.float64)
            self._step = variable(0, "step")

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of an equal frequency."""
        counts = None if self.counts is None else _counts.encode(self.counts)
        return {"counts": counts, "decay": self.decay}

    def supports(self, labels: tf.Tensor) -> tf.Tensor | None:
        """Returns where the given count is above 0; None if it is learned."""
        if self.counts is None:
            return None
        return gather_clipped(self._probabilities(), labels) > 0

    def state(self) -> dict[str, tf.Variable]:
        """Returns the variables to save, by name."""
        if self._sums is None:
            return {}
        return {
            "label_sums": self._sums,
            "label_steps": self._steps,
            "label_total": self._total,
            "label_step": self._step,
        }

    def update(self, labels: tf.Tensor, is_label: tf.Tensor | None) -> None:
        """Learns from the labels of a step, int64 `[n]`; bool `[n]` for which count."""
        if self._sums is None:
            return
        # decay 0.5, sums = [4, 1, 0], steps = [1, 3, 0], step = 3, labels = [0, 0, 2]
        # -> decayed = [1, 1, 0] for the labels -> sums = [3, 1, 1], steps = [3, 3, 3]
        # In float64: a float32 sum of ones stops at 2 ** 24.
        weights = tf.ones(tf.shape(labels), tf.float64)
        if is_label is not None:
            weights = tf.cast(is_label, tf.float64)
        with tf.control_dependencies([labels]):  # refused labels teach nothing
            step = self._step.assign_add(1, read_value=True)
            self._total.assign(self._total * self.decay + tf.reduce_sum(weights))
        decayed = self._decayed(labels, step)
        steps = tf.fill(tf.shape(labels), step)
        with tf.control_dependencies([decayed]):
            self._sums.scatter_update(tf.IndexedSlices(decayed, labels))
            self._steps.scatter_update(tf.IndexedSlices(steps, labels))
        self._sums.scatter_add(tf.IndexedSlices(weights, labels))

    def presence(self, classes: tf.Tensor, num_labels: tf.Tensor) -> tf.Tensor:
        """Computes how likely each class is to be one of `num_labels` labels.

        `1 - (1 - p)**num_labels`, for a class of the share `p`.
        """
        if self._sums is None:
            probabilities = self._probabilities()
            num_classes = probabilities.shape[0]
            share = tf.gather(probabilities, classes)
        else:
            num_classes = self._sums.shape[0]
            sums = self._decayed(classes, self._step.value())
            share = tf.cast(tf.math.divide_no_nan(sums, self._total), tf.float32)
        if tracing_for_xla():
            share = validation.nan_if_out_of_range(share, classes, num_classes)
        log_absent = tf.math.log1p(-tf.minimum(share, 1.0))
        return -tf.math.expm1(tf.cast(num_labels, tf.float32) * log_absent)

    def _decayed(self, classes: tf.Tensor, step: tf.Tensor) -> tf.Tensor:
        sums, steps = map(replicas.own_copy, (self._sums, self._steps))
        age = tf.cast(step - tf.gather(steps, classes), tf.float64)
        return tf.gather(sums, classes) * self.decay**age
