"""`python -m benchmarks`: families, their options, tables and files."""

import dataclasses
import functools
import json
import re
import types

import numpy as np
import pytest
import tensorflow as tf

import tfsampled
from benchmarks import __main__ as command
from benchmarks import (
    exact,
    fit,
    fit_worker,
    fresh,
    growth,
    growth_worker,
    loss,
    machine,
    memory,
    padding,
    paired,
    replicas,
    samplers,
    servers,
    towers,
)
from examples.distributed.servers import NETWORK
from tests.helpers import slow

FRESH = "tests.fresh_calls"


@dataclasses.dataclass(frozen=True)
class Row:
    name: str
    ms: float


def family(**attributes):
    def timings(sizes=(1, 20)):
        yield from (Row(f"size {size}", size / 3) for size in sizes)

    columns = {"case": "{0.name}", "ms": "{0.ms:.2f}"}
    settings = {"type": int, "nargs": "+", "help": "how many"}
    return types.SimpleNamespace(
        TITLE="a title",
        COLUMNS=columns,
        OPTIONS={"sizes": settings},
        timings=timings,
        **attributes,
    )


@pytest.fixture
def charts(monkeypatch):
    """Records what is plotted where, for three families, two of them with charts."""
    plotted = {}
    with_chart = family(plot=lambda rows, path: plotted.update({path.name: rows}))
    families = {"one": with_chart, "two": with_chart, "bare": family()}
    monkeypatch.setattr(command, "FAMILIES", families)
    return plotted


def test_all_families_write_a_table_json_and_charts(charts, tmp_path, capsys):
    written = tmp_path / "rows.json"
    plots = tmp_path / "chart.svg"
    arguments = ["--json", str(written), "--plot", str(plots), "--two-sizes", "3"]
    assert command.main(arguments) == 0
    printed, progress = capsys.readouterr()
    assert printed.count("a title") == 3
    assert progress.splitlines()[:2] == ["one: size 1, 0.33", "one: size 20, 6.67"]
    assert "size 20" in printed
    assert "6.67" in printed
    report = json.loads(written.read_text())
    assert report["machine"] == machine.machine()
    assert report["two"] == [{"name": "size 3", "ms": 1.0}]
    assert [row["name"] for row in report["bare"]] == ["size 1", "size 20"]
    assert list(charts) == ["chart-one.svg", "chart-two.svg"]
    assert charts["chart-two.svg"] == [Row("size 3", 1.0)]


def test_chart_of_one_family_has_the_given_name(charts, tmp_path):
    plots = tmp_path / "chart.png"
    assert command.main(["--only", "two", "--plot", str(plots)]) == 0
    assert list(charts) == ["chart.png"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--plot", "chart.jpeg"], r"must end in \.png or \.svg"),
        (["--json", "no/such/rows.json"], "no file in a folder that exists"),
        (["--only", "three"], "invalid choice: 'three'"),
        (["--two-sizes", "many"], "invalid int value: 'many'"),
    ],
)
def test_invalid_arguments_exit_at_once(charts, capsys, arguments, message):
    with pytest.raises(SystemExit):
        command.main(arguments)
    assert re.search(message, capsys.readouterr().err)
    assert not charts


def test_a_call_in_a_fresh_process():
    assert fresh.call(f"{FRESH}:shout", "ho", times=2) == {"said": "HOHO"}


def test_a_process_that_dies_raises():
    with pytest.raises(RuntimeError, match=r"(?s)shout with \(3,\).*no attribute"):
        fresh.call(f"{FRESH}:shout", 3)


@pytest.mark.parametrize("passing", [0, 200])
def test_peak_of_a_step_excludes_its_inputs(passing):
    peak = fresh.step_peak_mib(f"{FRESH}:make_step", 100, passing, step=60)
    # The kernel adds up the pages of threads in batches: some hundred KiB are missing.
    assert 55 < peak < 70


@pytest.mark.slow
def test_padding(monkeypatch):
    monkeypatch.setattr(padding, "ROUNDS", 1)
    monkeypatch.setattr(padding, "BATCH", 6)
    monkeypatch.setattr(padding, "CLASSES", 2000)
    rows = list(padding.timings())
    assert [(row.share, row.jit) for row in rows[2:4]] == [(0.15, False), (1.0, True)]
    assert [row.ratio for row in rows if row.share == 1.0] == [1.0, 1.0]


def test_towers(monkeypatch):
    monkeypatch.setattr(paired, "MIN_SECONDS", 0.0)
    monkeypatch.setattr(towers, "PAIRS", 2)
    monkeypatch.setattr(towers, "SIZES", [2000])
    (row,) = towers.timings()
    assert row.name == "2000 items, batch 512, 1024 sampled"
    assert row.pairs == 2


@pytest.mark.slow
def test_samplers(monkeypatch, tmp_path):
    monkeypatch.setattr(paired, "MIN_PAIRS", 2)
    monkeypatch.setattr(paired, "MIN_SECONDS", 0.0)
    monkeypatch.setattr(samplers, "SIZES", [(100, 8)])
    uniform = {"uniform": samplers.SAMPLERS["uniform"]}
    monkeypatch.setattr(samplers, "SAMPLERS", uniform)
    rows = list(samplers.timings())
    names = ["uniform 8 of 100", "uniform 8 of 100, of a head"]
    assert [row.name for row in rows] == names
    assert rows[0].pairs == 2
    samplers.plot(rows, tmp_path / "samplers.png")
    assert (tmp_path / "samplers.png").stat().st_size > 10_000


@pytest.mark.slow
def test_fit(monkeypatch, tmp_path):
    calls, measure = [], functools.cache(fit_worker.measure)

    def call_here(name, *args):
        calls.append((name, *args))
        return measure(*args)

    monkeypatch.setattr(fresh, "call", call_here)
    monkeypatch.setattr(fit, "SECONDS", 0.0)
    pair = ("keras Adam", "tfsampled LazyAdam")
    rows = list(fit.timings([10], rounds=2, jit="off", optimizers=pair))
    assert [row.optimizer for row in rows] == [*pair]
    assert [name for _, name, *_ in calls] == [*pair, *pair]  # in turn
    assert all(row.times_faster == 1 for row in rows if row.optimizer == pair[0])
    assert all(row.peak_mib > 100 and row.ms > 0 for row in rows)
    fit.plot(rows, tmp_path / "fit.svg")
    assert (tmp_path / "fit.svg").read_text().count("LazyAdam") >= 1


def test_fit_that_dies_fails_its_row_only(monkeypatch, capsys):
    calls = []

    def measure(name, *_):
        calls.append(name)
        if name == "keras Adam":
            raise RuntimeError("killed")
        return {"ms": 1.0, "first_s": 2.0, "peak_mib": 3.0}

    monkeypatch.setattr(fit, "measure", measure)
    pair = ("keras Adam", "tfsampled LazyAdam")
    failed, other = fit.timings([10], rounds=2, jit="on", optimizers=pair)
    assert calls == [*pair, pair[1]]
    assert "killed" in capsys.readouterr().err
    assert np.isnan(
        [failed.ms, failed.peak_mib, failed.times_faster, other.times_faster]
    ).all()
    assert (other.ms, other.first_s, other.peak_mib) == (1.0, 2.0, 3.0)


def test_growth(monkeypatch):
    calls = []

    def call(name, *arguments):
        calls.append(arguments)
        return 2.0, 3.0

    monkeypatch.setattr(fresh, "call", call)
    rows = list(growth.timings(["tfsampled Adagrad"], 10, 20, seconds=0.0))
    assert [(name, jit, replicas) for name, *_, jit, _, replicas in calls] == [
        ("tfsampled Adagrad", False, 1),
        ("tfsampled Adagrad", True, 1),
        ("tfsampled Adagrad", False, 2),
        ("rows", False, 1),
    ]
    assert all((row.few_ms, row.many_ms, row.ratio) == (2, 3, 1.5) for row in rows)


@pytest.mark.parametrize(
    ("name", "jit"),
    [
        slow("tfsampled Adagrad", False),
        slow("tfsampled Adagrad", True),
        ("rows", False),
    ],
)
def test_growth_worker(monkeypatch, name, jit):
    monkeypatch.setattr(growth_worker, "BLOCK", 5)
    assert min(growth_worker.measure(name, 10, 20, jit, seconds=0.0)) > 0


@pytest.mark.slow
def test_growth_worker_with_replicas():
    arguments = "tfsampled Adagrad", 10, 20, False, 0.0, 2
    assert min(fresh.call("benchmarks.growth_worker:measure", *arguments)) > 0


@pytest.mark.slow
@pytest.mark.usefixtures("network")
@pytest.mark.skipif(not NETWORK.exists(), reason="Linux counts bytes")
@pytest.mark.parametrize("kind", replicas.KINDS)
def test_replicas(monkeypatch, kind):
    monkeypatch.setattr(replicas, "KINDS", [kind])
    few, many = replicas.timings(classes=[10_000, 100_000], processes=[2], steps=20)
    assert few.ms > 0
    # What is sent does not grow with the table; other processes may send too.
    assert few.kilobytes < 800
    assert many.kilobytes < 1.5 * few.kilobytes + 100


@pytest.mark.slow
@pytest.mark.usefixtures("network")
@pytest.mark.skipif(not NETWORK.exists(), reason="Linux counts bytes")
def test_servers():
    few, many = servers.timings(classes=[10_000, 100_000])
    assert few.ms > 0
    assert few.exact_kilobytes < few.kilobytes < 2000
    assert many.kilobytes < 1.5 * few.kilobytes + 100


def test_every_compared_optimizer_exists():
    assert {*fit.BASELINES, *fit.BASELINES.values()} == {*fit_worker.OPTIMIZERS}


def test_exact(monkeypatch, tmp_path):
    monkeypatch.setattr(exact, "PAIRS", 2)
    monkeypatch.setattr(paired, "MIN_SECONDS", 0.0)
    tasks = {"loss and gradients": (50, 4, 6), "top 3": (50, 4, 6)}
    monkeypatch.setattr(exact, "TASKS", tasks)
    monkeypatch.setattr(
        fresh,
        "step_peak_mib",
        lambda _, method, *__: {"tfsampled": 1, "dense": 2}[method],
    )
    rows = list(exact.timings())
    assert [row.name for row in rows] == [
        "loss and gradients of 50 x 4, batch 6",
        "top 3 of 50 x 4, batch 6",
    ]
    assert all(
        (row.tfsampled_mib, row.tensorflow_mib, row.pairs) == (1, 2, 2) for row in rows
    )
    exact.plot(rows, tmp_path / "exact.svg")
    assert (tmp_path / "exact.svg").read_text().count("top 3") >= 1


@pytest.mark.parametrize("task", ["loss and gradients", "top 3", "evaluation"])
def test_both_full_softmaxes_compute_the_same(task):
    results = (exact.cold_step(method, task, 500, 4, 6)() for method in exact.METHODS)
    for actual, expected in zip(*map(tf.nest.flatten, results), strict=True):
        np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_loss(monkeypatch, tmp_path):
    monkeypatch.setattr(loss, "LOSSES", loss.LOSSES[1:])
    monkeypatch.setattr(loss, "SHAPES", ())
    shape = loss.Shape(500, 4, 8, 16)
    monkeypatch.setattr(loss, "SMALL_SHAPES", (shape,))
    rows = list(loss.timings(seconds=0.0, grid=True, unknown=True))
    names = [f"{name} 500, 4, 8, 16" for name in loss.LOSSES]
    assert [row.name for row in rows[::2]] == names
    for row, mean in zip(rows[::2], rows[1::2], strict=True):
        assert 0 < row.gain_low <= row.gain <= row.gain_high
        assert mean.gain == pytest.approx(row.gain)
        cells = [template.format(row) for template in loss.COLUMNS.values()]
        assert cells[0] == row.name
    chart = tmp_path / "chart.svg"
    loss.plot(rows, chart)
    assert "time of the three matrix products" in chart.read_text()


@pytest.mark.parametrize("unknown", [False, True])
def test_timed_steps_compute_the_same(unknown):
    """Both do the same work, on the same labels and candidates."""
    shape = loss.Shape(500, 4, 8, 16)
    results = []
    for module in (tfsampled, tf):
        tf.random.set_seed(1)
        step = loss.step(module, "nce_loss", shape, unknown=unknown, read=list)
        results.append(step())
    for actual, expected in zip(*results, strict=True):
        np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-7)


@pytest.mark.slow
def test_memory_of_a_step(monkeypatch):
    """TensorFlow is run where its memory suffices."""
    shape = loss.Shape(500, 4, 8, 16)
    (row,) = memory.timings([shape])
    assert row.name == "500, 4, 8, 16"
    assert row.tfsampled_s > 0
    assert row.tensorflow_mib is not None
    assert row.tensorflow_mib > 0
    monkeypatch.setattr(memory, "MAX_LOGITS", 100)
    monkeypatch.setattr(memory, "call", lambda *_: 1.0)
    monkeypatch.setattr(memory, "step_peak_mib", lambda *_: 2.0)
    (row,) = memory.timings([shape])
    assert (row.tfsampled_s, row.tfsampled_mib) == (1.0, 2.0)
    cells = [template.format(row) for template in memory.COLUMNS.values()]
    assert cells == ["500, 4, 8, 16", "1.00", "-", "2", "-"]
