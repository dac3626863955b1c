"""What is installed: one version, typed, the public modules, clear import errors."""

import ast
import configparser
import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import tfsampled

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "tfsampled"

# Files that import private names, each because no public name does the same.
PRIVATE_IMPORTS = {"_core/xla.py"}

# Modules that a user imports; every other module's name starts with an underscore.
PUBLIC_MODULES = {
    "tfsampled",
    "tfsampled.nn",
    "tfsampled.random",
    "tfsampled.distribute",
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


def package_files():
    return sorted(PACKAGE.rglob("*.py"))


def imported_names(path):
    """The dotted names of every module that a file imports, at any depth."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def is_private(name):
    return re.match(r"(tensorflow\.(python|compiler|core)|keras\.src)(\.|$)", name)


# As if the module named by the first argument were not installed.
HIDE = """
import sys
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == sys.argv[1]:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Finder())
"""


def run_python(code, *arguments, **environment):
    return subprocess.run(
        [sys.executable, "-W", "error::SyntaxWarning", "-c", code, *arguments],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=os.environ | environment,
        check=False,
    )


def test_version(setup_cfg):
    version = setup_cfg["metadata"]["version"]
    assert tfsampled.__version__ == version
    assert importlib.metadata.version("tfsampled") == version
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    heading = "Unreleased" if "dev" in version else version
    assert f"## [{heading}]" in changelog


def test_python_versions_are_the_classified_ones(setup_cfg):
    classifiers = setup_cfg["metadata"]["classifiers"]
    minors = [int(minor) for minor in re.findall(r"Python :: 3\.(\d+)", classifiers)]
    required = f">=3.{minors[0]},<3.{minors[-1] + 1}"
    assert setup_cfg["options"]["python_requires"] == required


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """A wheel, built from a copy with what is installed: no network is needed."""
    folder = tmp_path_factory.mktemp("build")
    source, out = folder / "source", folder / "wheel"
    ignored = shutil.ignore_patterns("__pycache__")
    for package in ("tfsampled", "compat_checks"):
        shutil.copytree(ROOT / package, source / package, ignore=ignored)
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in ("tests", "examples"):  # packages that must not be shipped
        (source / name).mkdir()
        (source / name / "__init__.py").touch()
    build = "import sys, setuptools.build_meta as b; b.build_wheel(sys.argv[1])"
    out.mkdir()
    run = subprocess.run(
        [sys.executable, "-c", build, str(out)],
        capture_output=True,
        text=True,
        cwd=source,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    (path,) = out.glob("*.whl")
    return path


def test_wheel(wheel):
    with zipfile.ZipFile(wheel) as archive:
        shipped = [name for name in archive.namelist() if ".dist-info/" not in name]
        (name,) = [n for n in archive.namelist() if n.endswith(".dist-info/METADATA")]
        metadata = archive.read(name).decode()
    files = [*package_files(), *(ROOT / "compat_checks").rglob("*.py")]
    expected = {path.relative_to(ROOT).as_posix() for path in files}
    assert set(shipped) == expected | {"tfsampled/py.typed"}
    required = re.findall(r"^Requires-Dist: (.*)$", metadata, re.M)
    always = {re.split(r"[<>=!~\[; ]", r)[0] for r in required if "extra ==" not in r}
    assert always == {"keras", "numpy"}  # TensorFlow is an extra
    extras = set(re.findall(r"^Provides-Extra: (.*)$", metadata, re.M))
    assert extras >= {"cpu", "gpu", "demo", "report", "test"}
    assert re.search(r"^License(-Expression)?: Apache-2.0$", metadata, re.M)


@pytest.mark.slow
def test_another_project_runs_the_checks(wheel, tmp_path):
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "installed")
    environment = os.environ | {"PYTHONPATH": str(tmp_path / "installed")}
    environment["XLA_FLAGS"] = ""

    def checks(*arguments):
        return subprocess.run(
            [sys.executable, "-m", "compat_checks", *arguments],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env=environment,
            check=False,
        )

    for name in ("recorded.json", "now.json"):
        run = checks("--only", "basic/nce_loss v2", "--jobs", "2", "--json", name)
        assert run.returncode == 0, run.stderr
    run = checks("compare", "recorded.json", "now.json")
    assert run.returncode == 0
    assert run.stdout.startswith("0 changes")
    record = json.loads((tmp_path / "now.json").read_text())
    record["runs"][0]["cases"][3]["arrays"][0]["tfsampled"] += 1.1
    (tmp_path / "now.json").write_text(json.dumps(record))
    run = checks("compare", "recorded.json", "now.json")
    assert run.returncode == 1
    assert "1 changes, 1 of them for the worse" in run.stdout


def test_private_imports_of_tensorflow_and_keras():
    private = {
        path.relative_to(PACKAGE).as_posix()
        for path in package_files()
        if any(is_private(name) for name in imported_names(path))
    }
    assert private <= PRIVATE_IMPORTS


def test_core_does_not_import_keras():
    files = (PACKAGE / "_core").rglob("*.py")
    assert not [
        f for f in files if any(n.startswith("keras") for n in imported_names(f))
    ]


def test_public_modules_are_the_documented_ones():
    names = set()
    for path in package_files():
        parts = path.relative_to(ROOT).with_suffix("").parts
        if not any(part.startswith("_") and part != "__init__" for part in parts):
            names.add(".".join(p for p in parts if p != "__init__"))
    assert {n for n in names if not n.startswith("tfsampled.compat.")} == PUBLIC_MODULES


@pytest.mark.slow
def test_public_modules_import_in_any_order():
    code = "import importlib, sys; [importlib.import_module(m) for m in sys.argv[1:]]"
    run = run_python(code, *sorted(PUBLIC_MODULES, reverse=True))
    assert run.returncode == 0, run.stderr


def test_import_without_tensorflow_raises():
    run = run_python(HIDE + "import tfsampled", "tensorflow")
    last = run.stderr.strip().splitlines()[-1]
    assert last.startswith("ImportError: tfsampled needs TensorFlow, which is not")
    assert "tfsampled[cpu]" in last
    assert "tfsampled[gpu]" in last


def assert_backend_error(run):
    last = run.stderr.strip().splitlines()[-1]
    assert last.startswith(
        "ImportError: Keras's backend must be 'tensorflow'. Received: backend='torch'."
    )
    assert "KERAS_BACKEND=tensorflow" in last
    assert "keras.json" in last


@pytest.mark.slow
def test_import_with_another_backend_raises():
    code = "import keras; keras.config.backend = lambda: 'torch'; import tfsampled"
    assert_backend_error(run_python(code))


def test_import_with_a_missing_backend_raises():
    """Keras imports its backend, and would say no more than its name."""
    run = run_python(HIDE + "import tfsampled", "torch", KERAS_BACKEND="torch")
    assert_backend_error(run)
