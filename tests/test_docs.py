"""README.md and docs/: the Python runs, and what the pages name exists."""

import pydoc
import re
from pathlib import Path

import pytest
import tensorflow as tf

import tfsampled

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
TEXTS = {page: page.read_text(encoding="utf-8") for page in PAGES}
PROSE = [*PAGES, ROOT / "CONTRIBUTING.md"]

COMPILES = re.compile(r"tf\.function|jit_compile=True|distribute")
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.M | re.S)


@pytest.mark.parametrize(
    "page",
    [page for page, text in TEXTS.items() if BLOCK.search(text)],
    ids=lambda page: page.stem,
)
def test_python_blocks_run(page, runs_slow_tests, tmp_path, monkeypatch):
    """The default run traces the functions of blocks alone that are about them."""
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "__main__"}  # the blocks of a page share their names
    for block in BLOCK.finditer(TEXTS[page]):
        compiles = runs_slow_tests or COMPILES.search(block[1]) is not None
        tf.config.run_functions_eagerly(not compiles)
        lines_before = "\n" * TEXTS[page][: block.start(1)].count("\n")
        exec(compile(lines_before + block[1], page, "exec"), names)


def test_readme_is_short():
    assert TEXTS[ROOT / "README.md"].count("\n") <= 150


@pytest.mark.parametrize("page", PROSE, ids=lambda page: page.stem)
def test_commands_exist(page):
    text = page.read_text(encoding="utf-8")
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.M)
    assert set(re.findall(r"(?:^|`)make ([a-z-]+)", text, re.M)) <= set(targets)
    for name in re.findall(
        r"python -m ((?:compat_checks|examples|benchmarks)[\w.]*)", text
    ):
        path = ROOT / name.replace(".", "/")
        assert path.with_suffix(".py").exists() or (path / "__main__.py").exists(), name


@pytest.mark.parametrize("page", PROSE, ids=lambda page: page.stem)
def test_links_lead_somewhere(page):
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text(encoding="utf-8"))
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_files_of_the_layout_exist():
    text = PROSE[-1].read_text(encoding="utf-8")
    files = re.findall(r"^\|.*\| `([\w/]+\.py)`", text, re.M)
    assert files
    assert [file for file in files if not (ROOT / "tfsampled" / file).exists()] == []


def test_api_reference_names_every_public_object():
    pages = (page.read_text() for page in (ROOT / "docs" / "api").glob("*.md"))
    paths = re.findall(r"^::: (.*)$", "\n".join(pages), re.M)
    documented = {path: pydoc.locate(path) for path in paths}
    assert [path for path, value in documented.items() if value is None] == []
    modules = [getattr(tfsampled, name) for name in tfsampled.__all__]
    modules += [tfsampled.compat.v1.nn, tfsampled.compat.v1.random]
    missing = [
        f"{module.__name__}.{name}"
        for module in modules
        if module is not tfsampled.compat and hasattr(module, "__all__")
        for name in module.__all__
        if not any(getattr(module, name) is value for value in documented.values())
    ]
    assert missing == []
