"""What the commands of this example share: options, and how they end."""

from __future__ import annotations

import argparse
import os
import pathlib
import sys
from collections.abc import Callable
from typing import Any


def at_least(least: float, kind: type) -> Callable[[str], Any]:
    """What makes an option's text a number of a kind, not below `least`, finite."""

    def parse(text: str) -> float:
        value = kind(text)
        if value < least or value != value or value == float("inf"):
            raise argparse.ArgumentTypeError(f"{text} is not {least} or more")
        return value

    parse.__name__ = kind.__name__  # argparse names it where the text is no number
    return parse


def add_shared(parser: argparse.ArgumentParser) -> None:
    """Adds what all the commands ask: the corpus, the size of a step, the seed."""
    parser.add_argument(
        "--corpus",
        type=pathlib.Path,
        metavar="DIR",
        help="a folder of text (default: the sources of Python's standard library)",
        default=argparse.SUPPRESS,
    )
    count = at_least(1, int)
    parser.add_argument(
        "--batch-size",
        type=count,
        metavar="N",
        default=1024,
        help="examples in each step",
    )
    parser.add_argument(
        "--num-sampled",
        type=count,
        metavar="N",
        default=1024,
        help="classes drawn in each step",
    )
    parser.add_argument(
        "--seed",
        type=at_least(0, int),
        metavar="N",
        default=0,
        help="of weights, batches and held-out files",
    )


def exit_code(job: Callable[[], None]) -> int:
    """Does a command's job; 2, after a line that says why, where it cannot be done."""
    # Read when TensorFlow and Keras are loaded, so before they are.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    try:
        import matplotlib  # noqa: F401
        import rich  # noqa: F401

        import tfsampled  # noqa: F401
        from examples.next_token.corpus import CorpusError
    except ImportError as missing:
        print(f"{missing} (pip install 'tfsampled[cpu,demo]')", file=sys.stderr)
        return 2
    try:
        job()
    except (CorpusError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0
