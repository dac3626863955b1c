"""`python -m examples.next_token.optimizers` on a corpus of a few files."""

import numpy as np
import pytest

from examples.next_token.clock import Curve
from examples.next_token.optimizers import main, makers, seconds_until, table

WORDS = ["zero", "one", "two", "three", "four", "five"]


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "corpus"
    root.mkdir()
    for index in range(20):
        text = " ".join(WORDS[n % 6] for n in range(index, index + 60))
        (root / f"{index}.txt").write_text(f"{text} only_{index}")
    return root


@pytest.mark.slow
def test_each_optimizer_learns_to_count(folder, tmp_path, capsys):
    chart = tmp_path / "chart.svg"
    arguments = ["--corpus", str(folder), "--seconds", "10", "--batch-size", "64"]
    arguments += ["--learning-rate", "0.02", "--plot", str(chart)]
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    rows = [line.split("│") for line in printed.splitlines() if line.count("│") == 6]
    assert [row[1].strip() for row in rows] == list(makers(0.1))
    assert all(float(row[4].replace(",", "")) < 15 for row in rows)  # of 26 classes
    assert all(name in chart.read_text() for name in makers(0.1))


def test_when_a_goal_was_reached():
    curve = Curve("one", [1.0, 2.0, 3.0], [9.0, 4.0, 5.0], steps=3)
    assert seconds_until(curve, 5.0) == 2.0
    assert seconds_until(curve, 3.0) is None
    other = Curve("two", [1.0], [np.inf], steps=1)
    cells = list(table([curve, other]).columns[-1].cells)
    assert cells == ["2.0", "never"]


def test_a_corpus_without_text(tmp_path, capsys):
    assert main(["--corpus", str(tmp_path)]) == 2
    assert "holds no text" in capsys.readouterr().err
