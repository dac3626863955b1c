"""The loss after training with Adam, LazyAdam, and LazyAdam with correct_skipped.

    python -m benchmarks.skipped_steps

Rows of a table are drawn with the frequencies of words, row c about 1 / c times, and
pulled towards a target, with noise. The loss is the mean squared distance of all rows
from it, and starts at about 1.
"""

from __future__ import annotations

import argparse
import os
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf
from rich.console import Console
from rich.table import Table

from tfsampled.optimizers import LazyAdam

ROWS, DIM, BATCH = 2000, 8, 64
RATES = (1e-3, 3e-3, 1e-2, 3e-2)
OPTIMIZERS = {
    "Adam": lambda rate: keras.optimizers.Adam(rate),
    "LazyAdam": lambda rate: LazyAdam(rate),
    "corrected": lambda rate: LazyAdam(rate, correct_skipped=True),
}


def final_loss(
    optimizer: keras.optimizers.Optimizer, steps: int, noise: float, seed: int = 0
) -> float:
    """Returns the mean squared distance from the target after `steps` steps."""
    rng = np.random.default_rng(seed)
    target = tf.constant(rng.normal(size=(ROWS, DIM)), tf.float32)
    table = tf.Variable(tf.zeros([ROWS, DIM]))
    optimizer.build([table])
    frequencies = 1 / np.arange(1, ROWS + 1)
    frequencies /= frequencies.sum()

    @tf.function
    def step(ids: tf.Tensor, errors: tf.Tensor) -> None:
        pulls = (tf.gather(table, ids) - tf.gather(target, ids) + errors) / BATCH
        if isinstance(optimizer, LazyAdam):
            gradient = tf.IndexedSlices(pulls, ids, [ROWS, DIM])
        else:
            # Keras would square the gradients of a repeated row one by one.
            gradient = tf.math.unsorted_segment_sum(pulls, ids, ROWS)
        optimizer.apply([gradient], [table])

    for _ in range(steps):
        ids = tf.constant(rng.choice(ROWS, BATCH, p=frequencies))
        step(ids, tf.constant(noise * rng.normal(size=(BATCH, DIM)), tf.float32))
    return float(tf.reduce_mean(tf.square(table - target)))


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.skipped_steps",
        description=__doc__.partition("\n")[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument(
        "--steps", type=int, default=2000, metavar="N", help="steps of each optimizer"
    )
    parser.add_argument(
        "--noise",
        type=float,
        default=1.0,
        metavar="X",
        help="standard deviation of the noise",
    )
    options = parser.parse_args(arguments)
    console = Console()
    table = Table("learning rate", title=f"loss after {options.steps:,} steps")
    for name in OPTIMIZERS:
        table.add_column(name, justify="right")
    with console.status("training"):
        for rate in RATES:
            losses = [
                final_loss(make(rate), options.steps, options.noise)
                for make in OPTIMIZERS.values()
            ]
            table.add_row(f"{rate:g}", *(f"{loss:.3f}" for loss in losses))
    console.print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
