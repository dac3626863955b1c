"""Layers that encoder and head share: a tied Embedding is saved by its position."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import keras

from tfsampled.layers import SampledSoftmax


def tied_index(encoder: Any, head: SampledSoftmax) -> int | None:
    """Returns the position of the head's Embedding among the encoder's, or None."""
    embeddings = _embeddings(encoder)
    return embeddings.index(head.tied_to) if head.tied_to in embeddings else None


def heads_from_config(head: dict[str, Any], encoder: Any, index: Any) -> Any:
    """Makes a head, or several by output; each is tied as it was."""
    if "class_name" not in head:
        return {
            name: heads_from_config(value, encoder, index[name])
            for name, value in head.items()
        }
    embedding = _find_tied(encoder, head, index)
    if embedding is not None:  # the encoder's own, not a copy of it
        head = {**head, "config": {**head["config"], "tied_to": embedding}}
    return keras.saving.deserialize_keras_object(head)


def _find_tied(
    encoder: Any, head: dict[str, Any], index: int | str | None
) -> keras.layers.Embedding | None:
    """Returns the encoder's Embedding that the saved head was tied to, or None.

    Args:
        encoder: The loaded encoder.
        head: The config of the head.
        index: Its position among the encoder's, None if it is not there; "unknown" in
            files of version 0.1.0, which find it by its name.

    Raises:
        ValueError: If it cannot be told.
    """
    tied_to = head["config"].get("tied_to")
    if tied_to is None or index is None:
        return None
    name = tied_to["config"]["name"]
    embeddings = _embeddings(encoder)
    if isinstance(index, int):
        # The name alone is not reliable: two layers may share it, and Keras names an
        # unnamed Embedding differently each time. The position is reliable, unless the
        # layer there has another shape, or the name is that of a different Embedding.
        shape = (tied_to["config"]["input_dim"], tied_to["config"]["output_dim"])
        found = embeddings[index] if index < len(embeddings) else None
        if (
            found is not None
            and shape == (found.input_dim, found.output_dim)
            and (found.name == name or name not in [e.name for e in embeddings])
        ):
            return found
        raise ValueError(
            f"The head was tied to the Embedding {name!r} of the encoder, but the "
            f"loaded encoder has {[layer.name for layer in embeddings]}. Make the "
            "encoder from its config with the same layers."
        )
    matches = [layer for layer in embeddings if layer.name == name]
    if len(matches) > 1:
        raise ValueError(
            f"The head was tied to the Embedding {name!r}, but the encoder has "
            f"{len(matches)} of that name. Save the model again with this version."
        )
    return matches[0] if matches else None


def refuse_shared_layers(encoder: Any, heads: Iterable[SampledSoftmax]) -> None:
    """Raises `ValueError` if parts of a model have a layer in common.

    Keras would load a copy for each. A head may be tied to an Embedding of the encoder.
    """
    seen = set(map(id, _layers(encoder)))
    for head in heads:
        parts = [head.sampler]
        if head.class_tower is not None:
            parts.append(head.class_tower.encoder)
        if head.tied_to is not None and tied_index(encoder, head) is None:
            parts.append(head.tied_to)
        layers = _layers(parts)
        if shared := [layer.name for layer in layers if id(layer) in seen]:
            raise ValueError(
                "Encoder, class encoders, samplers and Embeddings of heads must have "
                "no layer in common in a model that is saved whole: use "
                "`save_weights`, or export it. "
                f"Received: shared layers {shared}."
            )
        seen.update(map(id, layers))


def _embeddings(layer: Any) -> list[keras.layers.Embedding]:
    """Lists the Embedding layers inside a layer; see `_layers`."""
    return [x for x in _layers(layer) if isinstance(x, keras.layers.Embedding)]


def _layers(layer: Any) -> list[keras.layers.Layer]:
    """Lists a layer and those inside it, in models and attributes.

    The order is the same for every layer that is made from the same config.
    """
    result, stack, seen = [], [layer], set()
    while stack:
        value = stack.pop()
        if id(value) in seen:  # layers may refer to each other
            continue
        seen.add(id(value))
        if isinstance(value, keras.layers.Layer):
            result.append(value)
            if not isinstance(value, keras.layers.Embedding):
                layers = getattr(value, "layers", None)
                stack.extend(layers or vars(value).values())
        elif isinstance(value, dict):
            stack.extend(value.values())
        elif isinstance(value, (list, tuple)):
            stack.extend(value)
    return result
