"""The models, and their exact perplexity over seconds of training."""

from __future__ import annotations

import dataclasses
import math
import statistics
import time
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from examples.next_token.data import CONTEXT
from tfsampled.layers import SampledSoftmax
from tfsampled.models import SampledSoftmaxModel
from tfsampled.optimizers import LazyAdam

DIM = 64
RATE = 4e-3
POINTS = 6  # of each curve


def encoder(input_size: int) -> keras.Model:
    """The context's embeddings, concatenated, through two dense layers."""
    return keras.Sequential(
        [
            keras.Input((CONTEXT,), dtype="int32"),
            keras.layers.Embedding(input_size, DIM),
            keras.layers.Flatten(),
            keras.layers.Dense(4 * DIM, activation="gelu"),
            keras.layers.Dense(DIM),
        ]
    )


def full_model(input_size: int, num_classes: int) -> keras.Model:
    """A Dense layer with a unit for each class, and Keras's loss."""
    model = keras.Sequential([encoder(input_size), keras.layers.Dense(num_classes)])
    model.compile(
        keras.optimizers.Adam(RATE),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        jit_compile=False,
    )
    return model


def sampled_model(
    input_size: int,
    num_classes: int,
    num_sampled: int,
    optimizer: keras.optimizers.Optimizer,
) -> keras.Model:
    """The same model with a SampledSoftmax in the place of Dense."""
    body = encoder(input_size)  # before the head, which takes random numbers too
    model = SampledSoftmaxModel(body, SampledSoftmax(num_classes, num_sampled))
    model.compile(optimizer, jit_compile=False)
    return model


def models(
    input_size: int, num_classes: int, num_sampled: int
) -> dict[str, Callable[[], keras.Model]]:
    """What builds each of the models that are compared, by the names of the curves."""
    sizes = input_size, num_classes
    return {
        "full softmax, Keras Adam": lambda: full_model(*sizes),
        "sampled softmax, Keras Adam": lambda: sampled_model(
            *sizes, num_sampled, keras.optimizers.Adam(RATE)
        ),
        "sampled softmax, LazyAdam": lambda: sampled_model(
            *sizes, num_sampled, LazyAdam(RATE)
        ),
    }


@dataclasses.dataclass
class Curve:
    """Exact validation perplexity after seconds of training, without validation's."""

    name: str
    seconds: list[float] = dataclasses.field(default_factory=list)
    perplexity: list[float] = dataclasses.field(default_factory=list)
    step_seconds: list[float] = dataclasses.field(default_factory=list)

    @property
    def steps(self) -> int:
        return len(self.step_seconds)

    @property
    def ms_per_step(self) -> float:
        return statistics.median(self.step_seconds) * 1e3

    def seconds_until(self, perplexity: float) -> float | None:
        """When the curve first was as low as `perplexity`; None if it never was."""
        points = zip(self.seconds, self.perplexity, strict=True)
        return next((at for at, value in points if value <= perplexity), None)


class Recorder(keras.callbacks.Callback):
    """Validates a model `POINTS` times while it trains, and then stops it.

    Args:
        curve: Where the points are appended.
        valid: Contexts and targets to validate on.
        limit: Seconds of training, the first step's tracing included and validation
            not; or, if `by_steps`, steps of training.
        by_steps: Whether `limit` is a number of steps.
        progress: Called with the curve after each point.
    """

    def __init__(
        self,
        curve: Curve,
        valid: tuple[np.ndarray, np.ndarray],
        limit: float,
        by_steps: bool,
        progress: Callable[[Curve], None],
    ) -> None:
        super().__init__()
        self.curve, self.valid, self.limit = curve, valid, limit
        self.by_steps, self.progress = by_steps, progress
        self.elapsed = 0.0

    def on_train_begin(self, logs: Any = None) -> None:
        self.started = time.perf_counter()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        seconds = time.perf_counter() - self.started
        self.elapsed += seconds
        self.curve.step_seconds.append(seconds)
        spent = (self.curve.steps if self.by_steps else self.elapsed) / self.limit
        if spent >= (len(self.curve.seconds) + 1) / POINTS or spent >= 1:
            loss = self.model.evaluate(*self.valid, batch_size=512, verbose=0)
            self.curve.seconds.append(self.elapsed)
            self.curve.perplexity.append(math.exp(min(loss, 700)))
            self.progress(self.curve)
        self.model.stop_training = spent >= 1
        self.started = time.perf_counter()


def train(
    name: str,
    build: Callable[[], keras.Model],
    batches: tf.data.Dataset,
    valid: tuple[np.ndarray, np.ndarray],
    limit: float,
    by_steps: bool = False,
    seed: int = 0,
    progress: Callable[[Curve], None] = lambda curve: None,
) -> Curve:
    """Trains a model with Keras `fit` and returns its curve; see `Recorder`."""
    keras.utils.clear_session()
    keras.utils.set_random_seed(seed)
    curve = Curve(name)
    recorder = Recorder(curve, valid, limit, by_steps, progress)
    build().fit(
        batches, steps_per_epoch=10**9, shuffle=False, verbose=0, callbacks=[recorder]
    )
    return curve
