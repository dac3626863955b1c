"""What a user installs: one version, typed, public API alone, each setting once."""

import ast
import configparser
import importlib.metadata
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "tfsampled"

# The files that may look behind the public API, each because no public name does it.
PRIVATE_IMPORTS = {"_core/xla.py"}

# Modules that a user imports; everything else starts with an underscore.
PUBLIC_MODULES = {
    "tfsampled",
    "tfsampled.nn",
    "tfsampled.random",
    "tfsampled.layers",
    "tfsampled.metrics",
    "tfsampled.models",
    "tfsampled.optimizers",
    "tfsampled.samplers",
    "tfsampled.compat",
}


@pytest.fixture(scope="module")
def setup_cfg():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    return config


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, built from a copy with what is installed here: no network needed."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(PACKAGE, source / "tfsampled", ignore=ignored)
    for name in ("tests", "examples"):  # must not be taken for packages to ship
        (source / name).mkdir()
        (source / name / "__init__.py").touch()
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps"]
    built = subprocess.run(
        [*pip, "--no-build-isolation", "--wheel-dir", str(out), str(source)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stderr
    (path,) = out.glob("*.whl")
    return zipfile.ZipFile(path)


def modules():
    return sorted(PACKAGE.rglob("*.py"))


def imported(path):
    """The dotted names of every module that a file imports, at any depth."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def is_private(name):
    return re.match(r"(tensorflow\.(python|compiler|core)|keras\.src)(\.|$)", name)


def test_installed_version_is_the_one_of_setup_cfg(setup_cfg):
    assert importlib.metadata.version("tfsampled") == setup_cfg["metadata"]["version"]


def test_the_version_stands_nowhere_else(setup_cfg):
    version = re.compile(rf"""["']{re.escape(setup_cfg["metadata"]["version"])}["']""")
    files = [*modules(), ROOT / "pyproject.toml"]
    assert [str(f) for f in files if version.search(f.read_text("utf-8"))] == []


def test_changelog_has_an_entry_for_the_version(setup_cfg):
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"## [{setup_cfg['metadata']['version']}]" in changelog


def test_pyproject_leaves_the_package_to_setup_cfg(setup_cfg):
    tables = re.findall(
        r"^\[+([\w-]+)(?:\.([\w-]+))?",
        (ROOT / "pyproject.toml").read_text("utf-8"),
        re.M,
    )
    tops = {top for top, _ in tables}
    tools = {tool for top, tool in tables if top == "tool"}
    assert tops == {"build-system", "tool"}
    assert tools == {"ruff", "mypy", "pytest"}
    assert {name.partition(".")[0] for name in setup_cfg} == {
        "DEFAULT",
        "metadata",
        "options",
    }


def test_no_other_file_holds_settings():
    others = [
        "setup.py",
        "pytest.ini",
        "tox.ini",
        "mypy.ini",
        "ruff.toml",
        ".coveragerc",
    ]
    assert [name for name in others if (ROOT / name).exists()] == []


def test_wheel_holds_the_package_and_its_type_marker_alone(wheel):
    names = [n for n in wheel.namelist() if ".dist-info/" not in n]
    assert "tfsampled/py.typed" in names
    assert {n.partition("/")[0] for n in names} == {"tfsampled"}
    ours = {p.relative_to(ROOT).as_posix() for p in modules()}
    assert {n for n in names if n.endswith(".py")} == ours


def test_wheel_metadata_names_licence_extras_and_no_tensorflow(wheel):
    (name,) = [n for n in wheel.namelist() if n.endswith(".dist-info/METADATA")]
    metadata = wheel.read(name).decode()
    required = re.findall(r"^Requires-Dist: (.*)$", metadata, re.M)
    always = {re.split(r"[<>=!~\[; ]", r)[0] for r in required if "extra ==" not in r}
    assert always == {"keras", "numpy"}
    extras = set(re.findall(r"^Provides-Extra: (.*)$", metadata, re.M))
    assert extras == {"cpu", "gpu", "demo", "docs", "report", "test"}
    assert re.search(r"^License(-Expression)?: Apache-2.0$", metadata, re.M)


def test_private_names_of_tensorflow_and_keras_stay_in_the_named_files():
    found = {
        path.relative_to(PACKAGE).as_posix()
        for path in modules()
        if any(is_private(name) for name in imported(path))
    }
    assert found <= PRIVATE_IMPORTS


def test_core_knows_nothing_of_keras():
    files = (PACKAGE / "_core").rglob("*.py")
    keras = [f.name for f in files if any(n.startswith("keras") for n in imported(f))]
    assert keras == []


def test_public_modules_are_the_documented_ones():
    names = set()
    for path in modules():
        parts = path.relative_to(ROOT).with_suffix("").parts
        if not any(part.startswith("_") and part != "__init__" for part in parts):
            names.add(".".join(p for p in parts if p != "__init__"))
    undocumented = {n for n in names if not n.startswith("tfsampled.compat.")}
    assert undocumented <= PUBLIC_MODULES


def test_public_modules_import_each_on_its_own():
    """No module may rely on another one having been imported first."""
    present = [
        m
        for m in sorted(PUBLIC_MODULES)
        if (ROOT / m.replace(".", "/")).with_suffix(".py").exists()
        or (ROOT / m.replace(".", "/") / "__init__.py").exists()
    ]
    assert "tfsampled.nn" in present
    code = "import importlib, sys; [importlib.import_module(m) for m in sys.argv[1:]]"
    run = subprocess.run(
        [sys.executable, "-W", "error::SyntaxWarning", "-c", code, *reversed(present)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert run.returncode == 0, run.stderr


def test_without_tensorflow_one_sentence_says_what_to_install():
    """A module called tensorflow that cannot be found: what a bare install sees."""
    code = "import sys; sys.modules['tensorflow'] = None; import tfsampled"
    run = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert run.returncode != 0
    last = run.stderr.strip().splitlines()[-1]
    assert "tfsampled[cpu]" in last
    assert "tfsampled[gpu]" in last
