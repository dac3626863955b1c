"""Values of the caller as tensors."""

from __future__ import annotations

from typing import Any

import tensorflow as tf


def as_tensor(value: Any, default: tf.DType) -> tf.Tensor:
    """`value` as a tensor of its own dtype; lists and numbers of Python take `default`.

    >>> as_tensor([1, 2], tf.int64).dtype
    tf.int64
    >>> as_tensor(tf.constant([1, 2], tf.int8), tf.int64).dtype
    tf.int8
    """
    hint = None if hasattr(value, "dtype") else default
    return tf.convert_to_tensor(value, dtype_hint=hint)
