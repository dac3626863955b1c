"""The demo on a corpus of a few files: what it reads, reports and refuses."""

import os

import numpy as np
import pytest

from examples.next_token import __main__ as demo
from examples.next_token.data import (
    CONTEXT,
    CorpusError,
    Windows,
    load,
    source_files,
    unigram_perplexity,
)
from examples.next_token.train import Curve

WORDS = ["zero", "one", "two", "three", "four", "five"]


@pytest.fixture
def folder(tmp_path):
    """Forty files of counting, one that repeats another, four that are no text."""
    root = tmp_path / "corpus"
    (root / "deep").mkdir(parents=True)
    for index in range(40):
        text = " ".join(WORDS[n % 6] for n in range(index, index + 60))
        (root / "deep" / f"{index:02}.txt").write_text(f"{text} only_{index}.")
    (root / "repeat.txt").write_text((root / "deep" / "00.txt").read_text())
    (root / "latin.txt").write_bytes(b"caf\xe9")
    (root / "binary.txt").write_bytes(b"\0\1\2")
    os.mkfifo(root / "pipe")
    (root / "dangling").symlink_to(root / "nowhere")
    return root


def test_corpus(folder):
    corpus = load(folder)
    assert len(corpus.train) == 39
    assert len(corpus.valid) == 1
    assert {len(file) for file in [*corpus.train, *corpus.valid]} == {62}
    # Six words, the full stop, and 39 tokens that are in one training file only.
    assert corpus.num_classes == 7 + 39
    assert (corpus.valid[0] == corpus.num_classes).sum() == 1
    assert f"{39 * 62:,} tokens in 39 training files, 62 in 1 held-out" in str(corpus)


def test_classes_are_ordered_by_frequency(folder):
    corpus = load(folder)
    counts = np.bincount(np.concatenate(corpus.train), minlength=corpus.num_classes)
    np.testing.assert_array_equal(counts, corpus.counts)
    assert (np.diff(counts) <= 0).all()


def test_held_out_files_depend_on_the_seed(folder):
    def held_out(seed):
        return tuple(load(folder, seed).valid[0])

    assert held_out(1) == held_out(1)
    assert len({held_out(seed) for seed in range(8)}) > 1


def test_the_end_of_a_single_file_is_held_out(tmp_path):
    (tmp_path / "one.txt").write_text("a b c d " * 50)
    corpus = load(tmp_path)
    assert [len(part) for part in (*corpus.train, *corpus.valid)] == [194, 6]


@pytest.mark.slow
def test_the_default_corpus_is_the_standard_library():
    paths = source_files(None)
    assert {"argparse.py", "dataclasses.py"} <= {path.name for path in paths}
    assert not any("site-packages" in path.parts for path in paths)


def test_no_window_crosses_files():
    windows = Windows([np.array([1, 2]), np.array([3, 10, 4])], num_classes=10)
    rare, start = 10, 11
    contexts, targets = windows.sample(100)
    np.testing.assert_array_equal(targets, [1, 2, 3, 4])  # 10 is no class
    expected = [[], [1], [], [3, rare]]
    for context, tokens in zip(contexts, expected, strict=True):
        padding = [start] * (CONTEXT - len(tokens))
        np.testing.assert_array_equal(context, padding + tokens)


def test_batches_are_windows(folder):
    corpus = load(folder)
    windows = Windows(corpus.train, corpus.num_classes)

    def rows(x, y):
        return {(*context, target) for context, target in zip(x, y, strict=True)}

    known = rows(*windows.sample(10**6))
    for x, y in windows.batches(batch_size=32, seed=0).take(3):
        assert x.shape == (32, CONTEXT)
        assert rows(x.numpy(), y.numpy()) <= known


def test_unigram_perplexity():
    counts, targets = np.array([6, 3, 1]), np.array([0, 0, 2])
    expected = (0.6 * 0.6 * 0.1) ** (-1 / 3)
    assert unigram_perplexity(counts, targets) == pytest.approx(expected)


def test_seconds_until():
    curve = Curve("one", [1.0, 2.0, 3.0], [9.0, 4.0, 5.0], [0.1])
    assert curve.seconds_until(5.0) == 2.0
    assert curve.seconds_until(3.0) is None
    other = Curve("two", [1.0], [np.inf], [0.1])
    assert [row.split()[-1] for row in demo.table([curve, other]).splitlines()[1:]] == [
        "2.0",
        "never",
    ]


def test_demo_learns_and_reports(folder, tmp_path, capsys):
    plot = tmp_path / "out" / "here" / "plot.svg"
    arguments = ["--corpus", folder, "--plot", plot, "--steps", 60]
    arguments += ["--batch-size", 64, "--num-sampled", 16]
    assert demo.main([str(argument) for argument in arguments]) == 0
    printed = capsys.readouterr().out
    rows = [line.split() for line in printed.splitlines() if " softmax, " in line]
    ends = {" ".join(row[:-5]): row for row in rows[-3:]}
    assert list(ends) == [
        "full softmax, Keras Adam",
        "sampled softmax, Keras Adam",
        "sampled softmax, LazyAdam",
    ]
    for name, (*_, steps, _ms, _seconds, perplexity, _until) in ends.items():
        assert steps == "60"
        assert float(perplexity) < 4  # of 46 classes; by frequency 8.3
        assert name in plot.read_text()


def test_corpus_without_text_raises(tmp_path, capsys):
    (tmp_path / "binary").write_bytes(b"\0\1\2")
    plot = tmp_path / "plot.png"
    assert demo.main(["--corpus", str(tmp_path), "--plot", str(plot)]) == 2
    error = capsys.readouterr().err
    assert "must hold files of text. Received: 1 files, 0 of them" in error
    with pytest.raises(CorpusError, match="must be a folder"):
        load(tmp_path / "nowhere")


def test_unwritable_plot_fails_before_training(folder, tmp_path, capsys):
    (tmp_path / "file").touch()
    plot = tmp_path / "file" / "plot.png"
    assert demo.main(["--corpus", str(folder), "--plot", str(plot)]) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith("error: ")
    assert printed.out == ""


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--steps", "0"], "0 is not 1 or more"),
        (["--seconds", "nan"], "nan is not a positive number"),
        (["--batch-size", "many"], "invalid positive_int value: 'many'"),
        (["--steps", "1", "--seconds", "1"], "not allowed with"),
    ],
)
def test_invalid_options_raise(options, message, capsys):
    with pytest.raises(SystemExit, match="2"):
        demo.main(options)
    assert message in capsys.readouterr().err


@pytest.mark.slow
def test_sampling_learns_the_standard_library_faster(tmp_path, capsys):
    options = demo.parser().parse_args(["--seconds", "20"])
    options.plot = tmp_path / "plot.png"
    full, sampled, lazy = (curve.perplexity[-1] for curve in demo.run(options))
    assert sampled < full / 2
    assert lazy < full / 2
