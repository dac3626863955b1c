"""The metrics of `compile`, which are computed in evaluation and validation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import tensorflow as tf

from tfsampled.layers import SampledSoftmax
from tfsampled.metrics import ExactMetric


class Evaluation:
    """Metrics without and with weights, each under a name of its own.

    As in Keras, a metric of `weighted_metrics` whose name `metrics` has already is
    reported as `weighted_{name}`.

    Args:
        metrics: What `compile` was given.
        weighted_metrics: What `compile` was given.

    Raises:
        ValueError: There is one that wants all the logits, or two of the same name.
    """

    def __init__(self, metrics: Any = None, weighted_metrics: Any = None) -> None:
        self._plain = _checked(metrics, "metrics")
        self._weighted = _checked(weighted_metrics, "weighted_metrics")
        for one in self._weighted:
            if any(one is other for other in self._plain):
                raise ValueError(
                    f"compile got one metric object, {one.name!r}, in metrics and in "
                    "weighted_metrics: make one for each."
                )
        self.named = {one.name: one for one in self._plain}
        for one in self._weighted:
            prefix = "weighted_" if one.name in self.named else ""
            self.named[prefix + one.name] = one

    def update(
        self,
        head: SampledSoftmax,
        features: tf.Tensor,
        labels: Any,
        sample_weight: Any,
        mask: Any,
    ) -> None:
        """Adds a batch to every metric."""
        for metric in self._plain:
            metric.update_state_from_features(head, features, labels, mask=mask)
        for metric in self._weighted:
            metric.update_state_from_features(
                head, features, labels, sample_weight, mask
            )

    def get_config(self) -> dict[str, Any]:
        """The metrics as arguments of `compile`, serialized."""
        serialize = keras.saving.serialize_keras_object
        return {
            "metrics": [serialize(metric) for metric in self._plain],
            "weighted_metrics": [serialize(metric) for metric in self._weighted],
        }


def set_monitor_modes(callbacks: Any, metrics: Mapping[str, Any]) -> None:
    """Resolves mode "auto" of callbacks that monitor one of the metrics.

    Keras looks for a metric's direction in containers of its own alone.

    Args:
        callbacks: What `fit` was given.
        metrics: The metrics by their names in logs.
    """
    callbacks = getattr(callbacks, "callbacks", callbacks)
    for callback in tf.nest.flatten(callbacks or []):
        if getattr(callback, "mode", None) == "auto":
            metric = metrics.get(callback.monitor.removeprefix("val_"))
            mode = {"up": "max", "down": "min"}.get(getattr(metric, "_direction", ""))
            callback.mode = mode or "auto"


def _checked(metrics: Any, argument: str) -> list[ExactMetric]:
    metrics = tf.nest.flatten(metrics) if metrics is not None else []
    names = set()
    for metric in metrics:
        if not isinstance(metric, ExactMetric):
            raise ValueError(
                f"compile got {argument}={metrics!r}; Keras's metrics want the logits "
                "of all the classes in each step: pass metrics of tfsampled.metrics "
                f"(accuracy is TopKAccuracy(1)), or leave {argument} out."
            )
        if metric.name in names:
            raise ValueError(
                f"{argument} has two metrics of the name {metric.name!r}: pass one of "
                "them another name=."
            )
        names.add(metric.name)
    return metrics
