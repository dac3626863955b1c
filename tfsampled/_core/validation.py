"""Argument checks and their error messages.

What can be known before running is a `ValueError`. What depends on data is a
`tf.errors.InvalidArgumentError`: raised at once in eager execution, when the graph runs
otherwise. XLA drops assertions; there the callers make the loss of the example NaN.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import tensorflow as tf

from tfsampled._core.xla import on_host, tracing_for_xla


def positive_int(value: Any, name: str, **at_most: int | None) -> int:
    """Returns `value` as an `int` of at least 1.

    Args:
        **at_most: The name and the value of its upper bound, if it has one.

    Raises:
        ValueError: If it is not such an int, or is a tensor whose value is known only
            when the graph runs.
    """
    number = static_int(value, name)
    if number is None:
        raise ValueError(
            f"`{name}` must be an int that is known before running. "
            f"Received: {name}={value!r}."
        )
    for limit_name, limit in at_most.items():
        if limit is not None and number > limit:
            raise ValueError(
                f"`{name}` must be at most `{limit_name}`. Received: {name}={number}, "
                f"{limit_name}={limit}."
            )
    return number


def num_classes(value: Any) -> int:
    """Returns a number of classes, whose ids have to fit in int32, as an `int`."""
    number = positive_int(value, "num_classes")
    if number >= 2**31:
        raise ValueError(
            "`num_classes` must be less than 2**31: ids are int32 in results. "
            f"Received: num_classes={number}."
        )
    return number


def static_int(value: Any, name: str, minimum: int = 1) -> int | None:
    """Returns `value` as an `int`; None for None and for a tensor of a graph."""
    if tf.is_tensor(value):
        value = tf.get_static_value(value)
    if value is None:
        return None
    number = _index(value)
    if number is None or number < minimum:
        raise ValueError(
            f"`{name}` must be an int of at least {minimum}. "
            f"Received: {name}={value!r}."
        )
    return number


def optional_int(value: Any, name: str) -> int | None:
    """Returns `value` as an `int` of any sign, of 64 bits; None for None."""
    number = _index(value)
    if value is not None and (number is None or not -(2**63) <= number < 2**63):
        raise ValueError(
            f"`{name}` must be an int or None. Received: {name}={value!r}."
        )
    return number


def _index(value: Any) -> int | None:
    try:
        return None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        return None


def positive_float(value: Any, name: str) -> float:
    """Returns `value` as a `float` that is positive and finite in float32."""
    number = _float(value)
    if not 2.0**-126 <= number < 2.0**128:
        raise ValueError(
            f"`{name}` must be a positive number. Received: {name}={value!r}."
        )
    return number


def optional_positive_float(value: Any, name: str) -> float | None:
    """Returns `value` as a positive `float`; None for None."""
    return None if value is None else positive_float(value, name)


def fraction(value: Any, name: str) -> float:
    """Returns `value` as a `float` in `[0, 1]`."""
    number = _float(value)
    if not 0 <= number <= 1:
        raise ValueError(
            f"`{name}` must be a number in [0, 1]. Received: {name}={value!r}."
        )
    return number


def _float(value: Any) -> float:
    try:
        return math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        return math.nan


def as_tensor(value: Any, default: tf.DType | None, name: str) -> tf.Tensor:
    """Converts `value` to a tensor; Python lists and numbers get the default dtype.

    >>> as_tensor([1, 2], tf.int64, "labels").dtype
    tf.int64
    >>> as_tensor(tf.constant([1, 2], tf.int8), tf.int64, "labels").dtype
    tf.int8

    Raises:
        ValueError: If `value` is ragged or sparse.
    """
    if isinstance(value, (tf.RaggedTensor, tf.SparseTensor)):
        raise ValueError(
            f"`{name}` must be dense; convert it with to_tensor or tf.sparse.to_dense. "
            f"Received: a {type(value).__name__}."
        )
    hint = None if hasattr(value, "dtype") else default
    return tf.convert_to_tensor(value, dtype_hint=hint)


@on_host()
def as_class_ids(value: Any, name: str) -> tf.Tensor:
    """Converts integers of any dtype to int64 class ids.

    Raises:
        ValueError: If `value` does not hold integers.
    """
    try:
        ids = as_tensor(value, tf.int64, name)
    except (TypeError, ValueError) as error:
        raise ValueError(f"`{name}` must be integer class ids. {error}") from None
    if not (ids.dtype.is_integer or ids.dtype.is_bool):
        raise ValueError(
            f"`{name}` must be integer class ids. Received: dtype={ids.dtype.name}."
        )
    return tf.cast(ids, tf.int64)


def in_range(ids: tf.Tensor, limit: int | tf.Tensor) -> tf.Tensor:
    """Returns True where `0 <= id < limit`; bool, shaped like `ids`."""
    return (ids >= 0) & (ids < tf.cast(limit, ids.dtype))


def nan_if_out_of_range(
    values: tf.Tensor, ids: tf.Tensor, limit: int | tf.Tensor
) -> tf.Tensor:
    """Replaces the values of ids outside `[0, limit)` by NaN."""
    return tf.where(in_range(ids, limit), values, math.nan)


def out_of_range_message(name: str, limit: Any, low: Any, high: Any) -> str:
    """Returns the message for class ids that are out of range."""
    return (
        f"`{name}` must be class ids in [0, {limit}). "
        f"Received: ids from {low} to {high}."
    )


class Check(NamedTuple):
    """A condition on data, and what to say if it does not hold.

    Attributes:
        condition: Scalar bool tensor.
        message: The error message, with a `{}` for each value.
        values: Returns the scalar integer tensors of the message. They are computed
            only if the condition does not hold.
    """

    condition: tf.Tensor
    message: str
    values: Callable[[], Sequence[tf.Tensor]]


@on_host()
def ids_check(ids: tf.Tensor, limit: int | tf.Tensor, name: str) -> Check:
    """Checks that every id lies in `[0, limit)`."""
    return Check(
        tf.reduce_all(in_range(ids, limit)),
        out_of_range_message(name, "{}", "{}", "{}"),
        lambda: (tf.cast(limit, ids.dtype), tf.reduce_min(ids), tf.reduce_max(ids)),
    )


def batch_checks(labels: tf.Tensor, inputs: tf.Tensor) -> list[Check]:
    """Checks that the batch sizes are equal, or one of them is 1.

    Returns:
        An empty list if the shapes show that they fit.

    Raises:
        ValueError: If the batch sizes are known and do not fit.
    """
    message = (
        "`labels` and `inputs` must have the same batch size, or one of them a batch "
        "size of 1. Received: labels with batch size {}, inputs with batch size {}."
    )
    known = [tf.compat.dimension_value(x.shape[0]) for x in (labels, inputs)]
    if 1 in known or (None not in known and known[0] == known[1]):
        return []
    if None not in known:
        raise ValueError(message.format(*known))
    sizes = tf.shape(labels)[0], tf.shape(inputs)[0]
    with on_host():
        fits = tf.equal(*sizes) | tf.equal(sizes[0], 1) | tf.equal(sizes[1], 1)
    return [Check(fits, message, lambda: sizes)]


def same_batch_checks(
    examples: Any, max_axes: int | None = None, **values: Any
) -> list[Check]:
    """Checks that tensors have a value for each example.

    Args:
        examples: Features, a tensor or an array `[batch, dim]` or `[batch, time, dim]`.
        max_axes: How many axes to compare at most; None for all but `dim`.
        **values: By the arguments' names, `[batch, ...]` or `[batch, time, ...]`. Where
            all sizes are known, they are checked with the shapes.
    """
    checks = []
    for name, value in values.items():
        if value is None:
            continue
        if isinstance(value, tf.RaggedTensor):
            value = value.row_lengths()
        if not hasattr(value, "shape"):
            with on_host():
                value = tf.convert_to_tensor(value)
        ranks = tf.TensorShape(value.shape).rank, tf.TensorShape(examples.shape).rank
        axes = 1 if None in ranks else min(ranks[0], max_axes or ranks[1] - 1)
        shapes = [tf.TensorShape(x.shape)[:axes] for x in (value, examples)]
        if axes and not all(shape.is_fully_defined() for shape in shapes):
            checks.append(_same_size_check(name, value, examples, axes))
    return checks


def _same_size_check(
    name: str, values: tf.Tensor, examples: tf.Tensor, axes: int
) -> Check:
    sizes = tf.shape(values)[:axes], tf.shape(examples)[:axes]
    message = (
        f"`{name}` must have a value for each example. "
        "Received: {} values for {} examples."
    )
    with on_host():
        fits, num_equal = tf.equal(*sizes), axes
        if name in ("sample_weight", "mask"):  # may have one value for each sequence
            num_equal = 1
            fits |= tf.equal(sizes[0], [-1] + [1] * (axes - 1))
        if tracing_for_xla():  # drops assertions, but refuses a wrong shape
            for axis in range(num_equal):
                size, expected = (x[axis : axis + 1] for x in sizes)
                fits &= tf.reduce_all(tf.reshape(tf.ones(size, tf.bool), expected))
        return Check(
            tf.reduce_all(fits), message, lambda: tuple(map(tf.reduce_prod, sizes))
        )


@on_host()
def assert_all(checks: Sequence[Check]) -> list[tf.Tensor | tf.Operation]:
    """Returns operations that fail unless every check holds.

    The message is that of the first check that fails. It is made only then: a step
    whose data are good computes the conditions and nothing else.

    Returns:
        An empty list if there are no checks, and in eager execution, where a check that
        fails raises at once.

    Raises:
        tf.errors.InvalidArgumentError: In eager execution, if a check fails.
    """
    if not checks:
        return []
    if tf.executing_eagerly():
        for check in checks:
            if not check.condition:
                message = check.message.format(*map(int, check.values()))
                raise tf.errors.InvalidArgumentError(None, None, message)
        return []
    condition = checks[0].condition
    for check in checks[1:]:
        condition &= check.condition
    if tracing_for_xla():  # no strings there; XLA drops the assertion
        return [tf.debugging.Assert(condition, [checks[0].message])]

    def fail() -> tf.Tensor:
        message = tf.constant("")
        for check in reversed(checks):
            text = tf.strings.format(check.message, tuple(check.values()))
            message = tf.where(check.condition, message, text)
        assertion = tf.raw_ops.Assert(condition=condition, data=[message])
        with tf.control_dependencies([assertion]):
            return tf.identity(condition)

    return [tf.cond(condition, lambda: tf.identity(condition), fail)]
