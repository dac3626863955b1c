"""The small examples run and learn."""

import json
import math

import numpy as np
import pytest

from examples import (
    crossover,
    functional,
    gru_language_model,
    training_step,
    two_tower,
)
from examples.next_token import quality


def test_the_functional_model_learns():
    result = functional.main(epochs=2, size=20_000)
    assert result["perplexity"] < functional.CLASSES / 20
    assert math.isclose(result["loss"], math.log(result["perplexity"]), rel_tol=1e-4)


def test_the_training_step_learns():
    before, after = training_step.main(steps=300)
    assert after < before / 3


@pytest.mark.slow
def test_the_language_model_learns_what_follows():
    # Two successors, of chances 0.7 and 0.3, are a perplexity of 1.84.
    assert gru_language_model.main(epochs=5, size=2000) < 4


@pytest.mark.slow
def test_the_two_towers_find_the_group():
    # By popularity alone, ten of 2,000 items in 50 groups are at most a tenth.
    assert two_tower.main(epochs=3, size=10_000)["top_10_accuracy"] > 0.5


@pytest.mark.slow
def test_the_crossover_is_measured_and_told(capsys):
    options = ["--classes", "50", "100", "--rounds", "2", "--num-sampled", "10"]
    assert crossover.main(options) == 0
    printed = capsys.readouterr().out
    assert "full / sampled" in printed
    assert "classes" in printed.splitlines()[-1]


def test_the_crossing_is_between_the_points():
    points = [(10, 2.0, 1.0), (20, 2.0, 1.5), (40, 2.0, 2.5)]
    assert crossover.crossing(points) == 30
    assert crossover.crossing(points[:2]) is None


@pytest.mark.slow
def test_quality_compares_the_same_steps(tmp_path, capsys):
    rng = np.random.default_rng(0)
    for index in range(30):
        words = " ".join(f"w{n % 9}" for n in range(index, index + 60))
        (tmp_path / f"{index}.txt").write_text(f"{words} only_{rng.integers(10**9)}")
    out = tmp_path / "quality.json"
    options = ["--corpus", tmp_path, "--steps", 60, "--batch-size", 64, "--json", out]
    assert quality.main([*map(str, options), "--num-sampled", "16"]) == 0
    unigram, sampled, full = json.loads(out.read_text())
    assert sampled["steps"] == full["steps"] == 60
    assert sampled["perplexity"] < unigram["perplexity"] / 2
    assert "full softmax" in capsys.readouterr().out


def test_quality_needs_text(tmp_path, capsys):
    assert quality.main(["--corpus", str(tmp_path)]) == 2
    assert "error:" in capsys.readouterr().err
