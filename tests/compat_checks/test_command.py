"""The command: exit codes, the record, the page."""

import html.parser
import json

import pytest
import tensorflow as tf

from compat_checks.__main__ import main
from compat_checks.report import html as report

NO_GPU = not tf.config.list_physical_devices("GPU")
ONLY = "shards/nce_loss v2 3 sharded biases"


@pytest.fixture
def broken(monkeypatch):
    """A library whose nce_loss is a little too large."""
    from tfsampled import nn

    sound = nn.nce_loss
    monkeypatch.setattr(nn, "nce_loss", lambda **k: sound(**k) * (1 + 1e-4))


def test_equal_is_0(tmp_path, capsys):
    files = tmp_path / "a.json", tmp_path / "a.html"
    command = ["--only", ONLY, "--json", str(files[0]), "--html", str(files[1])]
    assert main(command) == 0
    assert "1 of 1 equal on CPU:0" in capsys.readouterr().out
    record = json.loads(files[0].read_text())
    assert record["versions"]["tensorflow"] == tf.__version__
    assert record["cpu"]
    (run,) = record["runs"]
    assert run["device"] == "CPU:0"
    (case,) = run["cases"]
    assert case["name"] == ONLY
    assert case["passed"]
    names = [array["array"] for array in case["arrays"]]
    assert names == ["loss", "inputs", *(f"weights[{i}]" for i in range(3))] + [
        f"biases[{i}]" for i in range(3)
    ]
    assert all(array["tfsampled"] <= array["allowed"] for array in case["arrays"])
    assert "All 1 cases equal" in files[1].read_text()


def test_a_difference_is_1_and_is_named(broken, tmp_path, capsys):
    page = tmp_path / "a.html"
    assert main(["--only", ONLY, "--html", str(page)]) == 1
    out = capsys.readouterr().out
    assert "0 of 1 equal" in out
    assert ONLY in out
    assert "loss: error" in out.replace("\n", " ")
    assert "1 of 1 cases differ" in page.read_text()


def test_no_such_case_is_2(capsys):
    assert main(["--only", "no such"]) == 2
    assert "No case has 'no such' in its name" in capsys.readouterr().err


@pytest.mark.skipif(not NO_GPU, reason="there is a GPU")
def test_no_such_device_is_2(capsys):
    assert main(["--device", "GPU:0"]) == 2
    assert capsys.readouterr().err == "No GPU:0 here; there is CPU:0.\n"


@pytest.mark.skipif(not NO_GPU, reason="there is a GPU")
def test_all_devices_are_those_there_are(capsys):
    assert main(["--device", "all", "--only", ONLY]) == 0
    assert "on CPU:0" in capsys.readouterr().out


def test_unknown_arguments_are_argparse_s(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--devices", "CPU:1"])
    assert stop.value.code == 2
    assert "usage: python -m compat_checks" in capsys.readouterr().err


class Elements(html.parser.HTMLParser):
    """Collects tags, and every attribute that could load something."""

    def __init__(self):
        super().__init__()
        self.open, self.tags, self.loads = [], [], []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.loads += [a for a in attributes if a[0] in ("src", "href", "srcset")]
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_is_whole_and_loads_nothing():
    array = {"array": "loss", "tfsampled": 0.4, "tensorflow": 0.5, "allowed": 3.5}
    case = {
        "name": "basic/<b>&",
        "family": "basic",
        "mode": "eager",
        "passed": True,
        "seconds": 0.1,
        "relative": 1e-7,
        "reasons": [],
        "arrays": [array],
    }
    far = case | {"family": "edges", "passed": False, "reasons": ["loss is <nan>"]}
    far["relative"] = None
    far["arrays"] = [array | {"tfsampled": None}]
    bare = case | {"family": "signatures", "arrays": []}
    run = {
        "device": "CPU:0",
        "name": "a CPU",
        "seconds": 1.0,
        "cases": [case, far, bare],
    }
    versions = dict.fromkeys(("python", "tensorflow", "keras", "numpy", "system"), "1")
    record = {"versions": versions, "cpu": "a CPU", "runs": [run]}
    page = report.page(record | {"rule": {"max_ulps": 3.0, "rms_ulps": 1.0}})
    elements = Elements()
    elements.feed(page)
    assert elements.open == []
    assert elements.loads == []
    assert elements.tags.count("circle") == 2 * 2 + 4
    assert "script" not in elements.tags
    assert "url(" not in page
    assert "basic/&lt;b&gt;&amp;" in page
    assert "loss is &lt;nan&gt;" in page
    assert "prefers-color-scheme: dark" in page
