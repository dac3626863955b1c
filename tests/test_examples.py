"""The small examples run and learn."""

import math

from examples import functional, gru_language_model, training_step, two_tower


def test_the_functional_model_learns():
    result = functional.main(epochs=2, size=20_000)
    assert result["perplexity"] < functional.CLASSES / 20
    assert result["loss"] == math.log(result["perplexity"]) or result["loss"] > 0


def test_the_training_step_learns():
    before, after = training_step.main(steps=150)
    assert after < before / 3


def test_the_language_model_learns_what_follows():
    # Two successors, of chances 0.7 and 0.3, are a perplexity of 1.84.
    assert gru_language_model.main(epochs=3, size=2000) < 4


def test_the_two_towers_find_the_group():
    # By popularity alone, ten of 2,000 items in 50 groups are at most a tenth.
    assert two_tower.main(epochs=3, size=10_000)["top_10_accuracy"] > 0.5
