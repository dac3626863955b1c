"""What goes into an encoder: one tensor, or several in a list, a tuple or a dict."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf


def symbols(inputs: Any) -> Any:
    """Tensors without values, of the shapes and dtypes of `inputs`."""
    return tf.nest.map_structure(
        lambda one: keras.KerasTensor(
            one.shape, keras.backend.standardize_dtype(one.dtype)
        ),
        inputs,
    )


def declared(model: Any) -> Any:
    """The inputs of a functional or Sequential model as it was given them, or None."""
    inputs = getattr(model, "inputs", None)
    if not inputs or len(inputs) == 1:
        return inputs[0] if inputs else None
    return getattr(model, "input", inputs)


def as_declared(model: Any, x: Any) -> Any:
    """`x`, a dict in the order of the model's: TensorFlow sorts, and Keras warns."""
    names = declared(model)
    if isinstance(x, dict) and isinstance(names, dict) and x.keys() == names.keys():
        return {name: x[name] for name in names}
    return x


def signature(inputs: Any) -> list[Any]:
    """What a served function takes: `inputs`, of any batch, as its one argument."""
    return [
        tf.nest.map_structure(
            lambda one: tf.TensorSpec([None, *one.shape[1:]], one.dtype, one.name),
            inputs,
        )
    ]


def are_tensors(inputs: Any) -> bool:
    """Whether all that a structure holds has a shape and a dtype."""
    return all(
        hasattr(one, "shape") and hasattr(one, "dtype")
        for one in tf.nest.flatten(inputs)
    )


def floats(shape: Any) -> Any:
    """Tensors without values, of one shape, or of several in a list or a dict."""
    if isinstance(shape, dict):
        return {name: floats(one) for name, one in shape.items()}
    if all(size is None or isinstance(size, int) for size in shape):
        return keras.KerasTensor(tuple(shape))
    return [floats(one) for one in shape]


def embeddings(layer: Any) -> list[keras.layers.Embedding]:
    """The Embedding layers inside a layer, in models and attributes."""
    found, open_, seen = [], [layer], set()
    while open_:
        one = open_.pop()
        if id(one) in seen:  # layers may hold each other
            continue
        seen.add(id(one))
        if isinstance(one, keras.layers.Embedding):
            found.append(one)
        elif isinstance(one, keras.layers.Layer):
            open_.extend(getattr(one, "layers", None) or vars(one).values())
        elif isinstance(one, dict):
            open_.extend(one.values())
        elif isinstance(one, (list, tuple)):
            open_.extend(one)
    return found
