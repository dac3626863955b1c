"""Arguments of `fit` and `compile`: labels, class weights, metrics, callbacks."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfsampled._core.labels import integer_labels
from tfsampled.metrics import ExactMetric
from tfsampled.samplers import LogUniform

_FLOAT32_MAX = float(np.finfo(np.float32).max)


def unwrap(values: Any, argument: str, what: str) -> Any:
    """Returns the values of a single output: alone, or in a dict or a list of one."""
    is_array_list = isinstance(values, (list, tuple)) and (
        not values or any(x is None or hasattr(x, "shape") for x in values)
    )
    if not isinstance(values, Mapping) and not is_array_list:
        return values
    values = list(values.values()) if isinstance(values, Mapping) else values
    if len(values) != 1:
        raise ValueError(
            f"`{argument}` must be one {what}: the model has one output. "
            f"Received: {len(values)} arrays."
        )
    return values[0]


def unwrap_labels(y: Any) -> Any:
    """Returns integer labels; unwraps the labels of a single output."""
    y = unwrap(y, "y", "array of labels")
    if y is None:
        raise ValueError(
            "`y` must be given: integer class ids, or a dataset of (x, y) or "
            "(x, y, sample_weight). Received: y=None."
        )
    return integer_labels(y)


def first_labels(y: Any) -> np.ndarray | None:
    """Returns about 10,000 labels of an array of integers; None for other data.

    A dataset is not asked for them: that would run its pipeline once more.
    """
    if isinstance(y, tf.RaggedTensor):
        y = y.flat_values
    if not hasattr(y, "shape") or len(y.shape) == 0:
        return None
    labels = np.asarray(y[:: max(1, len(y) // 10_000)])
    return labels if labels.dtype.kind in "iu" else None


def validate_metrics(metrics: Any, argument: str) -> list[ExactMetric]:
    metrics = [] if metrics is None else tf.nest.flatten(metrics)
    if not all(isinstance(metric, ExactMetric) for metric in metrics):
        raise ValueError(
            f"`{argument}` must be metrics of tfsampled.metrics, such as "
            "TopKAccuracy(1) for accuracy; Keras's need the logits of all classes. "
            f"Received: {argument}={metrics!r}."
        )
    names = [metric.name for metric in metrics]
    if len(set(names)) < len(names):
        raise ValueError(
            f"`{argument}` must have different names. Received: {', '.join(names)}."
        )
    return metrics


def class_weights(class_weight: Mapping[int, float], num_classes: int) -> np.ndarray:
    """Returns the weights of the classes up to the last named, and one 1 after them."""
    # {2: 5.0} -> [1, 1, 5, 1]
    if not isinstance(class_weight, Mapping) or not class_weight:
        raise ValueError(
            "`class_weight` must be a dict from class ids to weights. "
            f"Received: class_weight={class_weight!r}."
        )
    for key, value in class_weight.items():
        is_id = isinstance(key, (int, np.integer)) and 0 <= key < num_classes
        is_number = isinstance(value, (int, float, np.number))
        is_bool = isinstance(key, bool) or isinstance(value, bool)
        if not is_id or not is_number or is_bool or not abs(value) <= _FLOAT32_MAX:
            raise ValueError(
                "`class_weight` must map class ids to finite numbers. "
                f"Received: {key!r}: {value!r}, num_classes={num_classes}."
            )
    weights = np.ones(max(class_weight) + 2, np.float32)
    weights[list(class_weight)] = list(class_weight.values())
    return weights


@contextlib.contextmanager
def added_callback(callbacks: Any, callback: keras.callbacks.Callback) -> Iterator[Any]:
    """Adds a callback; to the caller's own `CallbackList` for the time being."""
    if not isinstance(callbacks, keras.callbacks.CallbackList):
        yield [*tf.nest.flatten(callbacks or []), callback]
        return
    callbacks.callbacks.append(callback)
    try:
        yield callbacks
    finally:
        callbacks.callbacks.remove(callback)


def set_monitor_modes(callbacks: Any, metrics: Mapping[str, Any]) -> None:
    """Resolves mode "auto" of callbacks that monitor one of the metrics.

    Keras looks for a metric's direction in containers of its own only.
    """
    callbacks = getattr(callbacks, "callbacks", callbacks)
    for callback in tf.nest.flatten(callbacks or []):
        monitor = getattr(callback, "monitor", None)
        if isinstance(monitor, str) and getattr(callback, "mode", None) == "auto":
            metric = metrics.get(monitor.removeprefix("val_"))
            mode = {"up": "max", "down": "min"}.get(getattr(metric, "_direction", ""))
            callback.mode = mode or "auto"


def warn_if_unordered(heads: Mapping[str, Any], y: Any) -> None:
    """Warns of labels that do not suit a `LogUniform` sampler."""
    for name, head in heads.items():
        labels = first_labels(y.get(name) if isinstance(y, dict) else y)
        if labels is not None and isinstance(head.sampler, LogUniform):
            is_label = labels != head.ignore_class
            head.sampler.warn_if_unordered(labels, head.num_classes, is_label)
