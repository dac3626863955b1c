"""Trains a table of which each of two devices holds a half: `ClassParallelSoftmax`.

    python -m examples.distributed.class_parallel

The devices are two parts of this machine's CPU. On a machine with several GPUs leave
`set_logical_device_configuration` out, and call `MirroredStrategy()`: it takes all. On
several machines set TF_CONFIG as for `examples.distributed.workers`, take
`MultiWorkerMirroredStrategy()`, save to a folder that all of them see, and leave out
the comparison at the end, which is that of one machine.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf

from tfsampled.distribute import ClassParallelSoftmax
from tfsampled.optimizers import LazyAdam

DIM, EXAMPLES, BATCH, SAMPLED = 32, 40_000, 512, 1024


def main(num_classes: int, epochs: int) -> tuple[list[float], float]:
    """Prints losses and times; returns the losses, and the error of the restored."""
    (cpu,) = tf.config.list_physical_devices("CPU")
    two = [tf.config.LogicalDeviceConfiguration()] * 2
    tf.config.set_logical_device_configuration(cpu, two)
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    # The encoder is the same on all devices, the table of classes is not.
    keras.utils.set_random_seed(1)
    with strategy.scope():
        encoder = keras.Sequential([keras.Input((DIM,)), keras.layers.Dense(DIM)])
        optimizer = keras.optimizers.Adam(1e-3)
        optimizer.build(encoder.trainable_variables)
    head = ClassParallelSoftmax(
        *(strategy, num_classes, DIM, min(SAMPLED, num_classes)),
        optimizer=lambda: LazyAdam(0.01),
        sampler="uniform",
        seed=1,
    )

    @tf.function
    def train(x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        def step(x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
            with tf.GradientTape() as tape:
                losses = head.sampled_loss(encoder(x), y)
                loss = tf.reduce_sum(losses) / BATCH  # of all devices
            variables = encoder.trainable_variables, head.trainable_variables
            gradients = tape.gradient(loss, variables)
            optimizer.apply(gradients[0], variables[0])
            head.apply(gradients[1])
            return loss

        losses = strategy.run(step, args=(x, y))
        return strategy.reduce("SUM", losses, axis=None)

    rng = np.random.default_rng(0)
    y = rng.integers(0, num_classes, EXAMPLES)
    _, same = np.unique(y, return_inverse=True)  # examples of a class are alike
    x = rng.normal(size=(same.max() + 1, DIM)).astype("float32")[same]
    data = tf.data.Dataset.from_tensor_slices((x, y))
    data = data.batch(BATCH, drop_remainder=True).prefetch(2)
    means = []
    for epoch in range(epochs):
        losses, seconds = [], []
        for batch in strategy.experimental_distribute_dataset(data):
            start = time.perf_counter()
            losses.append(float(train(*batch)))
            seconds.append(time.perf_counter() - start)
        means.append(float(np.mean(losses)))
        milliseconds = 1000 * np.median(seconds)
        print(f"epoch {epoch + 1}: loss {means[-1]:.3f}, {milliseconds:.1f} ms a step")

    @tf.function
    def evaluate(x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        def step(x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
            return head.exact_loss(encoder(x), y)

        return strategy.gather(strategy.run(step, args=(x, y)), axis=0)

    held = tf.data.Dataset.from_tensors((x[:BATCH], y[:BATCH])).unbatch().batch(BATCH)
    (batch,) = strategy.experimental_distribute_dataset(held)
    divided = evaluate(*batch).numpy()
    with tempfile.TemporaryDirectory() as folder:
        head.save(f"{folder}/classes")
        one = tf.distribute.get_strategy()
        sizes = num_classes, DIM, min(SAMPLED, num_classes)
        whole = ClassParallelSoftmax(one, *sizes, LazyAdam, "uniform")
        whole.restore(f"{folder}/classes")
    (layer,) = whole.heads
    together = layer.exact_loss(encoder(x[:BATCH]), y[:BATCH]).numpy()
    difference = float(np.abs(divided - together).max())
    print(f"exact loss, two devices: {divided.mean():.6f}")
    print(f"restored on one device:  {together.mean():.6f}")
    print(f"largest difference of an example: {difference:.1e}")
    return means, difference


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--classes", type=int, default=10_000)
    parser.add_argument("--epochs", type=int, default=3)
    options = parser.parse_args()
    main(options.classes, options.epochs)
