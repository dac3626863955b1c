"""Labels and inputs of any rank as rows; masks and weights of their losses.

Shapes: `...` are the axes of the examples (`[batch]` or `[batch, time]`), `N` is their
product, `D` features, `T` labels of each example.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import tensorflow as tf

from tfsampled._core import validation
from tfsampled._core.sampled_loss.chunked_gradient import num_valid_chunks
from tfsampled._core.static_ops import Size, first_k_indices, num_rows
from tfsampled._core.xla import on_host, tracing_for_xla


class Labels(NamedTuple):
    """Label ids, with padding replaced by valid ids.

    Attributes:
        ids: int64 `[N, T]`.
        label_mask: bool `[N, T]`, False for padding; None if there is none.
        example_mask: bool `[...]`, True where an example has a label; None if all have.
    """

    ids: tf.Tensor
    label_mask: tf.Tensor | None
    example_mask: tf.Tensor | None

    def label_weights(self, dtype: tf.DType) -> tf.Tensor | None:
        """Returns what each label weighs in its example, `[N, T]`; None for `1 / T`."""
        if self.label_mask is None or self.ids.shape[1] == 1:
            return None
        mask = tf.cast(self.label_mask, dtype)
        return tf.math.divide_no_nan(mask, tf.reduce_sum(mask, axis=1, keepdims=True))


class PackedExamples(NamedTuple):
    """The examples that have a label, next to each other: the others cost nothing.

    If no example has a label, one stays, as not every operation takes a tensor without
    rows. Under XLA, where no shape may depend on data, as many rows stay: those of the
    other examples come last and are copies of any row.

    Attributes:
        index: int64 `[n, 1]`, the rows of `[N, ...]` to take; for the others under XLA
            past the end, where a gather takes the last row and a scatter puts none.
        has_label: bool `[n]`, False for those that had to stay.
        shape: `[N]`.
        num_valid: `[]` int32, how many have a label; None without XLA.
    """

    index: tf.Tensor
    has_label: tf.Tensor
    shape: tf.Tensor
    num_valid: tf.Tensor | None = None

    @classmethod
    @on_host()
    def pack(
        cls, example_mask: tf.Tensor, num_sampled: Size = 0
    ) -> PackedExamples | None:
        """Packs the examples where `example_mask` `[...]` is True.

        Under XLA returns None for a batch that would be a single chunk of logits.
        """
        # [[False, True], [False, True]] -> index = [[1], [3]]
        mask = tf.reshape(example_mask, [-1])
        if tracing_for_xla():
            # With 16 chunks, 1,030 examples become 1,040 rows.
            chunks = num_valid_chunks(num_rows(mask), num_sampled)
            if isinstance(chunks, int) and chunks == 1:
                return None
            total = -(-num_rows(mask) // chunks) * chunks
            index, num_valid = first_k_indices(mask, total)
            has_label, shape = tf.range(total) < num_valid, tf.shape(mask, tf.int64)
            index = tf.cast(index[:, tf.newaxis], tf.int64)
            return cls(index, has_label, shape, num_valid)
        index = tf.where(mask)
        is_empty = tf.equal(tf.size(index), 0) & (tf.size(mask) > 0)
        index = tf.pad(index, [[0, tf.cast(is_empty, tf.int32)], [0, 0]])
        shape = tf.shape(mask, tf.int64)
        return cls(index, tf.gather_nd(mask, index), shape)

    def take(self, *tensors: tf.Tensor | None) -> list[Any]:
        """Takes `[n, ...]` of each tensor `[N, ...]`; None stays None."""
        # With a second axis, of one element, the gradient is no tf.IndexedSlices.
        with on_host():
            index = tf.pad(self.index, [[0, 0], [0, 1]])
        return [
            x if x is None else tf.gather_nd(x[:, tf.newaxis], index) for x in tensors
        ]

    def restore(self, values: tf.Tensor) -> tf.Tensor:
        """Puts values `[n, ...]` back to `[N, ...]`; 0 for examples without a label."""
        shape = tf.shape(values, tf.int64)
        with on_host():
            axes = shape[1:]
            shape = tf.concat([self.shape, axes], axis=0)
            has_label = tf.reshape(
                self.has_label, tf.concat([[-1], tf.ones_like(axes)], axis=0)
            )
        values = tf.where(has_label, values, tf.zeros_like(values))
        return tf.scatter_nd(self.index, values, shape)


def real_tensor(values: Any, name: str, allow_bool: bool = False) -> tf.Tensor:
    """Converts dense real numbers to a tensor.

    Raises:
        ValueError: If they are ragged or sparse, or not real numbers.
    """
    values = validation.as_tensor(values, None, name)
    is_number = values.dtype.is_floating or values.dtype.is_integer
    if not is_number and not (allow_bool and values.dtype.is_bool):
        raise ValueError(
            f"`{name}` must be real numbers. Received: dtype={values.dtype.name}."
        )
    return values


def flatten_inputs(inputs: tf.Tensor, dim: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns inputs `[..., dim]` as `[N, dim]`, and the shape `...` as a tensor."""
    if inputs.shape.rank is None or inputs.shape.rank < 2 or inputs.shape[-1] != dim:
        raise ValueError(
            "`inputs` must have the shape [batch, dim] or [batch, time, dim], with the "
            f"dim of the class embeddings. Received: inputs.shape={inputs.shape}, "
            f"dim={dim}."
        )
    return tf.reshape(inputs, [-1, dim]), tf.shape(inputs)[:-1]


def integer_labels(values: Any) -> tf.Tensor | tf.RaggedTensor:
    """Converts labels to a tensor of integers; ragged labels stay ragged.

    Raises:
        ValueError: If they are not integers.
    """
    if not isinstance(values, tf.RaggedTensor):
        values = validation.as_tensor(values, None, "labels")
    if not values.dtype.is_integer:
        raise ValueError(
            "`labels` must be integer class ids. For one-hot labels pass the argmax; "
            "for whole-number floats cast to int. Received: "
            f"dtype={values.dtype.name}."
        )
    return values


@on_host()
def parse_labels(
    values: Any,
    examples: tf.TensorShape,
    num_true: int,
    ignore_class: int | None,
    mask: Any,
) -> Labels:
    """Parses labels `[...]` or `[..., num_true]` of examples `[...]`.

    Args:
        values: Integers; ragged ones are padded with `ignore_class`.
        examples: The static shape `...` of the examples.
        ignore_class: The label that marks padding, or None.
        mask: Boolean `[...]`, False where an example is padding whatever its label is;
            or None.

    Raises:
        ValueError: If dtypes or shapes do not fit.
    """
    values = pad_ragged(integer_labels(values), num_true, ignore_class)
    allowed = [examples + [num_true]]
    if num_true == 1:
        allowed.insert(0, examples)
    if values.shape.rank is None or not any(
        shape.is_compatible_with(values.shape) for shape in allowed
    ):
        raise ValueError(
            "`labels` must have the shape "
            f"{' or '.join(str(shape) for shape in allowed)}. For one-hot labels pass "
            "the argmax; set the layer's `num_true` if an example has several labels. "
            f"Received: labels.shape={values.shape}, num_true={num_true}."
        )
    if values.shape.rank == examples.rank:
        values = values[..., tf.newaxis]
    if values.shape[-1] != num_true:  # unknown while tracing
        values = tf.ensure_shape(values, [None] * examples.rank + [num_true])
    ids = tf.cast(values, tf.int64)
    if ignore_class is None and mask is None:
        return Labels(tf.reshape(ids, [-1, num_true]), None, None)
    is_label = tf.ones_like(ids, tf.bool)
    if ignore_class is not None:
        is_label = ids != ignore_class
    if mask is not None:
        mask = tf.cast(broadcast_to_examples(mask, examples, "mask"), tf.bool)
        is_label &= mask[..., tf.newaxis]
    example_mask = tf.reduce_any(is_label, axis=-1)
    is_label = tf.reshape(is_label, [-1, num_true])
    ids = tf.reshape(ids, [-1, num_true])
    # Padding repeats the example's first label; it is class 0 where there is none.
    # ids = [[-1, 7, 5], [-1, -1, -1]], ignore_class = -1 -> [[7, 7, 5], [0, 0, 0]]
    first = tf.argmax(tf.cast(is_label, tf.int32), axis=1)[:, tf.newaxis]
    ids = tf.where(is_label, ids, 0)
    ids = tf.where(is_label, ids, tf.gather(ids, first, batch_dims=1))
    return Labels(ids, is_label, example_mask)


@on_host()
def parse_class_lists(
    values: Any, examples: tf.TensorShape, num_classes: Size, name: str
) -> tf.Tensor | None:
    """Converts lists of class ids, one for each example `[...]`.

    Args:
        values: Integers `[..., n]`, -1 for none.
        examples: The static shape `...` of the examples.

    Returns:
        int64 `[N, n]`; None if `n` is 0.

    Raises:
        ValueError: If dtype or shape does not fit.
        tf.errors.InvalidArgumentError: If an id is out of range.
    """
    ids = validation.as_class_ids(values, name)
    if ids.shape.rank == 0 or not ids.shape[:-1].is_compatible_with(examples):
        raise ValueError(
            f"`{name}` must have the axes of the examples, {examples}, and one more. "
            f"Received: {name}.shape={ids.shape}."
        )
    if ids.shape[-1:] == [0]:
        return None
    ids = check_class_list(ids, num_classes, name)
    shape = tf.shape(ids)  # of which any may be 0
    lists = tf.reshape(ids, [tf.reduce_prod(shape[:-1]), shape[-1]])
    return tf.ensure_shape(lists, [ids.shape[:-1].num_elements(), ids.shape[-1]])


def parse_negatives(
    values: Any, examples: tf.TensorShape, num_classes: int
) -> tuple[tf.Tensor | None, tf.Tensor | None]:
    """Converts class ids that examples `[...]` are compared with, -1 for none.

    Returns:
        Those of all examples, int64 `[n]`, and those of each, `[N, n]`; None for none.
    """
    if values is None:
        return None, None
    ids = validation.as_class_ids(values, "negatives")
    if ids.shape.rank == 1:
        return check_class_list(ids, num_classes, "negatives"), None
    own = parse_class_lists(ids, examples, num_classes, "negatives")
    if own is not None and own.shape[1] is None:
        raise ValueError(
            "`negatives` must have a last axis of known size: pad them with -1 to one "
            f"length. Received: negatives.shape={ids.shape}."
        )
    return None, own


def check_class_list(ids: tf.Tensor, num_classes: Size, name: str) -> tf.Tensor:
    """Returns ids that are not read before they are found to be -1 or a class."""
    check = class_list_check(ids, num_classes, name)
    with tf.control_dependencies(validation.assert_all([check])), on_host():
        return tf.identity(ids)


@on_host()
def class_list_check(ids: tf.Tensor, num_classes: Size, name: str) -> validation.Check:
    """Checks that every id is -1 or a class."""
    valid = tf.where(tf.equal(ids, -1), tf.zeros_like(ids), ids)
    return validation.ids_check(valid, num_classes, name)


def apply_weights(
    losses: tf.Tensor, weight: tf.Tensor | None, example_mask: tf.Tensor | None
) -> tf.Tensor:
    """Multiplies losses `[...]` by their weights; a masked example has the loss 0."""
    if weight is not None:
        weight = tf.cast(weight, losses.dtype)
        if example_mask is not None:  # a NaN there would make every gradient NaN
            weight = tf.where(example_mask, weight, tf.zeros_like(weight))
        losses *= weight
    if example_mask is not None:
        losses = tf.where(example_mask, losses, tf.zeros_like(losses))
    return losses


def broadcast_to_examples(
    values: Any, examples: tf.TensorShape, name: str
) -> tf.Tensor | None:
    """Gives `values` the examples' axes; None stays None.

    `[batch]` and `[batch, 1]` hold one value for each sequence of `[batch, time]`.

    Raises:
        ValueError: If the batch sizes differ, or the axes do not fit.
    """
    if values is None:
        return None
    values = real_tensor(values, name, allow_bool=True)
    received, rank = values.shape, examples.rank
    if received.rank == rank + 1 and received[-1] == 1:
        values = tf.squeeze(values, axis=-1)
    while values.shape.rank is not None and 0 < values.shape.rank < rank:
        values = values[..., tf.newaxis]
    shape = values.shape
    if (
        shape.rank != rank
        or not shape[:1].is_compatible_with(examples[:1])
        or not all(
            size in (None, 1) or other is None or size == other
            for size, other in zip(shape[1:], examples[1:], strict=True)
        )
    ):
        raise ValueError(
            f"`{name}` must have the shape {examples}, or [batch] with one value for "
            f"each sequence. Received: {name}.shape={received}."
        )
    return values


@on_host()
def pad_ragged(
    values: tf.Tensor | tf.RaggedTensor, num_true: int, ignore_class: int | None
) -> tf.Tensor:
    """Pads ragged labels `[batch, (labels)]` to `[batch, num_true]`.

    Raises:
        ValueError: If they have another shape, or there is nothing to pad with.
        tf.errors.InvalidArgumentError: If an example has more than `num_true` labels.
    """
    if not isinstance(values, tf.RaggedTensor):
        return values
    if tracing_for_xla():
        raise ValueError(
            "`labels` must be dense under jit_compile=True: convert ragged ones with "
            "labels.to_tensor(ignore_class, shape=[None, num_true])."
        )
    if ignore_class is None or values.shape.rank != 2 or num_true == 1:
        raise ValueError(
            "Ragged `labels` must have the shape [batch, (labels)], in a layer with "
            "`ignore_class` and `num_true` above 1; else convert them with to_tensor. "
            f"Received: labels.shape={values.shape}, num_true={num_true}, "
            f"ignore_class={ignore_class}."
        )
    longest = tf.reduce_max(values.row_lengths())
    check = validation.Check(
        longest <= num_true,
        f"An example must have at most num_true={num_true} labels. Received: {{}}.",
        lambda: (longest,),
    )
    with tf.control_dependencies(validation.assert_all([check])):
        values = tf.cast(values, tf.int64)  # an unsigned dtype has no negative padding
        return values.to_tensor(
            tf.constant(ignore_class, tf.int64), shape=[None, num_true]
        )
