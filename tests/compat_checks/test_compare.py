"""`compat_checks compare`: what changed from one record to another."""

import json

import pytest

from compat_checks.__main__ import main
from compat_checks.report import changes

ONLY = "shards/nce_loss v2 3 sharded biases"


def make_record():
    array = {"array": "weights[0]", "tfsampled": 0.4, "tensorflow": 0.5}
    case = {"name": "basic/a", "passed": True, "reasons": [], "arrays": [array]}
    bare = {"name": "signatures/b", "passed": True, "reasons": [], "arrays": []}
    return {"schema": 1, "runs": [{"device": "CPU:0", "cases": [case, bare]}]}


@pytest.fixture
def compare(tmp_path, capsys):
    """Compares a record with one that a function has changed in place."""

    def run(change, *arguments):
        records = make_record(), make_record()
        change(records[1]["runs"][0]["cases"])
        paths = tmp_path / "old.json", tmp_path / "new.json"
        for path, record in zip(paths, records, strict=True):
            path.write_text(json.dumps(record))
        code = main(["compare", *map(str, paths), *arguments])
        return code, " ".join(capsys.readouterr().out.split())

    return run


def set_error(value):
    def change(cases):
        cases[0]["arrays"][0]["tfsampled"] = value

    return change


def add_failed(cases):
    cases.append(cases[1] | {"name": "c"})
    set_failed(cases[2:] * 2)


def set_failed(cases):
    cases[1].update(passed=False, reasons=["raised ValueError: [x]"])


def test_an_equal_record_has_no_changes(compare):
    code, output = compare(lambda cases: None)
    assert code == 0
    assert output == "0 changes, 0 of them for the worse"


@pytest.mark.parametrize(
    ("change", "code", "message"),
    [
        (set_error(0.8), 0, "1 changes, 0 of them for the worse"),
        (set_error(0.8), 0, "weights[0]: 0.4 → 0.8 ulp │ +0.4 │ 0.5 → 0.5"),
        (set_error(1.5), 1, "1 changes, 1 of them for the worse"),
        (set_error(0.0), 0, "-0.4"),
        (set_error(None), 1, "0.4 → inf"),
        (set_failed, 1, "no longer passes: raised ValueError: [x]"),
        (set_failed, 1, "1 changes, 1 of them"),
        (lambda cases: cases[0]["arrays"].clear(), 1, "weights[0] is no longer check"),
        (lambda cases: cases.pop(), 1, "is no longer checked"),
        (lambda cases: cases.append(cases[0] | {"name": "c"}), 0, "0 changes"),
        (add_failed, 1, "is new and fails: raised ValueError: [x]"),
    ],
)
def test_changes_are_named(compare, change, code, message, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    actual, out = compare(change)
    assert actual == code
    assert message in out


def test_the_tolerance_is_an_argument(compare):
    assert compare(set_error(0.8), "--tolerance", "0.3")[0] == 1


def test_a_case_that_passes_now_is_no_harm():
    old, new = make_record(), make_record()
    set_failed(old["runs"][0]["cases"])
    (change,) = changes.changes(old, new)
    assert change.description == "passes now"
    assert not change.worse


def test_a_change_of_the_library_is_found(tmp_path, monkeypatch):
    from tfsampled import nn

    old, new = str(tmp_path / "old.json"), str(tmp_path / "new.json")
    assert main(["--only", ONLY, "--json", old]) == 0
    sound = nn.nce_loss
    monkeypatch.setattr(nn, "nce_loss", lambda **k: sound(**k) * (1 + 2e-7))
    main(["--only", ONLY, "--json", new])
    assert main(["compare", old, new]) == 1
    assert main(["compare", old, old]) == 0


@pytest.mark.slow
def test_two_processes_find_what_one_finds(tmp_path):
    paths = []
    for jobs in ("1", "2"):
        paths.append(str(tmp_path / f"{jobs}.json"))
        assert (
            main(["--only", "basic/nce_loss v2", "--jobs", jobs, "--json", paths[-1]])
            == 0
        )
    assert main(["compare", *paths, "--tolerance", "0.5"]) == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "must be a record. Received: [Errno 2] No such file"),
        ("{", "must be a record. Received: Expecting property name"),
        ("[1]", "must be a record of schema 1. Received: schema=None."),
        ('{"schema": 0}', "must be a record of schema 1. Received: schema=0."),
        ('{"schema": 1}', "must be records. Received: KeyError('runs')"),
        ('{"schema": 1, "runs": [3]}', "must be records. Received: TypeError("),
    ],
)
def test_what_is_no_record_is_2(tmp_path, capsys, text, message):
    path = tmp_path / "a.json"
    if text is not None:
        path.write_text(text)
    assert main(["compare", str(path), str(path)]) == 2
    assert message in " ".join(capsys.readouterr().err.split())


def test_an_invalid_number_of_processes_is_2(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--jobs", "0"])
    assert stop.value.code == 2
    assert "--jobs must be at least 1. Received: 0." in capsys.readouterr().err
