"""The arguments of a sampled loss, converted and held against each other.

Everything that can be known before anything runs is checked here, so that a call that
is refused has drawn no candidates and touched no variable.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import tensorflow as tf

from tfsampled._core import validation
from tfsampled._core.convert import as_tensor
from tfsampled._core.embedding import partition
from tfsampled._core.embedding.table import Table


@dataclasses.dataclass(frozen=True)
class Arguments:
    """What both sampled losses are computed from.

    Attributes:
      weights: rows `[dim]`.
      biases: rows `[]`, or `None` for no bias.
      labels: `int64` `[batch, num_true]`.
      inputs: `[batch, dim]`, floating. A batch of 1, here or there, serves every row
        of the other.
      num_true: columns of `labels`.
    """

    weights: Table
    biases: Table | None
    labels: tf.Tensor
    inputs: tf.Tensor
    num_true: int

    @property
    def compute_dtype(self) -> tf.DType:
        """What logits and losses are carried in: at least float32."""
        return tf.float64 if self.inputs.dtype == tf.float64 else tf.float32

    def after(self, assertions: list[Any]) -> Arguments:
        """The same, but nothing reads labels or inputs before the assertions hold."""
        if not assertions:
            return self
        with tf.control_dependencies(assertions):
            labels, inputs = tf.identity(self.labels), tf.identity(self.inputs)
        return dataclasses.replace(self, labels=labels, inputs=inputs)

    @property
    def static_batch(self) -> int | None:
        """The batch, as far as labels and inputs tell it before the graph runs."""
        shapes = (self.labels.shape, self.inputs.shape)
        known = [tf.compat.dimension_value(shape[0]) for shape in shapes]
        # A batch of 1 may serve a larger one that is not known yet.
        larger = [batch for batch in known if batch not in (None, 1)]
        return larger[0] if larger else None if None in known else 1

    @property
    def rows(self) -> int | tf.Tensor:
        """How many classes have a row and a bias: the bound of any class id."""
        rows = self.weights.num_rows()
        if self.biases is None:
            return rows
        others = self.biases.num_rows()
        if isinstance(rows, int) and isinstance(others, int):
            return min(rows, others)
        return tf.minimum(tf.cast(rows, tf.int64), tf.cast(others, tf.int64))


def convert(
    weights: Any,
    biases: Any,
    labels: Any,
    inputs: Any,
    num_true: Any,
    partition_strategy: str,
    columns_matter: bool,
) -> Arguments:
    """The arguments as tensors and tables.

    Args:
      columns_matter: whether labels have to be `[batch, num_true]`. TensorFlow reads
        them flat where it neither samples nor looks for accidental hits.

    Raises:
      ValueError: shapes or dtypes that do not fit each other.
    """
    num_true = validation.positive_int(num_true, "num_true")
    weights = _table(weights, partition_strategy, "weights", "[num_classes, dim]", 2)
    if biases is not None:
        biases = _table(biases, partition_strategy, "biases", "[num_classes]", 1)
    inputs = _inputs(inputs, weights)
    labels = _labels(labels, num_true, columns_matter)
    return Arguments(weights, biases, labels, inputs, num_true)


def check_classes(arguments: Arguments, num_classes: int) -> None:
    """Raises `ValueError` unless every class has its row, and its bias if any."""
    for name, table in (("weights", arguments.weights), ("biases", arguments.biases)):
        if table is None or table.static_rows is None:
            continue
        if table.static_rows < num_classes:
            raise ValueError(
                f"num_classes is {num_classes}, but {name} have {table.static_rows} "
                "rows: every class needs one."
            )
        sizes = [size for size in table.sizes if size is not None]
        needed = partition.rows_needed(num_classes, sizes, table.strategy)
        if len(sizes) > 1 and any(map(int.__lt__, sizes, needed)):
            raise ValueError(
                f"{name} come in shards of {sizes} rows, but with partition_strategy="
                f'"{table.strategy}" {num_classes} classes need {needed}: cut the '
                "table that way, or choose the strategy it was cut by."
            )


def _table(params: Any, strategy: str, name: str, shape: str, rank: int) -> Table:
    if strategy not in partition.STRATEGIES:
        raise ValueError(
            f'partition_strategy is {strategy!r}; it must be "mod" or "div".'
        )
    if params is None or (isinstance(params, (list, tuple)) and not params):
        raise ValueError(f"{name} are missing: pass a table {shape} or its shards.")
    table = Table.of(params, strategy)
    for shard in table.shards:
        if shard.shape.rank not in (rank, None):
            raise ValueError(
                f"{name} must be {shape}, in one piece or in shards of that rank; "
                f"got shape {shard.shape}."
            )
        if not shard.shape[1:].is_compatible_with(table.shards[0].shape[1:]):
            raise ValueError(
                f"shards of {name} must agree in dim; got shapes "
                f"{[tuple(piece.shape) for piece in table.shards]}."
            )
    dtypes = [tf.as_dtype(shard.dtype).base_dtype for shard in table.shards]
    number = table.dtype.is_floating or table.dtype.is_integer or table.dtype.is_bool
    if len(set(dtypes)) > 1 or not number:
        raise ValueError(
            f"{name} must be real numbers of one dtype; got "
            f"{', '.join(sorted({dtype.name for dtype in dtypes}))}."
        )
    return table


def _inputs(inputs: Any, weights: Table) -> tf.Tensor:
    inputs = as_tensor(
        inputs, weights.dtype if weights.dtype.is_floating else tf.float32
    )
    if not inputs.dtype.is_floating:
        raise ValueError(
            f"inputs must be of a floating dtype, not {inputs.dtype.name}: cast them."
        )
    if inputs.shape.rank not in (2, None):
        raise ValueError(
            f"inputs must be [batch, dim]; got shape {inputs.shape}: reshape them, "
            "and labels alike, so that each position is an example."
        )
    dim = weights.shards[0].shape[1:]
    if not inputs.shape[1:].is_compatible_with(dim):
        raise ValueError(
            f"inputs have dim {inputs.shape[1]}, weights dim {dim[0]}: they must agree."
        )
    return inputs


def _labels(labels: Any, num_true: int, columns_matter: bool) -> tf.Tensor:
    labels = as_tensor(labels, tf.int64)
    # TensorFlow rounds floats towards zero.
    if not (
        labels.dtype.is_integer or labels.dtype.is_floating or labels.dtype.is_bool
    ):
        raise ValueError(f"labels must be class ids, not {labels.dtype.name}.")
    labels = tf.cast(labels, tf.int64)
    if columns_matter and (
        labels.shape.rank not in (2, None)
        or not labels.shape[1:].is_compatible_with([num_true])
    ):
        one_each = num_true == 1 and labels.shape.rank == 1
        todo = "labels[:, tf.newaxis]" if one_each else f"{num_true} for each example"
        raise ValueError(
            f"labels must be [batch, num_true] = [batch, {num_true}]; got shape "
            f"{labels.shape}: pass {todo}."
        )
    if labels.shape.rank == 2 and labels.shape[1] == num_true:
        return labels
    return tf.reshape(labels, [-1, num_true])
