"""Measures steps with few classes and with many, in alternating blocks."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from benchmarks import fit_worker

BLOCK, WARM_UP = 25, 3  # steps of a block; the first fill the caches
BATCHES = 500


def measure(
    name: str, few: int, many: int, jit: bool, seconds: float, replicas: int = 1
) -> tuple[float, float]:
    """Measures the median milliseconds with each of two numbers of classes.

    Args:
        name: An optimizer in `fit_worker.OPTIMIZERS`, or "rows" to read and write 1,280
            rows of a table.
        few: A number of classes.
        many: Another number of classes.
        jit: Whether XLA compiles the steps.
        seconds: How long both run together; at least one block each.
        replicas: How many replicas of a MirroredStrategy share the CPU.
    """
    strategy = tf.distribute.get_strategy()
    if replicas > 1:
        (cpu,) = tf.config.list_physical_devices("CPU")
        logical = [tf.config.LogicalDeviceConfiguration()] * replicas
        tf.config.set_logical_device_configuration(cpu, logical)
        devices = [f"CPU:{index}" for index in range(replicas)]
        strategy = tf.distribute.MirroredStrategy(devices)
    make = rows_step if name == "rows" else optimizer_step
    with strategy.scope():
        steps = [make(name, num_classes, jit) for num_classes in (few, many)]
    times: tuple[list[float], list[float]] = ([], [])
    end = time.perf_counter() + seconds
    while not times[1] or time.perf_counter() < end:
        for step, step_times in zip(steps, times, strict=True):
            for index in range(BLOCK):
                start = time.perf_counter()
                for result in tf.nest.flatten(step()):
                    result.numpy()
                if index >= WARM_UP:
                    step_times.append(time.perf_counter() - start)
    return 1e3 * statistics.median(times[0]), 1e3 * statistics.median(times[1])


def optimizer_step(name: str, num_classes: int, jit: bool) -> Callable[[], Any]:
    """Returns the training step of `fit`, compiled as Keras compiles it."""
    model = fit_worker.Classifier(num_classes)
    model.compile(optimizer=fit_worker.OPTIMIZERS[name](), jit_compile=jit)
    x = tf.random.stateless_normal(
        [BATCHES, fit_worker.BATCH, fit_worker.FEATURES], [0, 1]
    )
    y = tf.constant(draw_classes(num_classes, (BATCHES, fit_worker.BATCH)))
    model(x[0])
    model.optimizer.build(model.trainable_variables)
    dataset = tf.data.Dataset.from_tensor_slices((x, y)).repeat()
    if (strategy := tf.distribute.get_strategy()).num_replicas_in_sync > 1:
        dataset = strategy.experimental_distribute_dataset(dataset)
    batches = iter(dataset)
    model.make_train_function()
    train = model.train_function
    return lambda: train(batches)


def rows_step(name: str, num_classes: int, jit: bool) -> Callable[[], Any]:
    """Returns a step that reads and writes rows, as every optimizer must."""
    table = tf.Variable(tf.zeros([num_classes, fit_worker.DIM]))
    ids = tf.constant(
        draw_classes(num_classes, (BATCHES, fit_worker.BATCH + fit_worker.SAMPLED))
    )
    batch = tf.Variable(0)

    @tf.function(jit_compile=jit)
    def step() -> tf.Tensor:
        batch_ids = ids[batch.assign_add(1) % BATCHES]
        rows = tf.gather(table, batch_ids)
        table.scatter_update(tf.IndexedSlices(rows + 1.0, batch_ids))
        return tf.constant(0)

    return step


def draw_classes(num_classes: int, shape: tuple[int, ...]) -> np.ndarray:
    """Draws class c about 1 / c times, as a log-uniform sampler expects."""
    rng = np.random.default_rng(0)
    return np.exp(rng.uniform(0, np.log(num_classes), shape)).astype("int64")
