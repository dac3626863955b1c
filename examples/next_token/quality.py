"""`python -m examples.next_token.quality`: sampled and full softmax, the same steps.

Both models start from the same encoder, see the same batches in the same order and end
after as many steps. Printed are the exact validation perplexity of each and the
milliseconds of a step, from steps taken in turn on an otherwise idle machine.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import sys

from examples.next_token.options import add_shared, at_least, exit_code


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m examples.next_token.quality",
        description="Exact validation perplexity of a sampled and of a full softmax "
        "after the same steps, and the time of a step of each.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add_shared(parser)
    parser.add_argument(
        "--steps",
        type=at_least(1, int),
        metavar="N",
        default=1000,
        help="of each model",
    )
    parser.add_argument(
        "--json",
        type=pathlib.Path,
        metavar="FILE",
        help="where to write the figures",
        default=argparse.SUPPRESS,
    )
    return parser


def main(arguments: list[str] | None = None) -> int:
    options = parser().parse_args(arguments)

    def job() -> None:
        from rich.console import Console

        from examples.next_token.compare import compare, table
        from examples.next_token.corpus import load

        corpus = load(getattr(options, "corpus", None), options.seed)
        results = compare(
            corpus, options.steps, options.batch_size, options.num_sampled, options.seed
        )
        Console(highlight=False).print(table(results, corpus.num_classes))
        if hasattr(options, "json"):
            options.json.write_text(json.dumps(results, indent=2) + "\n")

    return exit_code(job)


if __name__ == "__main__":
    sys.exit(main())
