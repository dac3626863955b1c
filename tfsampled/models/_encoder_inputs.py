"""Inputs of an encoder: one tensor, or several in a list, a tuple or a dict."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf


def keras_tensors_like(inputs: Any) -> Any:
    """Returns KerasTensors with the shapes and dtypes of `inputs`."""
    return tf.nest.map_structure(
        lambda x: keras.KerasTensor(x.shape, keras.backend.standardize_dtype(x.dtype)),
        inputs,
    )


def functional_inputs(model: Any) -> Any:
    """Returns the inputs of a functional or Sequential model, or None."""
    inputs = getattr(model, "inputs", None)
    if not inputs or len(inputs) == 1:
        return inputs[0] if inputs else None
    return getattr(model, "input", inputs)


def match_input_order(model: Any, x: Any) -> Any:
    """Puts a dict in the order of the model's inputs: TensorFlow sorts, Keras warns."""
    inputs = functional_inputs(model)
    if isinstance(x, dict) and isinstance(inputs, dict) and x.keys() == inputs.keys():
        return {name: x[name] for name in inputs}
    return x


def serving_signature(inputs: Any) -> list[Any]:
    """Returns a serving signature: `inputs`, of any batch size."""
    return [
        tf.nest.map_structure(
            lambda x: tf.TensorSpec([None, *x.shape[1:]], x.dtype, x.name), inputs
        )
    ]


def are_tensors(inputs: Any) -> bool:
    """Returns whether everything in a structure has a shape and a dtype."""
    return all(
        hasattr(x, "shape") and hasattr(x, "dtype") for x in tf.nest.flatten(inputs)
    )


def float_inputs(shape: Any) -> Any:
    """Returns floating KerasTensors of one shape, or of several in a list or a dict."""
    if isinstance(shape, dict):
        return {name: float_inputs(value) for name, value in shape.items()}
    if all(size is None or isinstance(size, int) for size in shape):
        return keras.KerasTensor(tuple(shape))
    return [float_inputs(value) for value in shape]
