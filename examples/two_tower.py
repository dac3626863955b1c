"""Two-tower retrieval with one item table for users' histories and for the head.

A user is encoded from the items of its history, rows of an Embedding to which the head
is tied. Item ids are not ordered by frequency, so the sampler takes the items' counts.
`python -m examples.two_tower` prints the top-10 accuracy of the next item.
"""

from __future__ import annotations

import argparse

import keras
import numpy as np

from tfsampled.layers import SampledSoftmax
from tfsampled.metrics import MeanReciprocalRank, TopKAccuracy
from tfsampled.models import SampledSoftmaxModel
from tfsampled.samplers import FixedUnigram

ITEMS, DIM, HISTORY, GROUPS = 2_000, 16, 5, 50


def interactions(size: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Histories `[size, HISTORY]` and next items, of one group of items per user."""
    rng = np.random.default_rng(seed)
    group = rng.integers(0, GROUPS, size)[:, np.newaxis]
    within = np.minimum(rng.zipf(1.4, (size, HISTORY + 1)) - 1, ITEMS // GROUPS - 1)
    items = within * GROUPS + group
    return items[:, :-1], items[:, -1]


def two_towers(counts: np.ndarray) -> SampledSoftmaxModel:
    """Encodes a user from the mean of its history's rows; an item is its row."""
    items = keras.layers.Embedding(ITEMS, DIM, name="items")
    history = keras.Input((HISTORY,), dtype="int64")
    user = keras.layers.GlobalAveragePooling1D()(items(history))
    user = keras.layers.Dense(32, activation="relu")(user)
    user = keras.layers.Dense(DIM)(user)
    head = SampledSoftmax(
        ITEMS,
        num_sampled=200,
        sampler=FixedUnigram(counts + 1, distortion=0.75),
        tied_to=items,
        temperature=0.5,
        use_bias=False,
    )
    return SampledSoftmaxModel(keras.Model(history, user, name="user"), head, top_k=10)


def main(epochs: int = 5, size: int = 20_000) -> dict[str, float]:
    """Trains and returns the metrics of held-out users."""
    keras.utils.set_random_seed(1)
    x, y = interactions(size, seed=1)
    model = two_towers(np.bincount(y, minlength=ITEMS))
    model.compile(
        keras.optimizers.Adam(1e-2), metrics=[TopKAccuracy(10), MeanReciprocalRank()]
    )
    model.fit(x, y, batch_size=256, epochs=epochs, verbose=2)
    users, taken = interactions(1000, seed=2)
    best = model.predict(users, verbose=0)["classes"]
    result = model.evaluate(users, taken, verbose=0, return_dict=True)
    hits = (best == taken[:, np.newaxis]).any(axis=1).mean()
    assert abs(hits - result["top_10_accuracy"]) < 0.01
    return result


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=5)
    print(main(parser.parse_args().epochs))
