"""What a step costs: memory and time that do not grow with the table."""

import pytest

from benchmarks import optimizers

MODES = pytest.mark.parametrize("jit", [False, True], ids=["graph", "jit"])


def test_lines_of_the_chart_take_the_median_of_what_ran_twice(tmp_path):
    def row(theirs, jit, theirs_ms):
        return optimizers.FitTiming(
            name="",
            ours_ms=2.0,
            theirs_ms=theirs_ms,
            ratio=2.0 / theirs_ms,
            compile_s=0.1,
            pairs=1,
            num_classes=1000,
            jit=jit,
            ours="tfsampled Adagrad",
            theirs=theirs,
            ours_peak_mb=1.0,
            theirs_peak_mb=1.0,
        )

    rows = [row("keras Adam", False, ms) for ms in (4.0, 8.0)]
    assert optimizers.lines(rows) == {
        "tfsampled Adagrad": [(1000, 2.0)],
        "keras Adam": [(1000, 6.0)],
    }
    optimizers.plot([*rows, row("keras SGD", True, 1.0)], tmp_path / "fit.png")
    assert (tmp_path / "fit.png").stat().st_size > 10_000


def test_a_process_that_dies_is_told():
    with pytest.raises(RuntimeError, match=r"'keras Nadam'"):
        optimizers.measured("keras Nadam", 10, jit=False)


@pytest.mark.slow
def test_ten_million_classes_train_in_four_gigabytes():
    report = optimizers.measured("tfsampled RowWiseAdagrad", 10_000_000, jit=False)
    assert report["peak_mb"] * 2**20 < 4e9


@pytest.mark.slow
@MODES
@pytest.mark.parametrize(
    "optimizer", ["tfsampled LazyAdam", "tfsampled LazyAdam, corrected"]
)
def test_a_step_over_a_million_classes_is_one_over_ten_thousand(optimizer, jit):
    # The best of three: what else runs on the machine only adds. Touching a whole
    # table of a million rows would take fifty times as long.
    few, many = (
        min(optimizers.measured(optimizer, size, jit)["ms"] for _ in range(3))
        for size in (10_000, 1_000_000)
    )
    assert many < 3 * few
