"""`class_weight` of `fit`: a weight for each label, not for each row of labels."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from tfsampled._core.static_ops import searchsorted_right
from tfsampled.layers import SampledSoftmax


class ClassWeight:
    """Weights of some classes; the others weigh 1.

    Keras makes sample weights of a `class_weight` too, but takes labels of two axes
    for one-hot ones. For labels `[batch]` the two agree. This one holds the classes
    named, however high their ids are.

    Args:
        weights: A number for each class id named.
        head: The head with the classes.

    Raises:
        ValueError: A key is no class id, or a value no number.
    """

    def __init__(self, weights: Mapping[int, float], head: SampledSoftmax) -> None:
        if not isinstance(weights, Mapping) or not weights:
            raise ValueError(
                f"class_weight is {weights!r}; pass a dict from class ids to weights."
            )
        self._ids = np.array([_class_id(key, head.num_classes) for key in weights])
        order = np.argsort(self._ids)
        self._ids = self._ids[order]
        values = [float(value) for value in weights.values()]
        self._values = np.array(values, np.float32)[order]
        self._head = head

    def of(self, labels: Any) -> tf.Tensor:
        """The sample weights of labels, float32.

        Args:
            labels: Integers, `[...]` or `[..., num_true]`.

        Returns:
            The weight of each label, shaped like `labels`; with a `num_true` above 1
            the mean over the labels of an example, padding left out, `[...]`.
        """
        labels = tf.cast(tf.convert_to_tensor(labels), tf.int64)
        places = searchsorted_right(tf.constant(self._ids, tf.int64), labels) - 1
        places = tf.maximum(places, 0)
        named = tf.equal(tf.gather(tf.constant(self._ids, tf.int64), places), labels)
        weights = tf.where(named, tf.gather(tf.constant(self._values), places), 1.0)
        if self._head.num_true == 1:
            return weights
        if self._head.ignore_class is None:
            return tf.reduce_mean(weights, axis=-1)
        real = tf.cast(labels != self._head.ignore_class, weights.dtype)
        return tf.math.divide_no_nan(
            tf.reduce_sum(weights * real, axis=-1), tf.reduce_sum(real, axis=-1)
        )


def sample_weight_of(
    class_weight: ClassWeight | None, labels: Any, sample_weight: Any
) -> Any:
    """What to weigh a batch's losses with: the one or the other.

    Raises:
        ValueError: There are both.
    """
    if class_weight is None or labels is None:
        return sample_weight
    if sample_weight is not None:
        raise ValueError(
            "there are a class_weight and sample weights: pass one of them, or "
            "multiply the sample weights by those of their classes."
        )
    return class_weight.of(labels)


def _class_id(key: Any, num_classes: int) -> int:
    try:
        number = operator.index(key)
    except TypeError:
        number = -1
    if not 0 <= number < num_classes:
        raise ValueError(
            f"class_weight has the key {key!r}; its keys must be class ids in "
            f"[0, {num_classes})."
        )
    return number
