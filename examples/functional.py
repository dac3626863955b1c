"""An ordinary functional model: its last Dense becomes a SampledSoftmax, and no more.

`python -m examples.functional` trains it on a made-up task of 20,000 classes and prints
its exact validation perplexity and how often the truth is among the best five.
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
    """Points near the centres of classes; classes ordered by frequency."""
    centres = np.random.default_rng(0).normal(size=(CLASSES, DIM))
    rng = np.random.default_rng(seed)
    y = np.minimum(rng.zipf(1.3, size) - 1, CLASSES - 1)
    x = centres[y] + 0.3 * rng.normal(size=(size, DIM))
    return x.astype("float32"), y


def functional_model() -> keras.Model:
    """Points to logits, as it would be with Dense."""
    inputs = keras.Input((DIM,))
    features = keras.layers.Dense(64, activation="relu")(inputs)
    features = keras.layers.Dense(32)(features)
    # was: logits = keras.layers.Dense(CLASSES)(features)
    logits = SampledSoftmax(CLASSES, num_sampled=512)(features)
    return keras.Model(inputs, logits)


def main(epochs: int = 5, size: int = 50_000) -> dict[str, float]:
    """Trains and returns the metrics of held-out points."""
    keras.utils.set_random_seed(1)
    plain = functional_model()
    model = SampledSoftmaxModel.from_model(plain)  # the same layers
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
    logits = plain.predict(valid[0][:1], verbose=0)  # the plain model has learnt too
    assert logits.shape == (1, CLASSES)
    return result


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=5)
    print(main(parser.parse_args().epochs))
