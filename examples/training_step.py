"""A custom training loop: a `tf.function` step around the layer's losses.

`python -m examples.training_step [--jit]` trains on random bigrams and prints the exact
loss before and after.
"""

from __future__ import annotations

import argparse

import keras
import numpy as np
import tensorflow as tf

from tfsampled.layers import SampledSoftmax

CLASSES, DIM, BATCH = 10_000, 32, 256


def main(steps: int = 300, jit: bool = False) -> tuple[float, float]:
    """Trains and returns the exact loss before and after."""
    keras.utils.set_random_seed(1)
    embedding = keras.layers.Embedding(CLASSES, DIM)
    head = SampledSoftmax(CLASSES, num_sampled=256)
    optimizer = keras.optimizers.SGD(2.0)
    embedding.build()
    head.build((None, DIM))
    variables = embedding.trainable_variables + head.trainable_variables
    optimizer.build(variables)

    @tf.function(jit_compile=jit)
    def train_step(words: tf.Tensor, following: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            losses = head.sampled_loss(embedding(words), following)
            loss = tf.reduce_mean(losses)
        gradients = tape.gradient(loss, variables)  # IndexedSlices for both tables
        optimizer.apply_gradients(zip(gradients, variables, strict=True))
        return loss

    @tf.function
    def exact_loss(words: tf.Tensor, following: tf.Tensor) -> tf.Tensor:
        return tf.reduce_mean(head.exact_loss(embedding(words), following))

    rng = np.random.default_rng(0)
    successor = rng.permutation(100)  # of each of the words that occur

    def batch() -> tuple[np.ndarray, np.ndarray]:
        words = rng.integers(0, 100, BATCH)
        return words, successor[words]

    held_out = batch()
    before = float(exact_loss(*held_out))
    for _ in range(steps):
        train_step(*map(tf.constant, batch()))
    return before, float(exact_loss(*held_out))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--jit", action="store_true")
    options = parser.parse_args()
    print("exact loss before and after: {:.3f} {:.3f}".format(*main(**vars(options))))
