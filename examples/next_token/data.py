"""Source files to token ids to batches of (the tokens before, the next token)."""

from __future__ import annotations

import collections
import dataclasses
import math
import os
import pathlib
import re
import sysconfig

import numpy as np
import tensorflow as tf

TOKEN = re.compile(r"\w+|[^\w\s]")  # a word, or one symbol
VALIDATION_SHARE = 0.03  # of the files
CONTEXT = 12  # tokens before the one to predict
INPUT_WORDS = 32_768  # tokens told apart in the context; rarer ones share an id


class CorpusError(Exception):
    """There is nothing to train on."""


@dataclasses.dataclass(frozen=True)
class Corpus:
    """A tokenized corpus. Class ids are ordered by descending frequency in training.

    Attributes:
        train: The class ids of each training file.
        valid: The class ids of each held-out file; `num_classes` for a token that
            occurs in no training file.
        counts: How often each class occurs in `train`, `[num_classes]`.
    """

    train: list[np.ndarray]
    valid: list[np.ndarray]
    counts: np.ndarray

    @property
    def num_classes(self) -> int:
        return len(self.counts)

    def __str__(self) -> str:
        train, valid = (sum(map(len, files)) for files in (self.train, self.valid))
        return (
            f"{train:,} tokens in {len(self.train):,} training files, {valid:,} in "
            f"{len(self.valid):,} held-out files, {self.num_classes:,} classes"
        )


def load(folder: pathlib.Path | None = None, seed: int = 0) -> Corpus:
    """Reads and tokenizes a corpus and holds a few of its files out.

    A file with the same text as another one is left out, so that no held-out file is
    also a training file. Of a single file the end is held out.

    Args:
        folder: A folder of text files; None for the sources of Python's standard
            library.
        seed: Of the choice of the held-out files.

    Raises:
        CorpusError: if there is no text, or no held-out token occurs in a training
            file.
    """
    paths = source_files(folder)
    texts = dict.fromkeys(filter(None, map(read_text, paths)))
    ids: dict[str, int] = collections.defaultdict(lambda: len(ids))
    files = [
        np.fromiter(map(ids.__getitem__, TOKEN.findall(text)), np.int32)
        for text in texts
    ]
    files = [file for file in files if len(file)]
    if sum(map(len, files)) < 2:
        raise CorpusError(
            f"{folder or 'The standard library'} must hold files of text. Received: "
            f"{len(paths)} files, {len(files)} of them with text of their own."
        )
    corpus = number_by_frequency(*hold_out(files, np.random.default_rng(seed)))
    if all((file == corpus.num_classes).all() for file in corpus.valid):
        raise CorpusError("No held-out token occurs in the training files.")
    return corpus


def hold_out(
    files: list[np.ndarray], rng: np.random.Generator
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Splits files into training and held-out ones; a single file near its end."""
    if len(files) == 1:
        count = max(1, round(len(files[0]) * VALIDATION_SHARE))
        return [files[0][:-count]], [files[0][-count:]]
    count = max(1, round(len(files) * VALIDATION_SHARE))
    files = [files[index] for index in rng.permutation(len(files))]
    return files[count:], files[:count]


def source_files(folder: pathlib.Path | None) -> list[pathlib.Path]:
    """Every file under a folder, or the Python files of the standard library."""
    if folder is not None and not folder.is_dir():
        raise CorpusError(f"{folder} must be a folder.")
    root = folder or pathlib.Path(sysconfig.get_path("stdlib"))
    paths = sorted(
        pathlib.Path(parent, name)
        for parent, _, names in os.walk(root)
        for name in names
    )
    if folder is not None:
        return paths
    installed = {"site-packages", "dist-packages"}
    return [p for p in paths if p.suffix == ".py" and not installed & set(p.parts)]


def read_text(path: pathlib.Path) -> str | None:
    """The file's text, or None if it is not UTF-8 text."""
    try:
        text = path.read_text(encoding="utf-8") if path.is_file() else "\0"
    except (OSError, UnicodeDecodeError):
        return None
    return None if "\0" in text else text


def number_by_frequency(train: list[np.ndarray], valid: list[np.ndarray]) -> Corpus:
    """Renumbers ids by descending frequency in training; others get one last id."""
    size = 1 + max(int(file.max()) for file in [*train, *valid])
    counts = np.bincount(np.concatenate(train), minlength=size)
    order = np.argsort(-counts, kind="stable")[: np.count_nonzero(counts)]
    # counts = [2, 0, 5] -> order = [2, 0] -> new_ids = [1, 2, 0]
    new_ids = np.full(size, len(order), np.int32)
    new_ids[order] = np.arange(len(order))
    return Corpus(
        [new_ids[file] for file in train],
        [new_ids[file] for file in valid],
        counts[order],
    )


class Windows:
    """Windows of `CONTEXT` tokens and the next token; none crosses two files.

    Args:
        files: The class ids of each file.
        num_classes: Ids from here on are never a target.
    """

    def __init__(self, files: list[np.ndarray], num_classes: int) -> None:
        # The last two input ids are a rare token and the place before a file.
        rare = min(num_classes, INPUT_WORDS)
        before = np.full(CONTEXT, -1, np.int32)
        ids = np.concatenate([part for file in files for part in (before, file)])
        self.targets = ids
        self.inputs = np.where(ids < 0, rare + 1, np.minimum(ids, rare)).astype(
            np.int32
        )
        self.input_size = rare + 2
        self.positions = np.flatnonzero((ids >= 0) & (ids < num_classes))

    def sample(self, size: int) -> tuple[np.ndarray, np.ndarray]:
        """At most `size` contexts `[n, CONTEXT]` and targets `[n]`, evenly spaced."""
        count = min(size, len(self.positions))
        spaced = np.linspace(0, len(self.positions) - 1, count).astype(np.int64)
        positions = self.positions[spaced]
        contexts = positions[:, np.newaxis] + np.arange(-CONTEXT, 0)
        return self.inputs[contexts], self.targets[positions]

    def batches(self, batch_size: int, seed: int) -> tf.data.Dataset:
        """Batches of windows in random order, without end."""
        inputs, targets = tf.constant(self.inputs), tf.constant(self.targets)

        def cut(positions: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            before = tf.range(-CONTEXT, 0, dtype=tf.int64)
            contexts = tf.gather(inputs, positions[:, tf.newaxis] + before)
            return contexts, tf.gather(targets, positions)

        order = np.random.default_rng(seed).permutation(self.positions)
        batch_size = min(batch_size, len(order))
        order = order[: len(order) // batch_size * batch_size].reshape(-1, batch_size)
        return tf.data.Dataset.from_tensor_slices(order).repeat().map(cut).prefetch(4)


def unigram_perplexity(counts: np.ndarray, targets: np.ndarray) -> float:
    """The perplexity of a model that knows the classes' training frequencies alone."""
    log_probabilities = np.log(counts) - np.log(counts.sum())
    return math.exp(-log_probabilities[targets].mean())
