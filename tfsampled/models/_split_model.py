"""A functional model that ends in heads, cut into an encoder and its heads."""

from __future__ import annotations

from typing import Any

import keras

from tfsampled.layers import SampledSoftmax
from tfsampled.models._encoder_inputs import functional_inputs


def split_model(model: Any) -> tuple[keras.Model, Any]:
    """Returns an encoder that makes the heads' inputs, and the head or a dict of them.

    Raises:
        ValueError: If no output is that of a `SampledSoftmax`.
    """
    heads = {
        id(getattr(layer, "output", None)): layer
        for layer in getattr(model, "layers", [])
        if isinstance(layer, SampledSoftmax)
    }
    outputs = getattr(model, "outputs", None) or []
    if not any(id(output) in heads for output in outputs):
        raise ValueError(
            "`model` must be a functional or Sequential model (with its Input) with an "
            "output that is that of a tfsampled.layers.SampledSoftmax. Received: "
            f"{getattr(model, 'name', model)!r} with the outputs {outputs}."
        )
    inputs, name = functional_inputs(model), f"{model.name}_encoder"
    if len(outputs) == 1:
        head = heads[id(outputs[0])]
        return keras.Model(inputs, head.input, name=name), head
    tensors = model.output
    if not isinstance(tensors, dict):
        tensors = dict(zip(model.output_names, outputs, strict=True))
    named = {key: heads[id(x)] for key, x in tensors.items() if id(x) in heads}
    features = {**tensors, **{key: head.input for key, head in named.items()}}
    return keras.Model(inputs, features, name=name), named
