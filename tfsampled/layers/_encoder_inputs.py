"""Inputs of an encoder: one tensor, or several in a list, a tuple or a dict."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import keras
import tensorflow as tf


def keras_tensors_like(inputs: Any) -> Any:
    """Returns KerasTensors with the shapes and dtypes of `inputs`; None stays None."""

    def keras_tensor_like(x: Any) -> keras.KerasTensor | None:
        if x is None:  # an optional input
            return None
        return keras.KerasTensor(x.shape, keras.backend.standardize_dtype(x.dtype))

    return tf.nest.map_structure(keras_tensor_like, inputs)


def functional_inputs(model: Any) -> Any:
    """Returns the inputs of a functional or Sequential model, or None."""
    inputs = getattr(model, "inputs", None)
    if not inputs:
        return None
    # A list of one in Keras 3.10; of a Sequential model that of its first call.
    structure = getattr(model, "input", inputs)
    if len(inputs) == 1 and not isinstance(structure, dict):
        return inputs[0]
    return structure


def input_names(model: Any) -> list[str]:
    """Returns the names of the inputs of a functional or Sequential model, or none."""
    inputs = functional_inputs(model)
    if isinstance(inputs, dict):
        return list(inputs)
    return [x.name for x in tf.nest.flatten(inputs) if x is not None]


def match_inputs(
    model: Any,
    x: Any,
    dropped: Collection[str | None] = (),
    excluded: Collection[str | None] = (),
) -> Any:
    """Returns the entries of a dict that are inputs of the model, in their order there.

    TensorFlow sorts dicts, about which Keras warns, and `x` may have entries that the
    model does not read. If the model's inputs are unknown, `dropped` names the latter,
    and `excluded` those that it may read or not.
    """
    inputs = functional_inputs(model)
    known = input_names(model)
    if isinstance(x, dict) and _takes_one_tensor(model) and not x.keys() & set(known):
        for names in ((*dropped, *excluded), dropped):
            left = [name for name in x if name not in names]
            if len(left) == 1:
                return x[left[0]]
    if inputs is None and isinstance(x, dict) and not x.keys().isdisjoint(dropped):
        return {name: value for name, value in x.items() if name not in dropped}
    if isinstance(x, dict) and isinstance(inputs, dict) and x.keys() >= inputs.keys():
        return {name: x[name] for name in inputs}
    if isinstance(x, dict) and isinstance(inputs, (list, tuple)):
        if not x.keys() >= set(known):
            return x
        return tf.nest.pack_sequence_as(inputs, [x[name] for name in known])
    if isinstance(x, dict) and getattr(inputs, "name", None) in x:
        return x[inputs.name]
    return x


def _takes_one_tensor(model: Any) -> bool:
    """Returns whether a Sequential model begins with a layer that takes one tensor.

    Without an `Input`, its input has a name of Keras's own.
    """
    if not isinstance(model, keras.Sequential) or not model.layers:
        return False
    first = model.layers[0]
    takes_any = keras.Model, keras.layers.Lambda, keras.layers.TFSMLayer
    is_keras = type(first).__module__.startswith("keras.src.layers")
    return is_keras and not isinstance(first, (*takes_any, keras.utils.FeatureSpace))


def named_input(model: Any, x: Any, name: str, argument: str) -> Any:
    """Returns the input of a name.

    Args:
        model: The model of these inputs.
        x: A dict, or what `model` takes.
        name: A key of the dict, or the name of an input.
        argument: The argument that names it.

    Raises:
        ValueError: If there is no such input.
    """
    if isinstance(x, Mapping) and name in x:
        return x[name]
    names = input_names(model)
    if name in names and not isinstance(x, Mapping):
        return tf.nest.flatten(x)[names.index(name)]
    raise ValueError(
        f"The input {name!r}, which `{argument}` names, must be given. "
        f"Received: inputs={sorted(x) if isinstance(x, Mapping) else names}."
    )


def are_tensors(inputs: Any) -> bool:
    """Returns whether all leaves except None have a shape and a dtype."""
    present = [x for x in tf.nest.flatten(inputs) if x is not None]
    return all(hasattr(x, "shape") and hasattr(x, "dtype") for x in present)


def float_inputs(shape: Any) -> Any:
    """Returns floating KerasTensors of one shape, or of several in a list or a dict."""
    if isinstance(shape, dict):
        return {name: float_inputs(value) for name, value in shape.items()}
    if all(size is None or isinstance(size, int) for size in shape):
        return keras.KerasTensor(tuple(shape))
    return [float_inputs(value) for value in shape]
