"""Trains as one of several processes; the first one writes what it measured."""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import tensorflow as tf

from examples.distributed.servers import bytes_received
from tfsampled.distribute import ClassParallelSoftmax
from tfsampled.layers import SampledSoftmax
from tfsampled.optimizers import LazyAdam

DIM, BATCH, SAMPLED, WARM_UP = 64, 512, 1024, 10


def measure(kind: str, num_classes: int, steps: int, path: Path) -> None:
    """Writes the median milliseconds of a step and the kilobytes of each process."""
    tf.config.set_visible_devices([], "GPU")  # one would be that of all processes
    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    head, apply = {"copied": copied, "in parts": in_parts}[kind](strategy, num_classes)

    @tf.function
    def train() -> tf.Tensor:
        def step() -> tf.Tensor:
            x = tf.random.normal([BATCH, DIM])
            y = tf.random.uniform([BATCH], maxval=num_classes, dtype=tf.int64)
            with tf.GradientTape() as tape:
                tape.watch(x)
                loss = tf.reduce_sum(head.sampled_loss(x, y))
            gradients = tape.gradient(loss, [x, *head.trainable_variables])
            apply(gradients[1:])
            # That of the inputs, which an encoder would get, is computed too.
            return tf.reduce_sum(gradients[0])

        return strategy.reduce("SUM", strategy.run(step), axis=None)

    for _ in range(WARM_UP):
        train()
    received, seconds = bytes_received(), []
    for _ in range(steps):
        start = time.perf_counter()
        float(train())
        seconds.append(time.perf_counter() - start)
    received = bytes_received() - received
    if strategy.cluster_resolver.task_id == 0:
        measured = {
            "ms": 1e3 * statistics.median(seconds),
            "kilobytes": received / 1e3 / steps / strategy.num_replicas_in_sync,
        }
        path.write_text(json.dumps(measured))


def copied(
    strategy: tf.distribute.Strategy, num_classes: int
) -> tuple[Any, Callable[[list[Any]], None]]:
    """Returns a table of which each process has a copy, and how it is updated."""
    with strategy.scope():
        head = SampledSoftmax(num_classes, min(SAMPLED, num_classes), "uniform")
        head.build((None, DIM))
        optimizer = LazyAdam(0.01)
        optimizer.build(head.trainable_variables)
    return head, lambda grads: optimizer.apply(grads, head.trainable_variables)


def in_parts(
    strategy: tf.distribute.Strategy, num_classes: int
) -> tuple[Any, Callable[[list[Any]], None]]:
    """Returns a table of which each process has a part, and how it is updated."""
    num_sampled = SAMPLED * strategy.num_replicas_in_sync
    head = ClassParallelSoftmax(
        *(strategy, num_classes, DIM, min(num_sampled, num_classes)),
        optimizer=lambda: LazyAdam(0.01),
        sampler="uniform",
    )
    return head, head.apply


if __name__ == "__main__":
    measure(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]))
