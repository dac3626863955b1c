"""What a step costs: memory and time that do not grow with the table."""

import pytest

from benchmarks import fit, fit_worker

MODES = pytest.mark.parametrize("jit", [False, True], ids=["graph", "jit"])


@pytest.mark.slow
def test_ten_million_classes_train_in_four_gigabytes():
    report = fit.measure("tfsampled RowWiseAdagrad", 10_000_000, jit=False)
    assert report["peak_mib"] * 2**20 < 4e9


@pytest.mark.slow
@MODES
def test_slots_made_in_fit_are_all_that_is_made(jit):
    classes = 1_000_000
    table_mib = classes * fit_worker.DIM * 4 / 2**20
    adam, sgd = (
        fit.measure(name, classes, jit, seconds=0.1)["peak_mib"]
        for name in ("tfsampled LazyAdam", "keras SGD")
    )
    assert adam - sgd < 2.5 * table_mib


@pytest.mark.slow
@MODES
@pytest.mark.parametrize(
    "optimizer", ["tfsampled LazyAdam", "tfsampled LazyAdam, corrected"]
)
def test_a_step_over_a_million_classes_is_one_over_ten_thousand(optimizer, jit):
    # The best of three: what else runs on the machine only adds. Touching a whole
    # table of a million rows would take fifty times as long.
    few, many = (
        min(fit.measure(optimizer, size, jit)["ms"] for _ in range(3))
        for size in (10_000, 1_000_000)
    )
    assert many < 3 * few
