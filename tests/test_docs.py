"""README.md: its Python runs as printed, and the commands it names exist."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")

BLOCKS = re.findall(r"^```python\n(.*?)^```$", README, re.M | re.S)
HEADINGS = [
    re.findall(r"^#+ (.*)$", README[: README.index(block)], re.M)[-1]
    for block in BLOCKS
]


@pytest.mark.parametrize(
    "block", BLOCKS, ids=[f"{i}-{h}" for i, h in enumerate(HEADINGS)]
)
def test_python_block_runs_by_itself(block, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(compile(block, "README.md", "exec"), {"__name__": "__main__"})


def test_there_are_blocks_to_run():
    assert len(BLOCKS) >= 3


def test_make_targets_exist():
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.M))
    named = set(re.findall(r"\bmake ([a-z-]+)", README))
    assert named
    assert named <= targets


def test_modules_behind_commands_exist():
    named = set(
        re.findall(r"python -m ((?:compat_checks|examples|benchmarks)[\w.]*)", README)
    )
    assert named
    for name in named:
        path = ROOT / name.replace(".", "/")
        assert path.with_suffix(".py").exists() or (path / "__main__.py").exists(), name


def test_links_into_the_repository_lead_somewhere():
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", README)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []
