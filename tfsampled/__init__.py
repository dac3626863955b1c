"""Sampled softmax for TensorFlow and Keras."""

import importlib.metadata as _metadata

try:
    import keras as _keras  # and, with it, the backend that Keras is set to

    _backend = _keras.config.backend()
    import tensorflow as _tensorflow  # noqa: F401
except ModuleNotFoundError as error:
    if error.name == "tensorflow":
        raise ImportError(
            "tfsampled needs TensorFlow, which is not installed: pip install "
            "'tfsampled[cpu]', or 'tfsampled[gpu]' for CUDA."
        ) from error
    if error.name not in ("jax", "torch", "openvino"):
        raise
    _backend = error.name
if _backend != "tensorflow":
    raise ImportError(
        f"Keras's backend must be 'tensorflow'. Received: backend={_backend!r}. Set "
        'the environment variable KERAS_BACKEND=tensorflow, or "backend" in '
        "~/.keras/keras.json, before Keras is imported."
    )

from tfsampled import (
    compat,
    distribute,
    layers,
    metrics,
    models,
    nn,
    optimizers,
    random,
    samplers,
)

try:
    __version__ = _metadata.version("tfsampled")
except _metadata.PackageNotFoundError:  # imported from sources, not installed
    __version__ = "0+unknown"

__all__ = [
    "__version__",
    "compat",
    "distribute",
    "layers",
    "metrics",
    "models",
    "nn",
    "optimizers",
    "random",
    "samplers",
]
