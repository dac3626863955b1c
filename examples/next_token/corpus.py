"""Files to token ids: read, tokenise, split by file, number by frequency."""

from __future__ import annotations

import collections
import dataclasses
import os
import pathlib
import re
import sysconfig

import numpy as np

TOKEN = re.compile(r"\w+|[^\w\s]")  # a word, or one symbol
HELD_OUT = 0.03  # of the files


class CorpusError(Exception):
    """There is nothing to train on; the message says why."""


@dataclasses.dataclass(frozen=True)
class Corpus:
    """A tokenised corpus. Class ids are ordered by falling frequency in training.

    `train` and `valid` hold an array of ids for each file; in `valid`, a token that the
    training files never show is `len(vocabulary)`.
    """

    train: list[np.ndarray]
    valid: list[np.ndarray]
    vocabulary: list[str]
    counts: np.ndarray  # of the classes in training, [num_classes]
    files_read: int
    files_skipped: int
    files_repeated: int

    @property
    def num_classes(self) -> int:
        return len(self.vocabulary)

    @property
    def num_tokens(self) -> int:
        return sum(map(len, self.train)) + sum(map(len, self.valid))

    @property
    def unseen(self) -> float:
        """Share of the held-out tokens that the training files never show."""
        return float(np.mean(np.concatenate(self.valid) == self.num_classes))


def source_files(folder: pathlib.Path | None) -> list[pathlib.Path]:
    """Every file under `folder`; the standard library's sources if it is None."""
    if folder is not None:
        if not folder.is_dir():
            raise CorpusError(f"{folder} is not a folder: pass one that holds text.")
        return _files(folder)
    library = pathlib.Path(sysconfig.get_path("stdlib"))
    return [
        path
        for path in _files(library)
        if path.suffix == ".py"
        and not {"site-packages", "dist-packages"} & set(path.parts)
    ]


def _files(folder: pathlib.Path) -> list[pathlib.Path]:
    return sorted(
        pathlib.Path(root, name) for root, _, names in os.walk(folder) for name in names
    )


def read_text(path: pathlib.Path) -> str | None:
    """The file's text, or None where it cannot be read as UTF-8 text."""
    try:
        if not path.is_file():  # a pipe would be waited for
            return None
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None
    return None if "\0" in text else text


def load(folder: pathlib.Path | None = None, seed: int = 0) -> Corpus:
    """Reads and tokenises a corpus and holds a few of its files out.

    A file that repeats another's text is left out, so that no held-out file is also a
    training file. Where there is only one file, its end is held out.
    """
    paths = source_files(folder)
    table: dict[str, int] = collections.defaultdict(lambda: len(table))
    texts: set[str] = set()
    files: list[np.ndarray] = []
    skipped = repeated = 0
    for path in paths:
        text = read_text(path)
        if text is None:
            skipped += 1
            continue
        if text in texts:
            repeated += 1
            continue
        texts.add(text)
        ids = np.fromiter(map(table.__getitem__, TOKEN.findall(text)), np.int32)
        if len(ids):
            files.append(ids)
    if sum(map(len, files)) < 2:
        raise CorpusError(
            f"{folder or 'the standard library'} holds no text: {len(paths)} files "
            f"found, {skipped} of them unreadable. Pass --corpus a folder of text."
        )
    train, valid = _split(files, seed)
    return Corpus(
        *_by_frequency(train, valid, list(table)),
        files_read=len(paths) - skipped,
        files_skipped=skipped,
        files_repeated=repeated,
    )


def _split(
    files: list[np.ndarray], seed: int
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    if len(files) == 1:
        end = max(1, round(len(files[0]) * HELD_OUT))
        return [files[0][:-end]], [files[0][-end:]]
    count = max(1, round(len(files) * HELD_OUT))
    order = np.random.default_rng(seed).permutation(len(files))
    held_out = set(order[:count].tolist())
    train = [ids for index, ids in enumerate(files) if index not in held_out]
    return train, [files[index] for index in sorted(held_out)]


def _by_frequency(
    train: list[np.ndarray], valid: list[np.ndarray], words: list[str]
) -> tuple[list[np.ndarray], list[np.ndarray], list[str], np.ndarray]:
    """Renumbers ids by falling frequency in training; the rest become one last id."""
    counts = np.bincount(np.concatenate(train), minlength=len(words))
    order = np.argsort(-counts, kind="stable")
    order = order[: np.count_nonzero(counts)]
    new = np.full(len(words), len(order), np.int32)
    new[order] = np.arange(len(order), dtype=np.int32)
    return (
        [new[ids] for ids in train],
        [new[ids] for ids in valid],
        [words[index] for index in order],
        counts[order],
    )
