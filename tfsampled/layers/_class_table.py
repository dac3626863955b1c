"""The classes of a head: where rows and biases come from, as `Table`s to compute with.

Rows are the head's own variables, those of an Embedding, or made by a `ClassTower`.
"""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from tfsampled._core.embedding import partition
from tfsampled._core.embedding.sharded_table import Table
from tfsampled.layers._class_tower import TowerTable


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
    kernels = []
    for index, shard in enumerate(shards):
        kernel = _add_kernel(head, f"kernel_{index}", shard.shape, shard)
        # tf.train.Checkpoint does not look inside Keras's lists.
        setattr(head, f"_kernel_{index}", kernel)
        kernels.append(kernel)
    return kernels


def _add_kernel(head: Any, name: str, shape: Any, initializer: Any) -> Any:
    return head.add_weight(
        name=name,
        shape=shape,
        initializer=initializer,
        regularizer=head.kernel_regularizer,
        constraint=head.kernel_constraint,
        autocast=False,  # a mixed policy would cast every row to read a few
    )


def sampled_rows(head: Any) -> Any:
    """Returns the table that a sampled loss looks up rows in."""
    if head.class_tower is not None:
        return TowerTable(head.class_tower, head.normalize)
    return _variables(head)


def full(head: Any) -> Table:
    """Returns the rows of all classes."""
    if head.class_tower is None:
        return _variables(head)
    return Table((head.class_tower.table(),), "div", head.normalize)


def biases(head: Any) -> Table | None:
    """Returns the biases, which the temperature divides."""
    if not head.biases:
        return None
    table = Table.from_params(head.biases, head.partition_strategy)
    return table._replace(divisor=head.temperature)


def _variables(head: Any) -> Table:
    table = Table.from_params(head.kernels, head.partition_strategy)
    return table._replace(normalize=head.normalize, devices=head.shard_devices)


def validate_source(
    head: Any, tied_to: Any, class_encoder: Any, class_features: Any
) -> None:
    """Raises `ValueError` unless a head is given one source of rows, or none."""
    if (class_encoder is None) != (class_features is None):
        raise ValueError(
            "`class_encoder` and `class_features` must be given together. Received: "
            f"class_encoder={class_encoder!r}, class_features={class_features!r}."
        )
    name = "tied_to" if class_encoder is None else "class_encoder"
    if tied_to is None and class_encoder is None:
        return
    if tied_to is not None and class_encoder is not None:
        raise ValueError("`tied_to` must be None with `class_encoder`.")
    if head.num_shards > 1:
        raise ValueError(
            f"`num_shards` must be 1 with `{name}`. "
            f"Received: num_shards={head.num_shards}."
        )
    if head.kernel_regularizer or head.kernel_constraint:
        raise ValueError(
            f"`kernel_regularizer` and `kernel_constraint` must be None with `{name}`: "
            "give them to that layer."
        )
    if tied_to is None:
        return
    validate_embedding(tied_to)
    if tied_to.input_dim != head.num_classes:
        raise ValueError(
            "`tied_to` must have a row for each class. Received: "
            f"tied_to.input_dim={tied_to.input_dim}, num_classes={head.num_classes}."
        )
    cap = getattr(tied_to, "logit_soft_cap", None)  # of a ReversibleEmbedding
    if cap is not None and head.logit_soft_cap not in (None, cap):
        raise ValueError(
            "`logit_soft_cap` must be that of `tied_to`, or None. Received: "
            f"logit_soft_cap={head.logit_soft_cap}, tied_to.logit_soft_cap={cap}."
        )
    head.logit_soft_cap = cap or head.logit_soft_cap


def validate_embedding(embedding: Any) -> None:
    """Raises `ValueError` unless `embeddings` is what the layer multiplies by."""
    if not isinstance(embedding, keras.layers.Embedding):
        raise ValueError(
            "`tied_to` must be a keras.layers.Embedding. "
            f"Received: tied_to={embedding!r}."
        )
    needed = {"quantization_mode": None, "lora_enabled": False, "tie_weights": True}
    for attribute, value in needed.items():
        if (received := getattr(embedding, attribute, value)) != value:
            raise ValueError(
                f"`tied_to` must have {attribute}={value}, or be left out: otherwise "
                "its `embeddings` are not the class embeddings. "
                f"Received: tied_to.{attribute}={received!r}."
            )
