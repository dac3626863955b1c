"""The small examples run and learn."""

import math
import subprocess
import sys

import numpy as np
import pytest

from examples import (
    crossover,
    functional,
    gru_language_model,
    item_towers,
    keras_hub_decoder,
    sequential,
    training_step,
    two_tower,
)


@pytest.mark.slow
def test_functional_model_learns():
    result = functional.main(epochs=2, size=20_000)
    assert result["perplexity"] < functional.CLASSES / 20
    assert math.isclose(result["loss"], math.log(result["perplexity"]), rel_tol=1e-4)


def test_training_step_learns():
    before, after = training_step.main(steps=300)
    assert after < before / 3


@pytest.mark.slow
@pytest.mark.parametrize("loss", sequential.LOSSES)
def test_sasrec_learns_what_follows(loss, tmp_path, monkeypatch):
    """Of 40 items each is followed by the next, but those seen are left out."""
    rng = np.random.default_rng(1)
    lines = [
        f"{user} {(start + step) % 40}"
        for user, start in enumerate(rng.integers(0, 40, 200))
        for step in range(8)
    ]
    path = tmp_path / "interactions.txt"
    path.write_text("\n".join(lines))
    monkeypatch.setattr(sequential, "LENGTH", 8)
    monkeypatch.setattr(sequential, "RATE", 0.01)
    row = sequential.main(path, loss, num_sampled=20, epochs=8)
    assert row["epochs"] == 8
    assert row["ndcg_10"] > 0.8


@pytest.mark.slow
def test_language_model_learns_the_successors():
    # Two successors of probabilities 0.7 and 0.3 are a perplexity of 1.84.
    assert gru_language_model.main(epochs=5, size=2000) < 4


@pytest.mark.slow
def test_a_keras_hub_decoder_learns_to_repeat():
    pytest.importorskip("keras_hub")
    results = keras_hub_decoder.main(vocabulary=200, steps=150)
    # A token is repeated in half of the steps; guessing by frequency gives about 100.
    assert results["full"]["perplexity"] < 50
    assert results["sampled"]["perplexity"] < 50


@pytest.mark.slow
def test_two_towers_find_the_group():
    # By popularity alone, ten of 2,000 items in 50 groups are at most a tenth.
    assert two_tower.main(epochs=3, size=10_000)["top_10_accuracy"] > 0.5


@pytest.mark.slow
def test_item_towers_find_new_items():
    # Of 3,000 items in 60 tags ten of the right tag are a fifth.
    results = item_towers.main(epochs=3, size=10_000)
    assert results["new items"]["hr_10"] > 0.3
    assert results["all items"]["hr_10"] > 0.5


@pytest.mark.slow
def test_crossover_command(capsys):
    options = ["--classes", "50", "100", "--rounds", "2", "--num-sampled", "10"]
    assert crossover.main(options) == 0
    printed = capsys.readouterr().out
    assert "full / sampled" in printed
    assert "classes" in printed.splitlines()[-1]


def test_crossing_is_between_the_points():
    points = [(10, 2.0, 1.0), (20, 2.0, 1.5), (40, 2.0, 2.5)]
    assert crossover.crossing(points) == 30
    assert crossover.crossing(points[:2]) is None


@pytest.mark.slow
@pytest.mark.usefixtures("network")
@pytest.mark.parametrize(
    ("name", "of"),
    [
        ("replicas", "a weight"),
        ("workers", "a weight"),
        ("class_parallel", "an example"),
        ("servers", "an example"),
    ],
)
def test_distributed_training_is_that_of_one_device(name, of):
    command = [sys.executable, "-m", f"examples.distributed.{name}"]
    output = subprocess.run(
        command, check=True, capture_output=True, text=True, timeout=300
    ).stdout
    _, _, found = output.partition(f"largest difference of {of}: ")
    assert float(found.split()[0]) < 1e-5
