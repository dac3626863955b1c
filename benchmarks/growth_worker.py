"""Steps with few classes and with many, blocks of them in turn."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from benchmarks import fit_worker

BLOCK, WARM_UP = 25, 3  # steps in turn; the first find what the others left in caches
BATCHES = 500


def measure(
    name: str, few: int, many: int, jit: bool, seconds: float
) -> tuple[float, float]:
    """Median milliseconds at each of the two numbers of classes.

    Args:
        name: Of an optimizer in `fit_worker.OPTIMIZERS`, or "rows": 1,280 rows of one
            table read, and written back.
        few: A number of classes.
        many: The other.
        jit: Whether steps are compiled by XLA.
        seconds: How long the two are run together, at least a block of each.
    """
    make = rows_step if name == "rows" else optimizer_step
    steps = [make(name, num_classes, jit) for num_classes in (few, many)]
    times: tuple[list[float], list[float]] = ([], [])
    end = time.perf_counter() + seconds
    while not times[1] or time.perf_counter() < end:
        for step, taken in zip(steps, times, strict=True):
            for index in range(BLOCK):
                start = time.perf_counter()
                for result in tf.nest.flatten(step()):
                    result.numpy()
                if index >= WARM_UP:
                    taken.append(time.perf_counter() - start)
    return 1e3 * statistics.median(times[0]), 1e3 * statistics.median(times[1])


def optimizer_step(name: str, num_classes: int, jit: bool) -> Callable[[], Any]:
    """The training step of `fit`, compiled as Keras compiles it."""
    model = fit_worker.Classifier(num_classes)
    model.compile(optimizer=fit_worker.OPTIMIZERS[name](), jit_compile=jit)
    x = tf.random.stateless_normal(
        [BATCHES, fit_worker.BATCH, fit_worker.FEATURES], [0, 1]
    )
    y = tf.constant(drawn(num_classes, (BATCHES, fit_worker.BATCH)))
    model(x[0])
    model.optimizer.build(model.trainable_variables)
    batches = iter(tf.data.Dataset.from_tensor_slices((x, y)).repeat())
    model.make_train_function()
    train = model.train_function
    return lambda: train(batches)


def rows_step(name: str, num_classes: int, jit: bool) -> Callable[[], Any]:
    """What no optimizer can do without: rows read, rows written."""
    table = tf.Variable(tf.zeros([num_classes, fit_worker.DIM]))
    ids = tf.constant(
        drawn(num_classes, (BATCHES, fit_worker.BATCH + fit_worker.SAMPLED))
    )
    batch = tf.Variable(0)

    @tf.function(jit_compile=jit)
    def step() -> tf.Tensor:
        chosen = ids[batch.assign_add(1) % BATCHES]
        rows = tf.gather(table, chosen)
        table.scatter_update(tf.IndexedSlices(rows + 1.0, chosen))
        return tf.constant(0)

    return step


def drawn(num_classes: int, shape: tuple[int, ...]) -> np.ndarray:
    """Class c about 1 / c times, as a log-uniform sampler expects labels to be."""
    rng = np.random.default_rng(0)
    return np.exp(rng.uniform(0, np.log(num_classes), shape)).astype("int64")
