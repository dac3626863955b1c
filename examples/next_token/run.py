"""The job: read, measure, train both models, report."""

from __future__ import annotations

import math
import pathlib
from collections.abc import Callable

import keras
from rich.console import Console

from examples.next_token import chart, clock, report
from examples.next_token.corpus import load
from examples.next_token.model import full_model, sampled_model
from examples.next_token.windows import corpus_windows
from tfsampled.models import SampledSoftmaxModel


def run(
    corpus_folder: pathlib.Path | None,
    out: pathlib.Path,
    minutes: float,
    steps: int | None,
    batch_size: int,
    num_sampled: int,
    seed: int,
) -> None:
    """Trains the sampled model, then the full one for as long, and reports.

    Raises:
        CorpusError: There is no text to train on.
        OSError: The folder for the results cannot be written.
    """
    console = Console(highlight=False)
    out.mkdir(parents=True, exist_ok=True)
    with console.status("reading the corpus"):
        corpus = load(corpus_folder, seed)
    console.print(report.corpus_table(corpus))
    train_windows, valid_windows = corpus_windows(corpus)
    batches = train_windows.training(batch_size, seed)
    classes, num_sampled = corpus.num_classes, min(num_sampled, corpus.num_classes)
    makers: dict[str, Callable[[], keras.Model]] = {
        f"sampled softmax, {num_sampled:,} of {classes:,}": lambda: sampled_model(
            classes, num_sampled, seed
        ),
        "full softmax": lambda: full_model(classes, seed),
    }
    with console.status("measuring a step of each model"):
        models = {name: make() for name, make in makers.items()}
        step_times = clock.step_times(models, batches)
        del models
    console.print(report.speed_table(step_times))

    seconds = math.inf if steps else minutes * 60 / len(makers)
    valid = valid_windows.sample()
    unigram = report.unigram_perplexity(corpus.counts, valid[1])
    curves: list[clock.Curve] = []
    tables = []
    for name, make in makers.items():
        console.rule(f"training: {name}", align="left")
        model = make()
        # By the fastest step, so that the time runs out before the steps do.
        planned = steps
        if planned is None or curves:
            planned = math.ceil(seconds / min(step_times[name]))
        curve = clock.train(model, name, batches, valid, planned, seconds)
        seconds = curve.seconds[-1]  # as long as the first took, the next may take
        curves.append(curve)
        if isinstance(model, SampledSoftmaxModel):
            vocabulary = corpus.vocabulary
            tables.append(report.prediction_table(model, valid_windows, vocabulary))
    console.rule("results", align="left")
    for table in [*tables, report.perplexity_table(unigram, curves, len(valid[1]))]:
        console.print(table)
    path = out / "perplexity.png"
    title = f"Next token, {classes:,} classes, batches of {batch_size:,}"
    chart.save(path, curves, title, unigram)
    console.print(f"plot saved to {path}", soft_wrap=True)
