"""`python -m examples.crossover`: from how many classes on sampling is the faster.

A step of training, by Keras's `fit`, of a head that samples and of a Dense layer with
the full cross entropy, for ever more classes. The steps of the two are taken in turn,
so that what else the machine does falls on both; the medians are printed.
"""

from __future__ import annotations

import argparse
import itertools
import os
import statistics
import sys
import time

COLUMNS = ("classes", "sampled, ms", "full, ms", "full / sampled")


def models(num_classes: int, dim: int, num_sampled: int, optimizer: str):
    """The two models, without an encoder to speak of."""
    import keras

    from tfsampled.layers import SampledSoftmax
    from tfsampled.models import SampledSoftmaxModel

    encoder = keras.Sequential([keras.Input((dim,)), keras.layers.Dense(dim)])
    head = SampledSoftmax(num_classes, min(num_sampled, num_classes))
    sampled = SampledSoftmaxModel(encoder, head)
    sampled.compile(optimizer)
    full = keras.Sequential(
        [keras.Input((dim,)), keras.layers.Dense(dim), keras.layers.Dense(num_classes)]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    full.compile(optimizer, loss, jit_compile=False)
    return sampled, full


def measure(
    num_classes: int,
    dim: int,
    batch_size: int,
    num_sampled: int,
    optimizer: str,
    rounds: int,
) -> tuple[float, float]:
    """Median seconds of a step of the sampled and of the full model."""
    import numpy as np

    rng = np.random.default_rng(0)
    x = rng.normal(size=(batch_size, dim)).astype("float32")
    y = np.minimum(rng.zipf(1.2, batch_size) - 1, num_classes - 1)
    pair = models(num_classes, dim, num_sampled, optimizer)
    seconds: tuple[list[float], list[float]] = ([], [])
    for model in pair:  # traced, and the variables touched
        model.train_on_batch(x, y)
        model.train_on_batch(x, y)
    for _ in range(rounds):
        for model, times in zip(pair, seconds, strict=True):
            start = time.perf_counter()
            model.train_on_batch(x, y)
            times.append(time.perf_counter() - start)
    return statistics.median(seconds[0]), statistics.median(seconds[1])


def crossing(points: list[tuple[int, float, float]]) -> float | None:
    """The number of classes at which the two take as long, between measured ones.

    >>> crossing([(100, 2.0, 1.0), (1000, 2.0, 4.0)])
    400.0
    """
    for (low, sampled, full), (high, sampled_high, full_high) in itertools.pairwise(
        points
    ):
        before, after = full - sampled, full_high - sampled_high
        if before < 0 <= after:
            return low + (high - low) * before / (before - after)
    return None


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m examples.crossover",
        description="The number of classes from which on sampling makes a step faster.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    sizes = [500, 1000, 2000, 4000, 8000, 16000, 32000]
    parser.add_argument(
        "--classes", type=int, nargs="+", default=sizes, help="measured"
    )
    parser.add_argument("--dim", type=int, default=64, help="of the features")
    parser.add_argument("--batch-size", type=int, default=256, help="examples a step")
    parser.add_argument("--num-sampled", type=int, default=1024, help="a step")
    parser.add_argument("--optimizer", default="adam", help="its name in Keras")
    parser.add_argument("--rounds", type=int, default=100, help="steps of each")
    options = vars(parser.parse_args(arguments))
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    from rich.console import Console
    from rich.table import Table

    table = Table(title="One training step", title_justify="left")
    for name in COLUMNS:
        table.add_column(name, justify="right")
    points = []
    for num_classes in sorted(options.pop("classes")):
        sampled, full = measure(num_classes, **options)
        points.append((num_classes, sampled, full))
        table.add_row(
            f"{num_classes:,}",
            f"{sampled * 1e3:.2f}",
            f"{full * 1e3:.2f}",
            f"{full / sampled:.2f}",
        )
    console = Console(highlight=False)
    console.print(table)
    where = crossing(points)
    console.print(
        "No crossing among these numbers of classes."
        if where is None
        else f"A full softmax is the faster one below about {where:,.0f} classes."
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
