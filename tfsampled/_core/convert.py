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


def as_class_ids(value: Any, name: str) -> tf.Tensor:
    """`value` as int64, from any integers.

    Raises:
      ValueError: it holds something else.
    """
    try:
        ids = as_tensor(value, tf.int64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} must be class ids: {error}") from None
    if not (ids.dtype.is_integer or ids.dtype.is_bool):
        raise ValueError(f"{name} must be class ids, not {ids.dtype.name}.")
    return tf.cast(ids, tf.int64)
