"""`python -m examples.next_token`: full and sampled softmax over seconds of training.

Three models learn the next token of source files, from the same encoder weights on the
same batches: with a full softmax, with a sampled softmax and Keras's Adam, and with a
sampled softmax and LazyAdam. A plot and a table show their exact validation perplexity.
"""

from __future__ import annotations

import argparse
import os
import pathlib
import sys

# Read when TensorFlow is imported.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from examples.next_token import data, plot, train

VALID_SIZE = 2048  # held-out tokens of every perplexity


def positive_float(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a positive number")
    return value


def positive_int(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not 1 or more")
    return value


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m examples.next_token",
        description="Trains a next-token model with a full softmax, with a sampled "
        "softmax, and with a sampled softmax and LazyAdam, and plots exact validation "
        "perplexity over seconds of training.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add(
        "--corpus",
        type=pathlib.Path,
        metavar="DIR",
        help="a folder of text files (default: the sources of Python's standard "
        "library)",
        default=argparse.SUPPRESS,
    )
    add(
        "--plot",
        type=pathlib.Path,
        metavar="FILE",
        default=pathlib.Path("demo-output/perplexity.png"),
        help="where the plot is written, PNG or SVG",
    )
    length = parser.add_mutually_exclusive_group()
    length.add_argument(
        "--seconds",
        type=positive_float,
        metavar="X",
        default=15.0,
        help="seconds of training of each model",
    )
    length.add_argument(
        "--steps",
        type=positive_int,
        metavar="N",
        default=argparse.SUPPRESS,
        help="steps of training of each model, instead of seconds",
    )
    add(
        "--batch-size",
        type=positive_int,
        metavar="N",
        default=1024,
        help="examples of each step",
    )
    add(
        "--num-sampled",
        type=positive_int,
        metavar="N",
        default=1024,
        help="classes sampled in each step",
    )
    add(
        "--seed",
        type=int,
        metavar="N",
        default=0,
        help="seed of weights, batches and held-out files",
    )
    return parser


def run(options: argparse.Namespace) -> list[train.Curve]:
    """Trains the models, prints the table and writes the plot.

    Raises:
        CorpusError: if there is no text to train on.
        OSError: if the plot cannot be written; before the training.
    """
    corpus = data.load(getattr(options, "corpus", None), options.seed)
    options.plot.parent.mkdir(parents=True, exist_ok=True)
    options.plot.open("ab").close()
    print(corpus, flush=True)
    num_classes = corpus.num_classes
    windows = data.Windows(corpus.train, num_classes)
    batches = windows.batches(options.batch_size, options.seed)
    valid = data.Windows(corpus.valid, num_classes).sample(VALID_SIZE)
    by_steps = "steps" in options
    limit = options.steps if by_steps else options.seconds
    num_sampled = min(options.num_sampled, num_classes)
    curves = []
    for name, build in train.models(
        windows.input_size, num_classes, num_sampled
    ).items():
        curve = train.train(
            name, build, batches, valid, limit, by_steps, options.seed, show_progress
        )
        print()
        curves.append(curve)
    unigram = data.unigram_perplexity(corpus.counts, valid[1])
    print(f"\nExact validation perplexity; of the unigram frequencies: {unigram:,.1f}")
    print(table(curves))
    title = f"Next token, {num_classes:,} classes, {num_sampled:,} sampled"
    plot.save(options.plot, curves, title)
    print(f"plot saved to {options.plot}")
    return curves


def show_progress(curve: train.Curve) -> None:
    """Prints a line that the next call overwrites in a terminal."""
    print(
        f"{curve.name:30}{curve.steps:7,} steps {curve.seconds[-1]:6.1f} s  "
        f"perplexity {curve.perplexity[-1]:10,.1f}",
        end="\r" if sys.stdout.isatty() else "\n",
        flush=True,
    )


def table(curves: list[train.Curve]) -> str:
    """The end of each curve, and when it passed the end of the first one."""
    goal = curves[0].perplexity[-1]
    header = (
        "model",
        "steps",
        "ms per step",
        "seconds",
        "perplexity",
        f"s to {goal:,.1f}",
    )
    rows = [header]
    for curve in curves:
        until = curve.seconds_until(goal)
        rows.append(
            (
                curve.name,
                f"{curve.steps:,}",
                f"{curve.ms_per_step:,.1f}",
                f"{curve.seconds[-1]:,.1f}",
                f"{curve.perplexity[-1]:,.1f}",
                "never" if until is None else f"{until:,.1f}",
            )
        )
    return "\n".join(
        f"{row[0]:30}" + "".join(f"{x:>13}" for x in row[1:]) for row in rows
    )


def main(arguments: list[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    try:
        run(options)
    except (data.CorpusError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
