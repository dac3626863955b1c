"""Runs the tests and the checks on every TensorFlow, Keras and Python supported.

`make matrix` runs all; `nox -l` lists them. What follows "--" are arguments for pytest,
and such a run leaves no record. Others leave a line in
compat_checks/records/versions.jsonl, in place of an older one of the same versions.
"""

from __future__ import annotations

import json
import time
import xml.etree.ElementTree as ET
from pathlib import Path

import nox

nox.needs_version = ">=2024.4"
nox.options.default_venv_backend = "uv|virtualenv"
nox.options.reuse_venv = "yes"
nox.options.sessions = ["tests", "checks"]
nox.options.stop_on_first_error = False

RECORDS = Path("compat_checks/records/versions.jsonl")
KEY = ["tensorflow", "keras", "python", "numpy", "kind"]
TENSORFLOW = ["2.16", "2.17", "2.18", "2.19", "2.20", "2.21"]
OLDEST_PYTHON, NEWEST = "3.10", ("3.12", "3.15")  # Python, Keras
OLDEST_KERAS = {"2.21": "3.12"}  # of the others 3.10
RUNS = [
    nox.param(python, tensorflow, keras, id=f"{tensorflow}-{keras}")
    for tensorflow in TENSORFLOW
    for python, keras in (
        (OLDEST_PYTHON, OLDEST_KERAS.get(tensorflow, "3.10")),
        NEWEST,
    )
]
VERSIONS = """
import json
from compat_checks.report import record
print(json.dumps(record.as_dict([])))
"""


@nox.session
@nox.parametrize(["python", "tensorflow", "keras"], RUNS)
def tests(session: nox.Session, tensorflow: str, keras: str) -> None:
    """Runs the default tests, and records the result."""
    install(session, tensorflow, keras)
    if session.posargs:
        session.run("pytest", *session.posargs)
        return
    report = Path(session.create_tmp()).resolve() / "junit.xml"
    report.unlink(missing_ok=True)
    session.run("pytest", f"--junitxml={report}", success_codes=[0, 1])
    (suite,) = ET.parse(report).getroot().iter("testsuite")
    count = {name: int(suite.attrib[name]) for name in ("tests", "skipped")}
    failed = int(suite.attrib["failures"]) + int(suite.attrib["errors"])
    passed = count["tests"] - count["skipped"] - failed
    record(session, "tests", passed, failed, float(suite.attrib["time"]))


@nox.session(python=NEWEST[0])
@nox.parametrize("tensorflow", TENSORFLOW, ids=TENSORFLOW)
def checks(session: nox.Session, tensorflow: str) -> None:
    """Runs every check, in which Keras has no part, and records the result."""
    install(session, tensorflow, NEWEST[1])
    report = Path(session.create_tmp()).resolve() / "checks.json"
    command = "python", "-m", "compat_checks", "--jobs", "2", "--json", str(report)
    report.unlink(missing_ok=True)
    start = time.monotonic()
    session.run(*command, success_codes=[0, 1])
    seconds = time.monotonic() - start
    (run,) = json.loads(report.read_text())["runs"]
    passed = [case["passed"] for case in run["cases"]]
    record(session, "checks", sum(passed), passed.count(False), seconds)


@nox.session(venv_backend="none")
def table(session: nox.Session) -> None:
    """Prints the records as a table of Markdown."""
    columns = [*KEY, "passed", "failed", "seconds", "cpu"]
    print(f"| {' | '.join(columns)} |")
    print("|---" * len(columns) + "|")
    for row in rows():
        print(f"| {' | '.join(str(row[name]) for name in columns)} |")


def install(session: nox.Session, tensorflow: str, keras: str) -> None:
    """Installs the package with these versions."""
    versions = f"tensorflow-cpu=={tensorflow}.*", f"keras=={keras}.*"
    session.install("-e", ".[cpu,test]", *versions)


def record(
    session: nox.Session, kind: str, passed: int, failed: int, seconds: float
) -> None:
    """Replaces the line of these versions; ends the session if something failed."""
    output = str(session.run("python", "-c", VERSIONS, silent=True))
    found = json.loads(output.splitlines()[-1])
    row = {name: found["versions"][name] for name in KEY[:4]} | {"kind": kind}
    row |= {"passed": passed, "failed": failed, "seconds": round(seconds)}
    row["cpu"] = found["cpu"]
    new = [old for old in rows() if any(old[name] != row[name] for name in KEY)]
    new = sorted([*new, row], key=order)
    RECORDS.parent.mkdir(exist_ok=True)
    RECORDS.write_text("".join(json.dumps(row) + "\n" for row in new))
    if failed:
        session.error(f"{failed} {kind} failed.")


def rows() -> list[dict]:
    """Reads the records."""
    lines = RECORDS.read_text().splitlines() if RECORDS.exists() else []
    return [json.loads(line) for line in lines]


def order(row: dict) -> list:
    """Orders records by what was run, then by versions."""
    return [row["kind"], *([*map(int, row[name].split("."))] for name in KEY[:3])]
