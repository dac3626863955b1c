"""`python -m examples.crossover`: from how many classes on sampling is faster.

Times training steps of a head that samples and of a Dense layer with the full cross
entropy, for more and more classes. The steps of the two alternate, so that other load
on the machine falls on both; the medians are printed.
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
    """A sampled and a full model, each with one Dense layer before the classes."""
    import keras

    from tfsampled.layers import SampledSoftmax
    from tfsampled.models import SampledSoftmaxModel

    encoder = keras.Sequential([keras.Input((dim,)), keras.layers.Dense(dim)])
    head = SampledSoftmax(num_classes, min(num_sampled, num_classes))
    sampled = SampledSoftmaxModel(encoder, head)
    sampled.compile(optimizer, jit_compile=False)
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
    for model in pair:  # trace, and make the optimizer's variables
        model.train_on_batch(x, y)
        model.train_on_batch(x, y)
    for _ in range(rounds):
        for model, times in zip(pair, seconds, strict=True):
            start = time.perf_counter()
            model.train_on_batch(x, y)
            times.append(time.perf_counter() - start)
    return statistics.median(seconds[0]), statistics.median(seconds[1])


def crossing(points: list[tuple[int, float, float]]) -> float | None:
    """The number of classes at which both take as long, by linear interpolation.

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
        description="Finds the number of classes from which on sampling is faster.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    sizes = [500, 1000, 2000, 4000, 8000, 16000, 32000]
    parser.add_argument(
        "--classes", type=int, nargs="+", default=sizes, help="numbers of classes"
    )
    parser.add_argument("--dim", type=int, default=64, help="width of the features")
    parser.add_argument(
        "--batch-size", type=int, default=256, help="examples of a step"
    )
    parser.add_argument(
        "--num-sampled", type=int, default=1024, help="classes of a step"
    )
    parser.add_argument("--optimizer", default="adam", help="its name in Keras")
    parser.add_argument("--rounds", type=int, default=100, help="steps of each model")
    options = vars(parser.parse_args(arguments))
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    print("".join(f"{name:>16}" for name in COLUMNS))
    points = []
    for num_classes in sorted(options.pop("classes")):
        sampled, full = measure(num_classes, **options)
        points.append((num_classes, sampled, full))
        print(
            f"{num_classes:16,}{sampled * 1e3:16.2f}{full * 1e3:16.2f}"
            f"{full / sampled:16.2f}",
            flush=True,
        )
    where = crossing(points)
    print(
        "No crossing among these numbers of classes."
        if where is None
        else f"A full softmax is faster below about {where:,.0f} classes."
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
