"""The variables of a head's table: its own, or those of an Embedding it shares."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from tfsampled._core.embedding import partition


def add_kernels(head: Any, dim: int) -> Any:
    """Adds the variable `[num_classes, dim]` to a head, or the list of its shards.

    Shards are those of one initial table, whose scale depends on its shape.
    """
    shape = (head.num_classes, dim)
    if head.num_shards == 1:
        return _add_kernel(head, "kernel", shape, head.kernel_initializer)
    with tf.init_scope():
        table = head.kernel_initializer(shape, dtype=head.variable_dtype)
        shards = partition.split(table, head.num_shards, head.partition_strategy)
    return [
        _add_kernel(
            head,
            f"kernel_{index}",
            shard.shape,
            lambda shape, dtype, value=shard: value,
        )
        for index, shard in enumerate(shards)
    ]


def _add_kernel(head: Any, name: str, shape: Any, initializer: Any) -> Any:
    return head.add_weight(
        name=name,
        shape=shape,
        initializer=initializer,
        regularizer=head.kernel_regularizer,
        constraint=head.kernel_constraint,
        autocast=False,  # a mixed policy would cast every row to read a few
    )


def validate_num_rows(embedding: Any, num_classes: int) -> None:
    """Raises `ValueError` unless an Embedding has a row for each class."""
    validate_embedding(embedding)
    if embedding.input_dim != num_classes:
        raise ValueError(
            "`tied_to` must have a row for each class. Received: "
            f"tied_to.input_dim={embedding.input_dim}, num_classes={num_classes}."
        )


def validate_embedding(embedding: Any) -> None:
    """Raises `ValueError` unless `embeddings` is what the layer multiplies by."""
    if not isinstance(embedding, keras.layers.Embedding):
        raise ValueError(
            "`tied_to` must be a keras.layers.Embedding. "
            f"Received: tied_to={embedding!r}."
        )
    for attribute, value in (
        ("quantization_mode", None),
        ("lora_enabled", False),
        ("tie_weights", True),
        ("logit_soft_cap", None),
    ):
        if (received := getattr(embedding, attribute, value)) != value:
            raise ValueError(
                f"`tied_to` must have {attribute}={value}: otherwise its `embeddings` "
                "are not the class embeddings. "
                f"Received: tied_to.{attribute}={received!r}."
            )
