"""What a step of the exact softmax needs beyond its inputs, in fresh processes."""

import pytest

from benchmarks import fresh

MIB = 2**20
pytestmark = pytest.mark.slow


def test_loss_and_gradients_need_the_gradient_of_the_table_and_64_mib():
    sizes = num_classes, dim, batch = 100_000, 128, 1024
    peak = fresh.step_peak_mib("benchmarks.exact:started_step", "ours", *sizes, 0)
    gradient = num_classes * dim * 4 / MIB
    assert gradient <= peak <= gradient + 64
    assert num_classes * batch * 4 / MIB > 3 * peak  # what the logits would take


@pytest.mark.parametrize("k", [10, 100])
def test_top_k_never_holds_half_of_the_logits(k):
    sizes = num_classes, _, batch = 100_000, 128, 1024
    peak = fresh.step_peak_mib("benchmarks.exact:started_step", "ours", *sizes, k)
    assert peak < num_classes * batch * 4 / MIB / 2


def test_training_on_the_exact_loss_of_a_head_holds_no_logits_of_all_classes():
    sizes = num_classes, dim, batch = 200_000, 16, 1024
    peak = fresh.step_peak_mib("tests.exact_steps:head_step", *sizes)
    gradient = num_classes * dim * 4 / MIB
    assert gradient <= peak <= gradient + 64
    assert num_classes * batch * 4 / MIB > 8 * peak
