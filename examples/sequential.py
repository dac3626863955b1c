"""Trains SASRec on interactions, by the protocol of Klenitskiy and Vasilev (2023).

    python -m examples.sequential FILE
    python -m examples.sequential FILE --loss mixed --num-sampled 3000 --epochs 6

A line of FILE is "user item", in time order for each user. Of each user the last item
is for the test, the one before it for validation. All items are ranked; those that the
user has seen are left out. Validation is on 10,000 users. Hyperparameters: hidden 64,
2 blocks, 1 head, dropout 0.1, length 50, batch 128, Adam (here `LazyAdam`) with 1e-3,
patience 10. Initial weights and epsilon are those of the authors' code, which runs on
PyTorch. A run that was interrupted goes on if it is given the same `--backup` folder;
the best weights and the patience are then those of the epochs since.

Most histories are short, so several share a row, and each attends only to itself. The
loss is that of one row for each history, with less padding.

Reference: https://arxiv.org/abs/2309.07602,
https://github.com/antklen/sasrec-bert4rec-recsys23
"""

from __future__ import annotations

import argparse
import json
import math
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf

from tfsampled.layers import SampledSoftmax
from tfsampled.metrics import NDCG, TopKAccuracy
from tfsampled.models import SampledSoftmaxModel
from tfsampled.optimizers import LazyAdam
from tfsampled.samplers import FixedUnigram, InBatch, LogUniform, Mixed, Recent, Uniform

HIDDEN, BLOCKS, HEADS, DROPOUT = 64, 2, 1, 0.1
LENGTH, BATCH, RATE, EPSILON, PATIENCE = 50, 128, 1e-3, 1e-8, 10
EVALUATION_BATCH, VALIDATION_USERS = 256, 10_000
LOSSES = (
    "full",
    "uniform",
    "log_uniform",
    "fixed_unigram",
    "in_batch",
    "recent",
    "mixed",
)


def read(path: Path) -> tuple[list[np.ndarray], int]:
    """Reads the items of each user, renumbered from 1 on by falling frequency.

    Returns:
        The sequences, and the number of classes: the items, and 0 for padding.
    """
    users, items = np.loadtxt(path, dtype=np.int64, usecols=(0, 1)).T
    _, items, counts = np.unique(items, return_inverse=True, return_counts=True)
    rank = np.empty(len(counts), np.int64)
    rank[np.argsort(-counts, kind="stable")] = np.arange(1, len(counts) + 1)
    order = np.argsort(users, kind="stable")
    starts = np.flatnonzero(np.diff(users[order])) + 1
    return np.split(rank[items][order], starts), len(counts) + 1


def pack(sequences: list[np.ndarray]) -> dict[str, np.ndarray]:
    """Puts sequences into rows of `LENGTH`, each into the first row with room for it.

    Returns:
        The items as "history", "positions" and "segments", each `[rows, LENGTH]`.
        Positions start at 0; segments number the sequences of a row from 1 on.
    """
    # [7, 8], [5], length 4 -> history [[7, 8, 5, 0]], positions [[0, 1, 0, 0]],
    # segments [[1, 1, 2, 0]]
    history, positions, segments = np.zeros((3, len(sequences), LENGTH), np.int32)
    filled = np.zeros(len(sequences), int)
    for sequence in sorted(sequences, key=len, reverse=True):
        row = np.argmax(filled + len(sequence) <= LENGTH)
        place = row, slice(filled[row], filled[row] + len(sequence))
        history[place] = sequence
        positions[place] = np.arange(len(sequence))
        segments[place] = segments[row].max() + 1
        filled[row] += len(sequence)
    rows = np.count_nonzero(filled)
    return {
        "history": history[:rows],
        "positions": positions[:rows],
        "segments": segments[:rows],
    }


def pad(sequences: list[np.ndarray], length: int) -> np.ndarray:
    """Returns the last `length` items of each sequence, with 0 before them."""
    padded = np.zeros((len(sequences), length), np.int32)
    for row, sequence in zip(padded, sequences, strict=True):
        last = sequence[-length:]
        row[length - len(last) :] = last
    return padded


class TrainingBatches(keras.utils.PyDataset):
    """Batches of shuffled sequences: inputs, and the item that follows each.

    Args:
        sequences: The items of each user.
        seed: Of the order, which starts anew in a run that goes on.
    """

    def __init__(self, sequences: list[np.ndarray], seed: int) -> None:
        super().__init__()
        self.sequences = [one[-LENGTH - 1 :] for one in sequences if len(one) > 1]
        self._random = np.random.default_rng(seed)
        self.on_epoch_end()

    def __len__(self) -> int:
        return math.ceil(len(self.sequences) / BATCH)

    def __getitem__(self, index: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
        chosen = self._order[index * BATCH : (index + 1) * BATCH]
        batch = [self.sequences[one] for one in chosen]
        # As long as the inputs, so in the same places.
        labels = pack([one[1:] for one in batch])["history"]
        return pack([one[:-1] for one in batch]), labels

    def on_epoch_end(self) -> None:
        self._order = self._random.permutation(len(self.sequences))


def evaluation_batches(sequences: list[np.ndarray], last: int) -> tf.data.Dataset:
    """Returns batches of users with similar numbers of items, and the item to predict.

    Not a `PyDataset`: of that Keras takes the first batches' lengths as those of all.

    Args:
        sequences: The items of each user.
        last: Which of them is to be predicted: -1 for the last.
    """
    by_length = sorted(sequences, key=len)

    def batches() -> Iterator[tuple[dict[str, np.ndarray], np.ndarray]]:
        for start in range(0, len(by_length), EVALUATION_BATCH):
            batch = by_length[start : start + EVALUATION_BATCH]
            seen = [one[:last] for one in batch]
            longest = max(map(len, seen))
            history = pad(seen, min(longest, LENGTH))
            segments = np.sign(history)
            inputs = {
                "history": history,
                "positions": np.maximum(np.cumsum(segments, axis=1) - 1, 0),
                "segments": segments,
                "seen": pad(seen, longest),
            }
            yield inputs, np.array([one[last] for one in batch])

    lists = tf.TensorSpec([None, None], tf.int32)
    names = ("history", "positions", "segments", "seen")
    signature = dict.fromkeys(names, lists), tf.TensorSpec([None], tf.int64)
    dataset = tf.data.Dataset.from_generator(batches, output_signature=signature)
    num_batches = math.ceil(len(sequences) / EVALUATION_BATCH)
    return dataset.apply(tf.data.experimental.assert_cardinality(num_batches))


def normal() -> keras.initializers.Initializer:
    """Returns the reference's initializer, each time with another seed."""
    return keras.initializers.RandomNormal(stddev=0.02)


class AttentionInitializer(keras.initializers.Initializer):
    """Draws the kernels of attention as the reference does.

    PyTorch draws those of query, key and value as one `[3 * HIDDEN, HIDDEN]`, by
    Glorot's bound. That of the output is drawn like other layers'.
    """

    def __call__(self, shape: tuple[int, ...], dtype: Any = None) -> Any:
        if shape == (HEADS, HIDDEN // HEADS, HIDDEN):
            return normal()(shape, dtype)
        bound = math.sqrt(6 / (4 * HIDDEN))
        return keras.initializers.RandomUniform(-bound, bound)(shape, dtype)


def encoders(num_classes: int) -> tuple[keras.Model, keras.Model, Any]:
    """Returns SASRec for all positions and for the last, and its item embedding."""
    inputs = {
        name: keras.Input((None,), dtype="int32", name=name)
        for name in ("history", "positions", "segments")
    }
    items = keras.layers.Embedding(num_classes, HIDDEN, normal())
    positions = keras.layers.Embedding(LENGTH, HIDDEN, normal())(inputs["positions"])
    segments = inputs["segments"]
    same_segment = keras.ops.equal(segments[:, :, None], segments[:, None, :])
    x = items(inputs["history"]) * math.sqrt(HIDDEN) + positions
    x = keras.layers.Dropout(DROPOUT)(x)
    for _ in range(BLOCKS):
        query = keras.layers.LayerNormalization(epsilon=1e-8)(x)
        attention = keras.layers.MultiHeadAttention(
            HEADS,
            HIDDEN // HEADS,
            dropout=DROPOUT,
            kernel_initializer=AttentionInitializer(),
        )
        x = query + attention(
            query, x, attention_mask=same_segment, use_causal_mask=True
        )
        x = keras.layers.LayerNormalization(epsilon=1e-8)(x)
        hidden = keras.layers.Dense(HIDDEN, "relu", kernel_initializer=normal())(x)
        hidden = keras.layers.Dropout(DROPOUT)(hidden)
        hidden = keras.layers.Dense(HIDDEN, kernel_initializer=normal())(hidden)
        x = x + keras.layers.Dropout(DROPOUT)(hidden)
    x = keras.layers.LayerNormalization(epsilon=1e-8)(x)
    return keras.Model(inputs, x), keras.Model(inputs, x[:, -1]), items


class FullSoftmaxModel(SampledSoftmaxModel):
    """Trains on the exact loss."""

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Any:
        return super().compute_loss(x, y, y_pred, sample_weight, training=False)


def make_head(
    loss: str, num_sampled: int, log_q: str, counts: np.ndarray, items: Any
) -> SampledSoftmax:
    """Returns the head of a loss."""
    counts = np.maximum(counts, 1)
    sampler: Any = {
        "full": Uniform,
        "uniform": Uniform,
        "log_uniform": LogUniform,
        "fixed_unigram": lambda: FixedUnigram(counts, 0.75),
        "in_batch": InBatch,
        "recent": lambda: Recent(num_sampled),
        "mixed": lambda: Mixed([InBatch(), (Uniform(), num_sampled)]),
    }[loss]()
    brings_own = loss in ("in_batch", "recent", "mixed")
    return SampledSoftmax(
        len(counts),
        None if brings_own else num_sampled,
        sampler,
        log_q=None if log_q == "none" else log_q,
        tied_to=items,
        use_bias=False,
        ignore_class=0,
    )


class Evaluate(keras.callbacks.Callback):
    """Adds the validation metrics of another model and the epoch's seconds to logs."""

    def __init__(self, model: keras.Model, data: tf.data.Dataset) -> None:
        super().__init__()
        self._evaluated, self._data = model, data
        self.seconds: list[float] = []
        self.num_epochs = 0  # with those before an interruption

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._start = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.seconds.append(time.perf_counter() - self._start)
        self.num_epochs = epoch + 1
        loss = logs["loss"]
        logs.update(evaluate(self._evaluated, self._data))
        print(
            f"epoch {epoch + 1}: loss {loss:.4f}, {self.seconds[-1]:.0f} s, "
            f"validation HR@10 {logs['hr_10']:.4f}, NDCG@10 {logs['ndcg_10']:.4f}",
            flush=True,
        )


def evaluate(model: keras.Model, data: tf.data.Dataset) -> dict[str, float]:
    """Returns HR@10 and NDCG@10 over all items but those seen."""
    return model.evaluate(data, verbose=0, return_dict=True)


def median_step_ms(
    model: keras.Model, batches: TrainingBatches, steps: int = 30, warm_up: int = 5
) -> float:
    """Returns the median milliseconds of a training step, batches being ready."""
    data = [batches[index % len(batches)] for index in range(warm_up + steps)]
    data = [(tf.nest.map_structure(tf.constant, x), tf.constant(y)) for x, y in data]
    seconds = []
    for x, y in data:
        start = time.perf_counter()
        model.train_on_batch(x, y)
        seconds.append(time.perf_counter() - start)
    return 1e3 * float(np.median(seconds[warm_up:]))


def main(
    path: Path,
    loss: str = "uniform",
    num_sampled: int = 3000,
    log_q: str = "standard",
    epochs: int = 1000,
    backup: str | None = None,
    seed: int = 0,
    time_steps: bool = False,
) -> dict[str, Any]:
    """Trains until the validation NDCG has not grown for 10 epochs; returns a row.

    With `time_steps` it times a few training steps instead.
    """
    keras.utils.set_random_seed(seed)
    sequences, num_classes = read(path)
    sequences = [one for one in sequences if len(one) > 2]
    batches = TrainingBatches([one[:-2] for one in sequences], seed)
    labels = np.concatenate([one[1:] for one in batches.sequences])
    counts = np.bincount(labels, minlength=num_classes)
    every_position, last_position, items = encoders(num_classes)
    head = make_head(loss, num_sampled, log_q, counts, items)
    kind = FullSoftmaxModel if loss == "full" else SampledSoftmaxModel
    model = kind(every_position, head)
    model.compile(LazyAdam(RATE, epsilon=EPSILON), jit_compile=False)
    row = {"loss": loss, "num_sampled": num_sampled, "log_q": log_q}
    if time_steps:
        return {**row, "step_ms": median_step_ms(model, batches)}
    ranked = SampledSoftmaxModel(last_position, head, exclude="seen")
    metrics = [TopKAccuracy(10, name="hr_10"), NDCG(10)]
    ranked.compile(metrics=metrics, jit_compile=False)
    users = np.random.default_rng(seed).permutation(len(sequences))
    validation = [sequences[one] for one in users[:VALIDATION_USERS]]
    evaluation = Evaluate(ranked, evaluation_batches(validation, -2))
    stopping = keras.callbacks.EarlyStopping(
        "ndcg_10", mode="max", patience=PATIENCE, restore_best_weights=True
    )
    callbacks: list[Any] = [evaluation, stopping]
    if backup is not None:
        callbacks.append(keras.callbacks.BackupAndRestore(backup))
    model.fit(batches, epochs=epochs, verbose=0, callbacks=callbacks)
    logs = evaluate(ranked, evaluation_batches(sequences, -1))
    return {
        **row,
        "epochs": evaluation.num_epochs,
        "best_epoch": stopping.best_epoch + 1,
        "seconds_per_epoch": float(np.median(evaluation.seconds)),
        "hr_10": logs["hr_10"],
        "ndcg_10": logs["ndcg_10"],
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path, help='lines "user item" in time order')
    parser.add_argument("--loss", choices=LOSSES, default="uniform")
    parser.add_argument("--num-sampled", type=int, default=3000)
    parser.add_argument(
        "--log-q", choices=["standard", "corrected", "none"], default="standard"
    )
    parser.add_argument("--epochs", type=int, default=1000, help="at most so many")
    parser.add_argument("--backup", help="folder to go on from")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--time-steps", action="store_true", help="time some training steps instead"
    )
    parser.add_argument("--json", type=Path, help="file to add the result to")
    options = vars(parser.parse_args())
    record = options.pop("json")
    row = main(options.pop("file"), **options)
    print(json.dumps(row))
    if record is not None:
        with record.open("a") as file:
            file.write(json.dumps(row) + "\n")
