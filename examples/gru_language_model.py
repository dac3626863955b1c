"""A GRU language model: sequences of unequal length, Keras masks and padded labels.

`python -m examples.gru_language_model` trains on synthetic sentences in which each word
has two successors, and prints the exact perplexity of held-out sentences.
"""

from __future__ import annotations

import argparse

import keras
import numpy as np

from tfsampled.layers import SampledSoftmax
from tfsampled.metrics import Perplexity
from tfsampled.models import SampledSoftmaxModel

WORDS, TIME, PADDING = 5_000, 12, 0


def sentences(size: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Words `[size, TIME]` and the words that follow them; 0 is padding in both."""
    rng = np.random.default_rng(seed)
    words = np.empty((size, TIME + 1), np.int64)
    words[:, 0] = np.minimum(rng.zipf(1.5, size), 199)
    for time in range(TIME):
        step = np.where(rng.random(size) < 0.7, 7, 31)
        words[:, time + 1] = (words[:, time] * 3 + step) % 199 + 1
    length = rng.integers(3, TIME + 1, size)
    beyond = np.arange(TIME) >= length[:, np.newaxis]
    return (
        np.where(beyond, PADDING, words[:, :-1]),
        np.where(beyond, PADDING, words[:, 1:]),
    )


def language_model() -> SampledSoftmaxModel:
    """An embedding with a mask, a GRU, and a head that ignores padded labels."""
    encoder = keras.Sequential(
        [
            keras.Input((None,), dtype="int64"),
            keras.layers.Embedding(WORDS, 32, mask_zero=True),
            keras.layers.GRU(64, return_sequences=True),
        ]
    )
    head = SampledSoftmax(WORDS, num_sampled=256, ignore_class=PADDING)
    return SampledSoftmaxModel(encoder, head, top_k=2)


def main(epochs: int = 4, size: int = 4000) -> float:
    """Trains and returns the exact perplexity of held-out sentences."""
    keras.utils.set_random_seed(1)
    model = language_model()
    model.compile(keras.optimizers.Adam(1e-2), metrics=[Perplexity()])
    model.fit(*sentences(size, seed=1), batch_size=64, epochs=epochs, verbose=2)
    valid = sentences(500, seed=2)
    return model.evaluate(*valid, verbose=0, return_dict=True)["perplexity"]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=4)
    print(f"perplexity {main(parser.parse_args().epochs):.2f}")
