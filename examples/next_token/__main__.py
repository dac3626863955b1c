"""`python -m examples.next_token`: train on source files, with and without sampling."""

from __future__ import annotations

import argparse
import pathlib
import sys

from examples.next_token.options import add_shared, at_least, exit_code


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m examples.next_token",
        description="Trains a next-token model with a sampled softmax, and the same "
        "model with a full softmax for as long, and compares them.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add_shared(parser)
    parser.add_argument(
        "--out",
        type=pathlib.Path,
        metavar="DIR",
        default=pathlib.Path("demo-output"),
        help="folder for the plot",
    )
    length = parser.add_mutually_exclusive_group()
    length.add_argument(
        "--minutes",
        type=at_least(0.01, float),
        default=2.5,
        help="training time of the two models together",
    )
    length.add_argument(
        "--steps",
        type=at_least(1, int),
        metavar="N",
        help="steps of the sampled model (default: as many as --minutes allows)",
        default=argparse.SUPPRESS,
    )
    return parser


def main(arguments: list[str] | None = None) -> int:
    options = parser().parse_args(arguments)

    def job() -> None:
        from examples.next_token.run import run

        run(
            getattr(options, "corpus", None),
            options.out,
            options.minutes,
            getattr(options, "steps", None),
            options.batch_size,
            options.num_sampled,
            options.seed,
        )

    return exit_code(job)


if __name__ == "__main__":
    sys.exit(main())
