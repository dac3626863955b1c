"""Two towers with features on both sides, in-batch negatives and items already seen.

A user is its age and its last items' tags; an item is its tag, its brand and its price.
Both towers end in unit vectors. An item that nobody has taken yet is found by what it
is, which a table of ids cannot do: `python -m examples.item_towers` prints the metrics
of held-out users, over all items and over those that training never had as a label,
and serves the exported model.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfsampled.layers import SampledSoftmax
from tfsampled.metrics import NDCG, TopKAccuracy
from tfsampled.models import SampledSoftmaxModel
from tfsampled.optimizers import LazyAdam
from tfsampled.samplers import InBatch, Mixed, Uniform

ITEMS, TAGS, BRANDS, HISTORY, DIM = 3_000, 60, 10, 5, 32
TAG_NAMES = [f"tag {number}" for number in range(TAGS)]


def catalogue() -> dict[str, np.ndarray]:
    """Returns the features of all items."""
    rng = np.random.default_rng(0)
    return {
        "tag": np.array(TAG_NAMES)[np.arange(ITEMS) % TAGS],
        "brand": rng.integers(0, BRANDS, ITEMS).astype("int32"),
        "price": rng.normal(size=(ITEMS, 1)).astype("float32"),
    }


def interactions(
    items: dict[str, np.ndarray], size: int, seed: int, choices: np.ndarray
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Returns users and the item that each takes next.

    A user stays with one tag, and takes the cheaper items the younger it is.

    Args:
        items: The features of all items.
        size: The number of users.
        seed: Of the random numbers.
        choices: Ids of the items that may be taken next.
    """
    rng = np.random.default_rng(seed)
    age = rng.normal(size=(size, 1)).astype("float32")
    _, tags = np.unique(items["tag"], return_inverse=True)
    history, taken = np.empty((size, HISTORY), np.int32), np.empty(size, np.int64)
    for user, tag in enumerate(rng.integers(0, TAGS, size)):
        own = np.flatnonzero(tags == tag)
        history[user] = rng.choice(own, HISTORY)
        own = np.setdiff1d(np.intersect1d(own, choices), history[user])
        distance = np.square(items["price"][own, 0] - age[user])
        weights = np.exp(-4 * distance) + 1e-6
        taken[user] = rng.choice(own, p=weights / weights.sum())
    tags = tf.constant(items["tag"][history])
    return {"age": age, "tags": tags, "seen": history}, taken


def item_tower() -> keras.Model:
    """Encodes an item from its features."""
    inputs = {
        "tag": keras.Input((), dtype="string", name="tag"),
        "brand": keras.Input((), dtype="int32", name="brand"),
        "price": keras.Input((1,), name="price"),
    }
    tag = keras.layers.StringLookup(vocabulary=TAG_NAMES)(inputs["tag"])
    parts = [
        keras.layers.Embedding(TAGS + 1, 16)(tag),
        keras.layers.Embedding(BRANDS, 4)(inputs["brand"]),
        inputs["price"],
    ]
    x = keras.layers.Dense(64, "relu")(keras.layers.Concatenate()(parts))
    return keras.Model(inputs, keras.layers.Dense(DIM)(x), name="item")


def user_tower() -> keras.Model:
    """Encodes a user from its age and the tags of its last items."""
    inputs = {
        "age": keras.Input((1,), name="age"),
        "tags": keras.Input((HISTORY,), dtype="string", name="tags"),
    }
    tags = keras.layers.StringLookup(vocabulary=TAG_NAMES)(inputs["tags"])
    tags = keras.layers.Embedding(TAGS + 1, 16)(tags)
    parts = [keras.layers.GlobalAveragePooling1D()(tags), inputs["age"]]
    x = keras.layers.Dense(64, "relu")(keras.layers.Concatenate()(parts))
    return keras.Model(inputs, keras.layers.Dense(DIM)(x), name="user")


def two_towers(items: dict[str, np.ndarray]) -> SampledSoftmaxModel:
    """Returns a model that finds the items of the greatest cosine."""
    head = SampledSoftmax(
        ITEMS,
        None,
        Mixed([InBatch(), (Uniform(), 256)]),
        class_encoder=item_tower(),
        class_features=items,
        normalize=True,
        temperature=0.1,
        use_bias=False,
    )
    return SampledSoftmaxModel(user_tower(), head, top_k=10, exclude="seen")


def main(epochs: int = 5, size: int = 20_000) -> dict[str, Any]:
    """Trains; returns the metrics of held-out users."""
    keras.utils.set_random_seed(1)
    items = catalogue()
    old, new = np.split(np.arange(ITEMS), [ITEMS - 600])
    model = two_towers(items)
    model.compile(LazyAdam(3e-3), metrics=[TopKAccuracy(10, name="hr_10"), NDCG(10)])
    x, y = interactions(items, size, 1, choices=old)
    model.fit(x, y, batch_size=256, epochs=epochs, verbose=2)
    results = {}
    for name, choices in (("all items", np.arange(ITEMS)), ("new items", new)):
        data = interactions(items, 1000, 2, choices)
        results[name] = model.evaluate(*data, verbose=0, return_dict=True)
    users, _ = data
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "served")
        signature = {
            "age": tf.TensorSpec([None, 1]),
            "tags": tf.TensorSpec([None, HISTORY], tf.string),
            "seen": tf.TensorSpec([None, HISTORY], tf.int32),
        }
        model.export(path, verbose=False, input_signature=[signature])
        # The encoded items are in the file: it needs neither features nor tfsampled.
        loaded = tf.saved_model.load(path)
        served = loaded.serve({name: tf.constant(x) for name, x in users.items()})
    best = model.predict(users, verbose=0)
    assert np.mean(served["classes"] == best["classes"]) > 0.99  # but for ties
    return results


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=5)
    for name, metrics in main(parser.parse_args().epochs).items():
        print(name, {key: round(value, 4) for key, value in metrics.items()})
