"""Arguments of the losses: converted, and checked against each other.

What can be known before running is checked here, so that a refused call has drawn no
candidates and changed no variable.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import tensorflow as tf

from tfsampled._core import validation
from tfsampled._core.embedding import partition
from tfsampled._core.embedding.sharded_table import Table
from tfsampled._core.xla import on_host


class LossArguments(NamedTuple):
    """Converted arguments of a loss.

    Attributes:
        weights: Rows `[dim]`.
        biases: Rows `[]`, or None for no bias.
        labels: int64 `[batch, num_true]`.
        inputs: `[batch, dim]`, floating. A batch of 1, here or in `labels`, is
            broadcast against the other.
        num_true: The number of columns of `labels`.
    """

    weights: Table
    biases: Table | None
    labels: tf.Tensor
    inputs: tf.Tensor
    num_true: int

    def after(self, assertions: Sequence[Any]) -> LossArguments:
        """Returns arguments that are not read before the assertions hold."""
        if not assertions:
            return self
        with tf.control_dependencies(assertions):
            inputs = tf.identity(self.inputs)
            with on_host():
                labels = tf.identity(self.labels)
        return self._replace(labels=labels, inputs=inputs)

    @property
    def static_batch(self) -> int | None:
        """The batch size, as far as the shapes of labels and inputs tell it."""
        shapes = (self.labels.shape, self.inputs.shape)
        known = [tf.compat.dimension_value(shape[0]) for shape in shapes]
        # A batch of 1 may be broadcast to one whose size is not known yet.
        larger = [batch for batch in known if batch not in (None, 1)]
        return larger[0] if larger else None if None in known else 1

    @property
    def num_rows(self) -> int | tf.Tensor:
        """The number of classes that have a row and a bias: an int, or int64 `[]`."""
        num_rows = self.weights.num_rows()
        if self.biases is None:
            return num_rows
        num_biases = self.biases.num_rows()
        if isinstance(num_rows, int) and isinstance(num_biases, int):
            return min(num_rows, num_biases)
        return tf.minimum(tf.cast(num_rows, tf.int64), tf.cast(num_biases, tf.int64))


def convert(
    *,
    weights: Any,
    biases: Any,
    labels: Any,
    inputs: Any,
    num_true: Any,
    partition_strategy: str,
    flat_labels: bool = False,
) -> LossArguments:
    """Converts the arguments of `tfsampled.nn.softmax_loss` to tensors and tables.

    Args:
        flat_labels: Whether labels of any shape are read as `[batch, num_true]`, as
            TensorFlow does where it neither samples nor removes accidental hits.

    Raises:
        ValueError: If shapes or dtypes do not fit each other.
    """
    num_true = validation.positive_int(num_true, "num_true")
    weights, biases = convert_tables(weights, biases, partition_strategy)
    inputs = convert_inputs(inputs, weights)
    labels = _convert_labels(labels, num_true, flat_labels)
    return LossArguments(weights, biases, labels, inputs, num_true)


def convert_tables(
    weights: Any, biases: Any, partition_strategy: str
) -> tuple[Table, Table | None]:
    """Converts class embeddings `[num_classes, dim]` and biases `[num_classes]`."""
    partition.validate_strategy(partition_strategy)
    weights = _convert_table(weights, partition_strategy, "weights", 2)
    if biases is not None:
        biases = _convert_table(biases, partition_strategy, "biases", 1)
    return weights, biases


def convert_inputs(inputs: Any, weights: Table) -> tf.Tensor:
    """Converts inputs `[batch, dim]`, whose dim must be that of the table."""
    default = weights.dtype if weights.dtype.is_floating else tf.float32
    inputs = validation.as_tensor(inputs, default, "inputs")
    if not inputs.dtype.is_floating:
        raise ValueError(
            f"`inputs` must be floating. Received: dtype={inputs.dtype.name}."
        )
    dim = weights.shards[0].shape[1:]
    if not inputs.shape.is_compatible_with(tf.TensorShape([None]).concatenate(dim)):
        raise ValueError(
            "`inputs` must have the shape [batch, dim] with the dim of `weights`; "
            "flatten further batch axes, in `labels` too. Received: "
            f"inputs.shape={inputs.shape}, dim of weights={dim}."
        )
    return inputs


def check_classes(weights: Table, biases: Table | None, num_classes: int) -> None:
    """Raises `ValueError` unless every class has a row, and a bias if there are any."""
    for name, table in (("weights", weights), ("biases", biases)):
        if table is None or table.static_rows is None:
            continue
        if table.static_rows < num_classes:
            raise ValueError(
                f"`{name}` must have a row for each class. Received: "
                f"{table.static_rows} rows of {name}, num_classes={num_classes}."
            )
        needed = partition.rows_needed(num_classes, table.sizes, table.strategy)
        if any(map(int.__lt__, table.sizes, needed)):
            raise ValueError(
                f"The shards of `{name}` must be cut as `partition_strategy` says: "
                f'"{table.strategy}" needs {needed} rows for {num_classes} classes. '
                f"Received: shards of {table.sizes} rows."
            )


def rows_check(num_rows: int | tf.Tensor, num_classes: int) -> list[validation.Check]:
    """Checks that every class has a row, where the graph does not know the rows."""
    if isinstance(num_rows, int):  # `check_classes` has seen to it
        return []
    message = (
        "`weights` and `biases` must have a row for each class. Received: {} rows, "
        f"num_classes={num_classes}."
    )
    fits = tf.cast(num_rows, tf.int64) >= num_classes
    return [validation.Check(fits, message, lambda: (num_rows,))]


def broadcast_batch(x: tf.Tensor, like: tf.Tensor) -> tf.Tensor:
    """Repeats the single row of `x` for each row of `like`.

    Returns `x` itself if it has another number of rows than 1.

    >>> broadcast_batch(tf.constant([[1, 2]]), like=tf.zeros([3, 5])).shape
    TensorShape([3, 2])
    >>> broadcast_batch(tf.constant([[1], [2]]), like=tf.zeros([1, 5])).shape
    TensorShape([2, 1])
    """
    batch, target = (tf.compat.dimension_value(t.shape[0]) for t in (x, like))
    if target == 1 or batch not in (None, 1):
        return x
    rows = tf.broadcast_dynamic_shape(tf.shape(x)[:1], tf.shape(like)[:1])
    result = tf.broadcast_to(x, tf.concat([rows, tf.shape(x)[1:]], axis=0))
    result.set_shape(tf.TensorShape([target]).concatenate(x.shape[1:]))
    return result


def _convert_table(params: Any, strategy: str, name: str, rank: int) -> Table:
    shape = "[num_classes, dim]" if rank == 2 else "[num_classes]"
    if params is None or (isinstance(params, (list, tuple)) and not params):
        raise ValueError(
            f"`{name}` must be a table {shape}, or its shards. "
            f"Received: {name}={params!r}."
        )
    table = Table.from_params(params, strategy)
    shapes = [shard.shape for shard in table.shards]
    if any(
        shape.rank not in (rank, None)
        or not shape[1:].is_compatible_with(shapes[0][1:])
        for shape in shapes
    ):
        raise ValueError(
            f"`{name}` must be a table {shape}, or shards of it with one dim. Received "
            f"shapes: {', '.join(map(str, shapes))}."
        )
    dtypes = {tf.as_dtype(shard.dtype).base_dtype.name for shard in table.shards}
    is_real = table.dtype.is_floating or table.dtype.is_integer or table.dtype.is_bool
    if len(dtypes) > 1 or not is_real:
        raise ValueError(
            f"`{name}` must be real numbers of one dtype. "
            f"Received: {', '.join(sorted(dtypes))}."
        )
    return table


@on_host()
def _convert_labels(labels: Any, num_true: int, flat_labels: bool) -> tf.Tensor:
    labels = validation.as_tensor(labels, tf.int64, "labels")
    dtype = labels.dtype
    if not (dtype.is_integer or dtype.is_floating or dtype.is_bool):
        raise ValueError(f"`labels` must be class ids. Received: dtype={dtype.name}.")
    labels = tf.cast(labels, tf.int64)  # rounds floats towards zero, as TensorFlow
    if not flat_labels and not labels.shape.is_compatible_with([None, num_true]):
        hint = ""
        if num_true == 1 and labels.shape.rank == 1:
            hint = " Pass labels[:, tf.newaxis]."
        raise ValueError(
            "`labels` must have the shape [batch, num_true]. Received: "
            f"labels.shape={labels.shape}, num_true={num_true}.{hint}"
        )
    if labels.shape.rank == 2 and labels.shape[1] == num_true:
        return labels
    if flat_labels:
        return tf.reshape(labels, [-1, num_true])
    return tf.ensure_shape(labels, [None, num_true])
