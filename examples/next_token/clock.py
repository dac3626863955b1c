"""Wall-clock time: milliseconds a step, and perplexity against seconds of training."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

CURVE_POINTS = 12
VALID_BATCH = 512


@dataclasses.dataclass
class Curve:
    """Held-out perplexity after so many seconds of training, validation left out."""

    name: str
    seconds: list[float] = dataclasses.field(default_factory=list)
    perplexity: list[float] = dataclasses.field(default_factory=list)
    steps: int = 0


class Stopwatch(keras.callbacks.Callback):
    """Writes a curve while a model trains, and ends after `steps` or `limit` seconds.

    The first step's tracing counts as training; validation does not.
    """

    def __init__(self, curve: Curve, steps: int, limit: float) -> None:
        super().__init__()
        self.curve, self.steps, self.limit = curve, steps, limit
        self.spent = 0.0  # up to the last pause
        self.since: float | None = None

    @property
    def seconds(self) -> float:
        running = 0.0 if self.since is None else time.perf_counter() - self.since
        return self.spent + running

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.since = time.perf_counter()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.curve.steps += 1
        if self.curve.steps == self.steps or self.seconds > self.limit:
            self.model.stop_training = True

    def on_test_begin(self, logs: Any = None) -> None:
        self.spent, self.since = self.seconds, None

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.curve.seconds.append(self.spent)
        self.curve.perplexity.append(math.exp(min(logs["val_loss"], 700)))


def step_times(
    models: dict[str, keras.Model], batches: tf.data.Dataset, rounds: int = 3
) -> dict[str, list[float]]:
    """Seconds of training steps of each model, measured in turn.

    In turn, so that what else the machine does falls on all of them alike. The first
    step of a model, in which it is traced, is left out.
    """
    source: Iterator[Any] = iter(batches)
    for model in models.values():
        model.train_on_batch(*next(source))
    times: dict[str, list[float]] = {name: [] for name in models}
    for _ in range(rounds):
        for name, model in models.items():
            for _ in range(2):
                x, y = next(source)
                start = time.perf_counter()
                model.train_on_batch(x, y)
                times[name].append(time.perf_counter() - start)
    return times


def train(
    model: keras.Model,
    name: str,
    batches: tf.data.Dataset,
    valid: tuple[np.ndarray, np.ndarray],
    steps: int,
    limit: float,
) -> Curve:
    """Fits for `steps` steps, or for `limit` seconds if these end first.

    Args:
        model: A compiled model.
        name: What the curve is called.
        batches: What it trains on, without end.
        valid: What it is validated on, `CURVE_POINTS` times.
        steps: How many steps at most.
        limit: How many seconds at most, validation not counted.
    """
    epochs = min(CURVE_POINTS, steps)
    stopwatch = Stopwatch(Curve(name), steps, limit)
    model.fit(
        batches,
        epochs=epochs,
        steps_per_epoch=math.ceil(steps / epochs),
        validation_data=valid,
        validation_batch_size=VALID_BATCH,
        callbacks=[stopwatch],
        shuffle=False,  # the dataset shuffles
    )
    return stopwatch.curve
