"""The table of an Embedding as that of a head: which ones can be shared."""

from __future__ import annotations

from typing import Any

import keras


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
