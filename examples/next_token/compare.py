"""Two models, the same batches, as many steps: what the sampling costs in quality."""

from __future__ import annotations

import math
import statistics
from typing import Any

import keras
import tensorflow as tf
from rich.table import Table

from examples.next_token import clock, report
from examples.next_token.corpus import Corpus
from examples.next_token.model import full_model, sampled_model
from examples.next_token.windows import corpus_windows


def compare(
    corpus: Corpus, steps: int, batch_size: int, num_sampled: int, seed: int
) -> list[dict[str, Any]]:
    """Trains both models; a row of figures for each, and one for unigrams."""
    train, valid_windows = corpus_windows(corpus)
    valid = valid_windows.sample()
    num_sampled = min(num_sampled, corpus.num_classes)
    makers = {
        f"sampled softmax, {num_sampled:,}": lambda: sampled_model(
            corpus.num_classes, num_sampled, seed
        ),
        "full softmax": lambda: full_model(corpus.num_classes, seed),
    }
    times = clock.step_times(
        {name: make() for name, make in makers.items()},
        train.training(batch_size, seed),
    )
    rows = [
        {
            "model": "unigram",
            "steps": 0,
            "ms_per_step": None,
            "perplexity": report.unigram_perplexity(corpus.counts, valid[1]),
        }
    ]
    for name, make in makers.items():
        model = make()
        tf.random.set_seed(seed)  # the batches are shuffled alike
        batches = train.training(batch_size, seed)
        model.fit(batches, steps_per_epoch=steps, shuffle=False, verbose=2)
        loss = model.evaluate(*valid, batch_size=clock.VALID_BATCH, verbose=0)
        rows.append(
            {
                "model": name,
                "steps": steps,
                "ms_per_step": statistics.median(times[name]) * 1e3,
                "perplexity": math.exp(min(loss, 700)),
            }
        )
        keras.utils.clear_session(free_memory=False)
    return rows


def table(rows: list[dict[str, Any]], num_classes: int) -> Table:
    """The figures, each beside its ratio to the full softmax's."""
    full = rows[-1]
    table = Table(
        title=f"Exact validation perplexity, {num_classes:,} classes",
        title_justify="left",
    )
    for name in ("model", "steps", "perplexity", "ratio", "ms per step", "ratio"):
        table.add_column(name, justify="left" if name == "model" else "right")
    for row in rows:
        times = ["", ""]
        if row["ms_per_step"] is not None:
            ratio = row["ms_per_step"] / full["ms_per_step"]
            times = [f"{row['ms_per_step']:,.1f}", f"{ratio:.3f}"]
        table.add_row(
            row["model"],
            f"{row['steps']:,}",
            f"{row['perplexity']:,.2f}",
            f"{row['perplexity'] / full['perplexity']:.3f}",
            *times,
        )
    return table
