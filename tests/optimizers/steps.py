"""Gradients and steps that the tests of the optimizers share."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import keras
import numpy as np
import tensorflow as tf

ROWS, WIDTH = 50, 4
Gradient = tuple[np.ndarray, np.ndarray]  # ids [n], values [n, width]


def gradients(
    steps: int, copies: int = 40, every_row: bool = False, seed: int = 0
) -> list[Gradient]:
    """Row-sparse gradients of a `[ROWS, WIDTH]` table, with many repeated rows."""
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(steps):
        ids = rng.integers(0, ROWS, copies)
        if every_row:
            ids = np.concatenate([rng.permutation(ROWS), ids])
        made.append((ids, rng.normal(size=(len(ids), WIDTH))))
    return made


def sparse(gradient: Gradient, dtype: str = "float32") -> tf.IndexedSlices:
    ids, values = gradient
    return tf.IndexedSlices(
        tf.constant(values, dtype), tf.constant(ids), tf.constant([ROWS, WIDTH])
    )


def dense(gradient: Gradient, dtype: str = "float32") -> tf.Tensor:
    """The same gradient as a table: what a row-sparse optimizer has to equal."""
    ids, values = gradient
    return tf.math.unsorted_segment_sum(tf.constant(values, dtype), ids, ROWS)


def start(dtype: str = "float32") -> np.ndarray:
    return np.random.default_rng(1).normal(size=(ROWS, WIDTH)).astype(dtype)


def train(
    optimizer: keras.optimizers.Optimizer,
    grads: Sequence[tf.Tensor | tf.IndexedSlices],
    table: np.ndarray | None = None,
    jit: bool = False,
) -> np.ndarray:
    """The table after these gradients, one a step, in a compiled function."""
    variable = keras.Variable(start() if table is None else table)
    step = compiled(optimizer, [variable], jit)
    for grad in grads:
        step([grad])
    return variable.numpy()


def compiled(
    optimizer: keras.optimizers.Optimizer, variables: list, jit: bool = False
) -> Callable:
    optimizer.build(variables)

    @tf.function(jit_compile=jit, reduce_retracing=True)
    def step(grads: list) -> None:
        optimizer.apply(grads, variables)

    return step


def assert_as_good(ours: np.ndarray, reference: np.ndarray, truth: np.ndarray) -> None:
    """Ours is as near to the float64 truth as the reference, but for rounding."""
    assert ours.dtype == reference.dtype
    error = np.abs(ours.astype("float64") - truth)
    allowed = 2 * np.abs(reference.astype("float64") - truth).max()
    few_ulp = 4 * np.spacing(np.abs(reference).max()).astype("float64")
    assert error.max() <= allowed + few_ulp
