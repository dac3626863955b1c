"""A sampled loss over an item tower, beside tf.nn over the rows of all items."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from benchmarks import paired
from benchmarks.paired import Timing, compare, plotter
from tfsampled.layers import SampledSoftmax

TITLE = (
    "item towers: class_encoder beside tf.nn.sampled_softmax_loss of all items' rows\n"
    "(loss and gradients; goal: a ratio of at most 0.05)"
)
COLUMNS = paired.COLUMNS
SIZES = [300_000]  # items
DIM, BATCH, SAMPLED, FEATURES = 64, 512, 1024, 32
PAIRS = 10


def timings() -> Iterator[Timing]:
    """Yields a row for each number of items."""
    for num_items in SIZES:
        name = f"{num_items} items, batch {BATCH}, {SAMPLED} sampled"
        yield compare(name, *_steps(num_items), PAIRS)


plot = plotter(TITLE)


def _steps(num_items: int) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """Returns the step with `class_encoder` and the one over all items."""
    rng = np.random.default_rng(num_items)
    tower = keras.Sequential(
        [keras.layers.Dense(128, activation="relu"), keras.layers.Dense(DIM)]
    )
    items = rng.standard_normal((num_items, FEATURES), np.float32)
    head = SampledSoftmax(
        num_items, SAMPLED, "uniform", class_encoder=tower, class_features=items
    )
    head.build((None, DIM))
    all_items, biases = tf.constant(items), head.bias.value
    inputs = tf.constant(rng.standard_normal((BATCH, DIM), np.float32))
    labels = tf.constant(rng.integers(0, num_items, BATCH))
    sources = [weight.value for weight in tower.trainable_weights]

    def tensorflow_loss() -> tf.Tensor:
        return tf.nn.sampled_softmax_loss(
            tower(all_items),
            biases,
            labels[:, tf.newaxis],
            inputs,
            SAMPLED,
            num_items,
            sampled_values=tf.random.uniform_candidate_sampler(
                labels[:, tf.newaxis], 1, SAMPLED, True, num_items
            ),
        )

    def step(loss: Callable[[], tf.Tensor]) -> Callable[[], Any]:
        @tf.function(autograph=False)
        def traced() -> Any:
            with tf.GradientTape() as tape:
                value = tf.reduce_mean(loss())
            return value, tape.gradient(value, sources)

        return traced

    return step(lambda: head.sampled_loss(inputs, labels)), step(tensorflow_loss)
