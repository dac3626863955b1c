"""Measures `fit` with one optimizer on one table."""

from __future__ import annotations

import statistics
import time
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from benchmarks.fresh import peak_mib
from tfsampled import nn, optimizers

DIM, BATCH, SAMPLED, FEATURES = 64, 256, 1024, 32
WARM_UP = 3
MIN_STEPS, MAX_STEPS = 5, 300  # measured after the warm-up
OPTIMIZERS = {
    "keras SGD": lambda: keras.optimizers.SGD(0.1),
    "keras Adagrad": lambda: keras.optimizers.Adagrad(0.1),
    "keras Adam": lambda: keras.optimizers.Adam(0.001),
    "tfsampled Adagrad": lambda: optimizers.Adagrad(0.1),
    "tfsampled RowWiseAdagrad": lambda: optimizers.RowWiseAdagrad(0.1),
    "tfsampled LazyAdam": lambda: optimizers.LazyAdam(0.001),
    "tfsampled LazyAdam, corrected": lambda: optimizers.LazyAdam(
        0.001, correct_skipped=True
    ),
}


class Classifier(keras.Model):
    """A dense layer and a table, trained by a sampled softmax."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.encoder = keras.layers.Dense(DIM)
        # Making random numbers would need more memory than the training.
        self.table = self.add_weight(
            shape=(num_classes, DIM), initializer="zeros", name="table"
        )
        self.bias = self.add_weight(
            shape=(num_classes,), initializer="zeros", name="bias"
        )

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Returns the features."""
        return self.encoder(inputs)

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> tf.Tensor:
        losses = nn.sampled_softmax_loss(
            self.table.value,
            self.bias.value,
            tf.cast(tf.reshape(y, [-1, 1]), tf.int64),
            y_pred,
            min(SAMPLED, self.num_classes),
            self.num_classes,
        )
        return tf.reduce_mean(losses)


class StepTimes(keras.callbacks.Callback):
    """Records the seconds of each step, which reads its data; stops after `limit`."""

    def __init__(self, limit: float) -> None:
        super().__init__()
        self.limit = limit
        self.seconds: list[float] = []

    @property
    def measured(self) -> list[float]:
        """The seconds of the steps after the warm-up."""
        return self.seconds[WARM_UP:]

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        self.start = time.perf_counter()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.seconds.append(time.perf_counter() - self.start)
        if len(self.measured) >= MIN_STEPS and sum(self.measured) > self.limit:
            self.model.stop_training = True


def measure(
    optimizer: str, num_classes: int, limit: float, jit: bool
) -> dict[str, float]:
    """Measures milliseconds of a step (median), seconds of the first, peak memory.

    Args:
        optimizer: A name in `OPTIMIZERS`.
        num_classes: Rows of the table.
        limit: Seconds of steps after which `fit` stops.
        jit: Whether XLA compiles the step.
    """
    model = Classifier(num_classes)
    model.compile(optimizer=OPTIMIZERS[optimizer](), jit_compile=jit)
    rng = np.random.default_rng(0)
    examples = BATCH * (WARM_UP + MAX_STEPS)
    x = rng.normal(size=(examples, FEATURES)).astype("float32")
    # Frequencies as a log-uniform sampler expects them: class c about 1 / c times.
    y = np.exp(rng.uniform(0, np.log(num_classes), examples)).astype("int64")
    times = StepTimes(limit)
    model.fit(x, y, batch_size=BATCH, verbose=0, shuffle=False, callbacks=[times])
    return {
        "ms": 1e3 * statistics.median(times.measured),
        "first_s": times.seconds[0],
        "peak_mib": peak_mib(),
    }
