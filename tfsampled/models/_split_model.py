"""A functional model that ends in heads, cut into an encoder and its heads."""

from __future__ import annotations

from typing import Any

import keras

from tfsampled.layers import SampledSoftmax
from tfsampled.layers._encoder_inputs import functional_inputs


def split_model(model: Any) -> tuple[keras.Model, Any]:
    """Returns an encoder that makes the heads' inputs, and the head or a dict of them.

    Raises:
        ValueError: If no output is that of a `SampledSoftmax`, or two outputs in a list
            are of one layer.
    """
    outputs = getattr(model, "outputs", None) or []
    heads = {id(x): x._keras_history.operation for x in outputs}  # where Keras keeps it
    heads = {key: op for key, op in heads.items() if isinstance(op, SampledSoftmax)}
    if not heads:
        raise ValueError(
            "`model` must be a functional or Sequential model (with its Input) that "
            "ends in a tfsampled.layers.SampledSoftmax. Received: "
            f"{getattr(model, 'name', model)!r} with the outputs {outputs}."
        )
    inputs, name = functional_inputs(model), f"{model.name}_encoder"
    if len(outputs) == 1:
        (output,) = outputs
        return keras.Model(inputs, _head_input(output), name=name), heads[id(output)]
    tensors = model.output
    if not isinstance(tensors, dict):
        if len(set(model.output_names)) < len(outputs):
            raise ValueError(
                "`model` must have outputs of different layers, or a dict of outputs. "
                f"Received: outputs of the layers {model.output_names}."
            )
        tensors = dict(zip(model.output_names, outputs, strict=True))
    named = {key: heads[id(x)] for key, x in tensors.items() if id(x) in heads}
    features = {**tensors, **{key: _head_input(tensors[key]) for key in named}}
    return keras.Model(inputs, features, name=name), named


def _head_input(output: Any) -> Any:
    """Returns the input of the layer's call that made an output."""
    layer, call, _ = output._keras_history
    return layer._inbound_nodes[call].input_tensors[0]
