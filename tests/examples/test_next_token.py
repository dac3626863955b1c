"""The demo on a corpus of a few files: what it reads, what it reports, how it fails."""

import os
import subprocess
import sys

import numpy as np
import pytest

from examples.next_token import quality, report
from examples.next_token.__main__ import main, parser
from examples.next_token.corpus import CorpusError, load, source_files
from examples.next_token.windows import CONTEXT, Windows, input_ids

WORDS = ["zero", "one", "two", "three", "four", "five"]


@pytest.fixture
def folder(tmp_path):
    """Forty files of counting, one that repeats another, two that are no text."""
    rng = np.random.default_rng(0)
    root = tmp_path / "corpus"
    (root / "deep").mkdir(parents=True)
    for index in range(40):
        text = " ".join(WORDS[n % 6] for n in range(index, index + 60))
        text += f" only_{rng.integers(10**9)}."
        (root / "deep" / f"{index:02}.txt").write_text(text)
    (root / "repeat.txt").write_text((root / "deep" / "00.txt").read_text())
    (root / "latin.txt").write_bytes(b"caf\xe9")
    (root / "binary.txt").write_bytes(b"\0\1\2")
    return root


def perplexities(printed):
    """The last table's models and their perplexities."""
    rows = [line.split("│") for line in printed.split("perplexity,")[-1].splitlines()]
    return {
        row[1].split(",")[0].strip(): float(row[-2].replace(",", ""))
        for row in rows
        if len(row) == 6
    }


def test_the_corpus_counts_what_it_reads(folder):
    corpus = load(folder)
    assert (corpus.files_read, corpus.files_skipped) == (41, 2)
    assert corpus.files_repeated == 1
    assert corpus.num_tokens == 40 * 62
    assert len(corpus.valid) == 1
    assert len(corpus.train) == 39
    # Six words, the full stop, and 39 tokens that are in one training file only.
    assert corpus.num_classes == 7 + 39
    assert corpus.unseen == pytest.approx(1 / 62)


def test_what_is_no_file_or_cannot_be_opened_is_skipped(folder):
    os.mkfifo(folder / "pipe")
    (folder / "dangling").symlink_to(folder / "nowhere")
    assert load(folder).files_skipped == 4


def test_classes_are_ordered_by_frequency_in_training(folder):
    corpus = load(folder)
    counts = np.bincount(np.concatenate(corpus.train), minlength=corpus.num_classes)
    np.testing.assert_array_equal(counts, corpus.counts)
    assert (np.diff(counts) <= 0).all()
    assert set(corpus.vocabulary[:7]) == {*WORDS, "."}


def test_the_split_is_by_file_and_by_seed(folder):
    def held_out(seed):
        return [
            corpus.vocabulary[index]
            for corpus in [load(folder, seed)]
            for index in corpus.valid[0][:6]
        ]

    assert held_out(1) == held_out(1)
    assert len({tuple(held_out(seed)) for seed in range(8)}) > 1


def test_the_end_of_a_single_file_is_held_out(tmp_path):
    (tmp_path / "one.txt").write_text("a b c d " * 50)
    corpus = load(tmp_path)
    assert [len(part) for part in (*corpus.train, *corpus.valid)] == [194, 6]


def test_no_window_reaches_into_another_file():
    rare, start = input_ids(10)
    windows = Windows([np.array([1, 2]), np.array([3, 10, 4])], num_classes=10)
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
    for x, y in windows.training(batch_size=32, seed=0).take(3):
        assert x.shape == (32, CONTEXT)
        assert rows(x.numpy(), y.numpy()) <= known


def test_unigram_perplexity_is_that_of_the_frequencies():
    counts, targets = np.array([6, 3, 1]), np.array([0, 0, 2])
    expected = (0.6 * 0.6 * 0.1) ** (-1 / 3)
    assert report.unigram_perplexity(counts, targets) == pytest.approx(expected)


def test_the_demo_learns_and_reports(folder, tmp_path, capsys):
    out = tmp_path / "out" / "here"
    options = ["--corpus", folder, "--out", out, "--steps", 150, "--batch-size", 64]
    assert main([str(option) for option in [*options, "--num-sampled", 16]]) == 0
    printed = capsys.readouterr().out
    for words in [
        "files read",
        "46",
        "ms per step",
        "full softmax",
        "likeliest",
        "150",
    ]:
        assert words in printed
    perplexity = perplexities(printed)
    assert perplexity["sampled softmax"] < perplexity["unigram"] / 2
    assert (out / "perplexity.png").read_bytes().startswith(b"\x89PNG")


def run(*options):
    return subprocess.run(
        [sys.executable, "-m", "examples.next_token", *map(str, options)],
        capture_output=True,
        text=True,
    )


def test_an_empty_corpus_is_a_clear_error(tmp_path):
    (tmp_path / "binary").write_bytes(b"\0\1\2")
    result = run("--corpus", tmp_path, "--out", tmp_path / "out")
    assert result.returncode == 2
    assert "holds no text: 1 files found, 1 of them unreadable" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--steps", "0"], "0 is not 1 or more"),
        (["--minutes", "nan"], "nan is not 0.01 or more"),
        (["--batch-size", "many"], "invalid int value: 'many'"),
        (["--steps", "1", "--minutes", "1"], "not allowed with"),
    ],
)
def test_options_that_cannot_be(options, message, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(options)
    assert message in capsys.readouterr().err


def test_both_commands_say_what_they_do_by_default():
    for make in (parser, quality.parser):
        told = make().format_help()
        for default in ("1024", "1024", "0"):
            assert f"(default: {default})" in told
            told = told.replace(f"(default: {default})", "", 1)


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(CorpusError, match="is not a folder: pass one that holds text"):
        load(tmp_path / "nowhere")


def test_the_default_corpus_is_the_standard_library():
    names = {path.name for path in source_files(None)}
    assert {"argparse.py", "dataclasses.py"} <= names
    assert not any("site-packages" in path.parts for path in source_files(None))


@pytest.mark.slow
def test_the_standard_library_is_learnt_in_a_minute(tmp_path, capsys):
    assert main(["--minutes", "1", "--out", str(tmp_path)]) == 0
    rows = perplexities(capsys.readouterr().out)
    assert rows["sampled softmax"] < rows["unigram"] / 2
    assert rows["sampled softmax"] < rows["full softmax"] / 2
