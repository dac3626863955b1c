"""Sampled softmax for TensorFlow and Keras."""

try:
    import tensorflow as _tensorflow  # noqa: F401
except ModuleNotFoundError as error:
    if error.name != "tensorflow":
        raise
    raise ImportError(
        "tfsampled needs TensorFlow, which is not installed: pip install "
        "'tfsampled[cpu]', or 'tfsampled[gpu]' for CUDA."
    ) from error

from tfsampled import (
    compat,
    layers,
    metrics,
    models,
    nn,
    optimizers,
    random,
    samplers,
)

__all__ = [
    "compat",
    "layers",
    "metrics",
    "models",
    "nn",
    "optimizers",
    "random",
    "samplers",
]
