"""A functional model whose last Dense layer is replaced by a SampledSoftmax.

`python -m examples.functional` trains it on synthetic data of 20,000 classes and prints
its exact validation perplexity and its top-5 accuracy.
"""

from __future__ import annotations

import argparse

import keras
import numpy as np

from tfsampled.layers import SampledSoftmax
from tfsampled.metrics import Perplexity, TopKAccuracy
from tfsampled.models import SampledSoftmaxModel

CLASSES, DIM = 20_000, 16


def data(size: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Points near the centers of their classes; frequent classes have low ids."""
    centers = np.random.default_rng(0).normal(size=(CLASSES, DIM))
    rng = np.random.default_rng(seed)
    y = np.minimum(rng.zipf(1.3, size) - 1, CLASSES - 1)
    x = centers[y] + 0.3 * rng.normal(size=(size, DIM))
    return x.astype("float32"), y


def functional_model() -> keras.Model:
    """A model from points to logits."""
    inputs = keras.Input((DIM,))
    features = keras.layers.Dense(64, activation="relu")(inputs)
    features = keras.layers.Dense(32)(features)
    # instead of: logits = keras.layers.Dense(CLASSES)(features)
    logits = SampledSoftmax(CLASSES, num_sampled=512)(features)
    return keras.Model(inputs, logits)


def main(epochs: int = 5, size: int = 50_000) -> dict[str, float]:
    """Trains and returns the metrics of held-out points."""
    keras.utils.set_random_seed(1)
    plain = functional_model()
    model = SampledSoftmaxModel.from_model(plain)
    model.compile(keras.optimizers.Adam(3e-3), metrics=[Perplexity(), TopKAccuracy(5)])
    valid = data(2000, seed=2)
    model.fit(
        *data(size, seed=1),
        batch_size=512,
        epochs=epochs,
        validation_data=valid,
        verbose=2,
    )
    result = model.evaluate(*valid, verbose=0, return_dict=True)
    logits = plain.predict(valid[0][:1], verbose=0)  # it shares the layers
    assert logits.shape == (1, CLASSES)
    return result


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=5)
    print(main(parser.parse_args().epochs))
