"""`python -m examples.next_token.optimizers`: what a row-sparse optimizer is worth.

The sampled model is trained by Keras's Adam, whose step writes all rows of its tables,
and by LazyAdam, plain and corrected for skipped steps, each for as many seconds, from
the same start on the same batches. Printed, and drawn with `--plot`, is the exact
validation perplexity against the seconds of training.
"""

from __future__ import annotations

import argparse
import math
import pathlib
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from examples.next_token.options import add_shared, at_least, exit_code

if TYPE_CHECKING:
    import keras
    from rich.table import Table

    from examples.next_token.clock import Curve
    from examples.next_token.corpus import Corpus


def makers(rate: float) -> dict[str, Callable[[], keras.optimizers.Optimizer]]:
    """The optimizers that are compared, by name."""
    import keras

    from tfsampled.optimizers import LazyAdam

    return {
        "keras Adam": lambda: keras.optimizers.Adam(rate),
        "LazyAdam": lambda: LazyAdam(rate),
        "LazyAdam, corrected": lambda: LazyAdam(rate, correct_skipped=True),
    }


def compare(
    corpus: Corpus,
    seconds: float,
    batch_size: int,
    num_sampled: int,
    rate: float,
    seed: int,
) -> list[Curve]:
    """A curve for each optimizer.

    Args:
        corpus: What is learned.
        seconds: How long each may train, validation not counted.
        batch_size: Examples a step.
        num_sampled: Classes drawn a step.
        rate: The learning rate of all.
        seed: Of the start and of the order of the batches.
    """
    import keras
    import tensorflow as tf

    from examples.next_token import clock
    from examples.next_token.model import sampled_model
    from examples.next_token.windows import corpus_windows

    train, valid_windows = corpus_windows(corpus)
    valid = valid_windows.sample()
    num_sampled = min(num_sampled, corpus.num_classes)
    curves = []
    for name, make in makers(rate).items():
        model = sampled_model(corpus.num_classes, num_sampled, seed)
        model.compile(optimizer=make())
        tf.random.set_seed(seed)  # the batches are shuffled alike
        batches = train.training(batch_size, seed)
        fastest = min(clock.step_times({name: model}, batches)[name])
        # The steps that were timed have trained it: begin again.
        model = sampled_model(corpus.num_classes, num_sampled, seed)
        model.compile(optimizer=make())
        steps = math.ceil(seconds / fastest)
        curves.append(clock.train(model, name, batches, valid, steps, seconds))
        keras.utils.clear_session(free_memory=False)
    return curves


def table(curves: list[Curve]) -> Table:
    """Steps and perplexity at the end, and when the first one's end was passed."""
    from rich.table import Table

    goal = curves[0].perplexity[-1]
    made = Table(title="Exact validation perplexity", title_justify="left")
    made.add_column("optimizer")
    for name in ("steps", "seconds", "perplexity", f"seconds to {goal:,.1f}"):
        made.add_column(name, justify="right")
    for curve in curves:
        until = seconds_until(curve, goal)
        made.add_row(
            curve.name,
            f"{curve.steps:,}",
            f"{curve.seconds[-1]:,.1f}",
            f"{curve.perplexity[-1]:,.1f}",
            "never" if until is None else f"{until:,.1f}",
        )
    return made


def seconds_until(curve: Curve, goal: float) -> float | None:
    """When a curve first was as low as `goal`; None if it never was."""
    points = zip(curve.seconds, curve.perplexity, strict=True)
    return next((at for at, value in points if value <= goal), None)


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m examples.next_token.optimizers",
        description="The sampled model with Keras's Adam and with ours, as long.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add_shared(parser)
    parser.add_argument(
        "--seconds",
        type=at_least(0.01, float),
        metavar="X",
        default=60.0,
        help="of training, each",
    )
    parser.add_argument(
        "--learning-rate", type=float, metavar="X", default=4e-3, help="of all"
    )
    parser.add_argument(
        "--plot",
        type=pathlib.Path,
        metavar="FILE",
        help="write a chart there, PNG or SVG",
        default=argparse.SUPPRESS,
    )
    return parser


def main(arguments: list[str] | None = None) -> int:
    options = parser().parse_args(arguments)

    def job() -> None:
        from rich.console import Console

        from examples.next_token import chart
        from examples.next_token.corpus import load

        corpus = load(getattr(options, "corpus", None), options.seed)
        curves = compare(
            corpus,
            options.seconds,
            options.batch_size,
            options.num_sampled,
            options.learning_rate,
            options.seed,
        )
        console = Console(highlight=False)
        console.print(table(curves))
        if path := getattr(options, "plot", None):
            chart.save(path, curves, f"Next token, {corpus.num_classes:,} classes")
            console.print(f"chart saved to {path}", soft_wrap=True)

    return exit_code(job)


if __name__ == "__main__":
    sys.exit(main())
