"""The model and the data of the examples of tf.distribute."""

from __future__ import annotations

import keras
import numpy as np

from tfsampled.layers import SampledSoftmax
from tfsampled.metrics import TopKAccuracy
from tfsampled.models import SampledSoftmaxModel
from tfsampled.optimizers import LazyAdam
from tfsampled.samplers import Uniform

CLASSES, DIM, EXAMPLES, HELD_OUT, BATCH, EPOCHS = 10_000, 32, 40_000, 2_000, 512, 3


def data() -> tuple[np.ndarray, np.ndarray]:
    """Returns noisy points around the centers of classes, and their classes."""
    rng = np.random.default_rng(0)
    centers = rng.normal(size=(CLASSES, DIM))
    y = rng.integers(0, CLASSES, EXAMPLES + HELD_OUT)
    x = centers[y] + rng.normal(size=(len(y), DIM)) / 4
    return x.astype("float32"), y


def make_model() -> SampledSoftmaxModel:
    """Returns a compiled model; call this in the scope of the strategy."""
    keras.utils.set_random_seed(1)
    encoder = keras.Sequential(
        [keras.Input((DIM,)), keras.layers.Dense(64, "relu"), keras.layers.Dense(DIM)]
    )
    head = SampledSoftmax(CLASSES, 1024, Uniform(seed=1))
    model = SampledSoftmaxModel(encoder, head)
    model.compile(LazyAdam(0.01, epsilon=1e-4), metrics=[TopKAccuracy(10)])
    return model


def train(
    model: SampledSoftmaxModel, verbose: bool, backup: str | None = None
) -> dict[str, float]:
    """Trains a model; returns its held-out loss and accuracy.

    Args:
        model: The model.
        verbose: Whether to print each epoch.
        backup: A folder to go on from.
    """
    x, y = data()
    callbacks = [] if backup is None else [keras.callbacks.BackupAndRestore(backup)]
    model.fit(
        x[:EXAMPLES],
        y[:EXAMPLES],
        batch_size=BATCH,
        epochs=EPOCHS,
        verbose=2 if verbose else 0,
        callbacks=callbacks,
    )
    return model.evaluate(x[EXAMPLES:], y[EXAMPLES:], verbose=0, return_dict=True)


def largest_difference(one: list[np.ndarray], other: list[np.ndarray]) -> float:
    """Returns the largest difference of two models' weights."""
    return max(float(np.abs(a - b).max()) for a, b in zip(one, other, strict=True))
