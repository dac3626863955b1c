"""Token ids to batches of (the tokens before, the next token)."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from examples.next_token.corpus import Corpus, CorpusError

CONTEXT = 12  # tokens before the one to predict
INPUT_WORDS = 32_768  # tokens told apart in the context; the rest are one
VALID_SIZE = 4096  # held-out tokens for every perplexity


class Windows:
    """Windows over files, none of which reaches from one file into another.

    Args:
        files: An array of class ids for each file.
        num_classes: Ids from here up are never a target (tokens not seen in training).
    """

    def __init__(self, files: list[np.ndarray], num_classes: int) -> None:
        rare, start = input_ids(num_classes)
        gap = np.full(CONTEXT, -1, np.int32)
        ids = np.concatenate([part for file in files for part in (gap, file)])
        self.targets = ids
        self.inputs = np.where(ids < 0, start, np.minimum(ids, rare)).astype(np.int32)
        self.positions = np.flatnonzero((ids >= 0) & (ids < num_classes))

    def training(self, batch_size: int, seed: int) -> tf.data.Dataset:
        """Batches in random order, again and again."""
        order = np.random.default_rng(seed).permutation(self.positions)
        batch_size = min(batch_size, len(order))
        order = order[: len(order) // batch_size * batch_size]
        batches = tf.data.Dataset.from_tensor_slices(order.reshape(-1, batch_size))
        batches = batches.shuffle(len(order) // batch_size, seed=seed).repeat()
        return batches.map(self._cut()).prefetch(4)

    def at(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Contexts `[n, CONTEXT]` and next tokens `[n]` at these positions."""
        contexts = positions[:, np.newaxis] + np.arange(-CONTEXT, 0)
        return self.inputs[contexts], self.targets[positions]

    def sample(self, size: int = VALID_SIZE) -> tuple[np.ndarray, np.ndarray]:
        """At most `size` contexts and next tokens, evenly spaced."""
        count = min(size, len(self.positions))
        where = np.linspace(0, len(self.positions) - 1, count).astype(np.int64)
        return self.at(self.positions[where])

    def text_before(self, position: int, vocabulary: list[str], length: int = 8) -> str:
        """The last tokens before a position, a rare one as itself."""
        ids = self.targets[position - length : position]
        words = [*vocabulary, "<unseen>"]
        return " ".join(words[index] for index in ids if index >= 0)

    def _cut(self):
        inputs, targets = tf.constant(self.inputs), tf.constant(self.targets)
        before = tf.range(-CONTEXT, 0, dtype=tf.int64)

        def cut(positions: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            contexts = tf.gather(inputs, positions[:, tf.newaxis] + before)
            return contexts, tf.gather(targets, positions)

        return cut


def input_ids(num_classes: int) -> tuple[int, int]:
    """The two last input ids: a rare token, and the place before a file."""
    rare = min(num_classes, INPUT_WORDS)
    return rare, rare + 1


def corpus_windows(corpus: Corpus) -> tuple[Windows, Windows]:
    """The windows to train on and the held-out ones.

    Raises:
        CorpusError: There is no held-out token that could be predicted.
    """
    train, valid = (
        Windows(files, corpus.num_classes) for files in (corpus.train, corpus.valid)
    )
    if not len(valid.positions):
        raise CorpusError(
            "no held-out token occurs in the training files, so there is nothing to "
            "validate on: pass --corpus a folder with more text."
        )
    return train, valid
