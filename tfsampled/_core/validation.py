"""One voice for errors: what came in, what is allowed, what to do.

What is wrong whatever the data are is a `ValueError` and is raised while the call is
made. What depends on data is a `tf.errors.InvalidArgumentError`: at once in eager
execution, when the graph runs otherwise. XLA drops assertions; there the caller marks
the examples concerned as NaN (`in_range`).
"""

from __future__ import annotations

import operator
from typing import Any

import tensorflow as tf

from tfsampled._core.xla import tracing_for_xla


def positive_int(value: Any, name: str) -> int:
    """`value` as an `int` of at least 1.

    Raises:
      ValueError: not a whole number, below 1, or not known before the graph runs.
    """
    number = static_int(value, name)
    if number is None:
        raise ValueError(
            f"{name} must be an int that is known when the call is made, not "
            f"{value!r}: pass a Python int."
        )
    return number


def static_int(value: Any, name: str, minimum: int = 1) -> int | None:
    """As `positive_int`, but `None` where `value` is `None` or a tensor of a graph."""
    if tf.is_tensor(value):
        value = tf.get_static_value(value)
    if value is None:
        return None
    try:
        number = operator.index(value)
    except TypeError:
        raise ValueError(f"{name} must be an int, not {value!r}.") from None
    if number < minimum:
        raise ValueError(f"{name} is {number}; it must be at least {minimum}.")
    return number


def in_range(ids: tf.Tensor, limit: int | tf.Tensor) -> tf.Tensor:
    """True where `0 <= id < limit`; `bool`, shaped like `ids`."""
    return (ids >= 0) & (ids < tf.cast(limit, ids.dtype))


def assert_ids_in_range(ids: tf.Tensor, limit: int | tf.Tensor, name: str) -> list[Any]:
    """Ops that fail unless every id lies in `[0, limit)`; none in eager execution."""
    return assert_in_range(ids, limit, out_of_range_message(name, "{}", "{}", "{}"))


def out_of_range_message(name: str, limit: Any, low: Any, high: Any) -> str:
    """The sentence of `assert_ids_in_range`."""
    return (
        f"{name} must be class ids in [0, {limit}), but lie between {low} and {high}: "
        "map or remove the ids outside (class ids start at 0)."
    )


def assert_in_range(ids: tf.Tensor, limit: int | tf.Tensor, message: str) -> list[Any]:
    """As `assert_ids_in_range`; the message takes limit, least and largest id."""
    limit = tf.cast(limit, ids.dtype)
    # Of no ids at all these are the ends of the dtype, which pass.
    low, high = tf.reduce_min(ids), tf.reduce_max(ids)
    return assert_true((low >= 0) & (high < limit), message, [limit, low, high])


def assert_same_batch(labels: tf.Tensor, inputs: tf.Tensor) -> list[Any]:
    """Ops that fail unless the two have equal batches, or one of them a batch of 1.

    Raises:
      ValueError: the batches are known, and differ.
    """
    message = (
        "labels have a batch of {}, inputs a batch of {}: pass one row of labels for "
        "each row of inputs, or a single row of either for all."
    )
    known = [tf.compat.dimension_value(x.shape[0]) for x in (labels, inputs)]
    if 1 in known or (None not in known and known[0] == known[1]):
        return []
    if None not in known:
        raise ValueError(message.format(*known))
    ours, theirs = tf.shape(labels)[0], tf.shape(inputs)[0]
    fits = tf.equal(ours, theirs) | tf.equal(ours, 1) | tf.equal(theirs, 1)
    return assert_true(fits, message, [ours, theirs])


def assert_true(
    condition: tf.Tensor, message: str, values: list[tf.Tensor]
) -> list[Any]:
    """Ops that fail unless the condition holds; none in eager execution.

    Args:
      condition: `[]` bool.
      message: the sentence to fail with, a `{}` in it for each of the values.
      values: integers, `[]` each.
    """
    if tf.executing_eagerly():
        if not condition:
            sentence = message.format(*(int(value) for value in values))
            raise tf.errors.InvalidArgumentError(None, None, sentence)
        return []
    # Strings stay on the host and need no conditional around the assertion. XLA knows
    # none, and drops the assertion.
    if tracing_for_xla():
        return [tf.debugging.Assert(condition, [message])]
    first, *others = message.split("{}")
    parts: list[Any] = [first]
    for value, piece in zip(values, others, strict=True):
        parts += [tf.strings.as_string(value), piece]
    return [tf.debugging.Assert(condition, [tf.strings.join(parts)])]
