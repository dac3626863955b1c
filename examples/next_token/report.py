"""What the demo prints."""

from __future__ import annotations

import math
import statistics

import numpy as np
from rich.table import Table
from rich.text import Text

from examples.next_token.clock import Curve
from examples.next_token.corpus import Corpus
from examples.next_token.windows import Windows
from tfsampled.models import SampledSoftmaxModel


def corpus_table(corpus: Corpus) -> Table:
    """What was read, and what is held out."""
    held_out = sum(map(len, corpus.valid))
    rows = {
        "files read": (
            corpus.files_read,
            f"{corpus.files_skipped:,} more are unreadable and skipped; "
            f"{corpus.files_repeated:,} repeat another and are left out",
        ),
        "tokens": (corpus.num_tokens, "words and symbols"),
        "held out": (
            held_out,
            f"tokens in {len(corpus.valid):,} files of their own, for validation",
        ),
        "classes": (corpus.num_classes, "every token of the training files"),
        "unseen": (
            round(held_out * corpus.unseen),
            f"held-out tokens ({corpus.unseen:.1%}) are in no training file: no model "
            "is asked for them, no perplexity counts them",
        ),
    }
    table = Table(title="Corpus", title_justify="left", show_header=False)
    table.add_column("what")
    table.add_column("how many", justify="right")
    table.add_column("note")
    for name, (count, note) in rows.items():
        table.add_row(name, f"{count:,}", note)
    return table


def speed_table(times: dict[str, list[float]]) -> Table:
    """The median milliseconds of a step of each model."""
    table = Table(title="One training step, measured in turn", title_justify="left")
    table.add_column("model")
    table.add_column("ms per step", justify="right")
    table.add_column("ratio", justify="right")
    seconds = {name: statistics.median(values) for name, values in times.items()}
    fastest = min(seconds.values())
    for name, value in seconds.items():
        table.add_row(name, f"{value * 1e3:,.1f}", f"{value / fastest:.1f}x")
    return table


def perplexity_table(unigram: float, curves: list[Curve], size: int) -> Table:
    """The models' exact perplexities at the end, and what they took."""
    table = Table(
        title=f"Exact validation perplexity, {size:,} held-out tokens",
        title_justify="left",
    )
    table.add_column("model")
    table.add_column("steps", justify="right")
    table.add_column("seconds of training", justify="right")
    table.add_column("perplexity", justify="right")
    table.add_row("unigram", "", "", f"{unigram:,.1f}")
    for curve in curves:
        table.add_row(
            curve.name,
            f"{curve.steps:,}",
            f"{curve.seconds[-1]:.0f}",
            f"{curve.perplexity[-1]:,.1f}",
        )
    return table


def unigram_perplexity(counts: np.ndarray, targets: np.ndarray) -> float:
    """The perplexity of a model that knows only how often training has each class.

    The targets are classes of the training files, so no class needs smoothing.
    """
    log_probability = np.log(counts) - np.log(counts.sum())
    return math.exp(-log_probability[targets].mean())


def prediction_table(
    model: SampledSoftmaxModel,
    valid: Windows,
    vocabulary: list[str],
    count: int = 8,
    k: int = 5,
) -> Table:
    """The likeliest tokens after a few held-out contexts; the true one is green."""
    where = np.linspace(0, len(valid.positions) - 1, count + 2)[1:-1].astype(np.int64)
    positions = valid.positions[where]
    contexts, targets = valid.at(positions)
    features = model.encoder(contexts)
    scores, classes = model.head.top_k(features, min(k, len(vocabulary)))
    # A class's loss is the log of the softmax's denominator less its logit.
    loss = model.head.exact_loss(features, classes[:, 0])
    probabilities = np.exp((scores - scores[:, :1] - loss[:, np.newaxis]).numpy())
    table = Table(
        title="The likeliest next tokens after held-out text", title_justify="left"
    )
    table.add_column("text", justify="right")
    table.add_column("truth")
    table.add_column("predictions")
    for row, position in enumerate(positions):
        guesses = Text()
        for index, probability in zip(
            classes[row].numpy(), probabilities[row], strict=True
        ):
            style = "bold green" if index == targets[row] else ""
            guesses.append(vocabulary[index], style)
            guesses.append(f" {probability:.0%}  ", "dim")
        guesses.rstrip()
        table.add_row(
            Text(valid.text_before(position, vocabulary)),
            Text(vocabulary[targets[row]]),
            guesses,
        )
    return table
