"""The wheel, installed beside the dependencies and away from the clone, does the whole demo."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
from pathlib import Path
from zipfile import ZipFile

import pytest

from knowundo.version import __version__

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


def call(*words: object, folder: Path) -> str:
    """A command in a folder, without this process's paths to the clone; its output."""
    hidden = ("PYTHONPATH", "KNOWUNDO_PLUGINS")
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    done = subprocess.run(
        [str(word) for word in words], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy of the sources, so that no build folder is left in the clone."""
    source = tmp_path_factory.mktemp("source")
    names = ["src/knowundo", "pyproject.toml", "README.md", "LICENSE"]
    call("cp", "-r", "--parents", *names, source, folder=ROOT)
    call(
        sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation",
        "--no-index", "--wheel-dir", source / "dist", source,
        folder=source,
    )  # fmt: skip
    (built,) = (source / "dist").glob("*.whl")
    assert built.name.startswith(f"knowundo-{__version__}-")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment with the wheel.

    The dependencies come from this environment through a `.pth` file, so that no network is needed.
    Such a file adds a folder without reading the `.pth` files in it: an editable install is not
    seen.
    """
    home = tmp_path_factory.mktemp("environment")
    call(sys.executable, "-m", "venv", home, folder=home)
    python = home / "bin" / "python"
    install = ("-m", "pip", "install", "--no-deps", "--no-index", "--quiet", wheel)
    call(python, *install, folder=home)
    packages = next(home.glob("lib/python*/site-packages"))
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return python


def test_it_holds_what_the_package_reads(wheel: Path) -> None:
    package = ROOT / "src" / "knowundo"
    here = {
        str(file.relative_to(package.parent))
        for file in package.rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }
    with ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if name.startswith("knowundo/")}
    assert len(here) > 100
    assert packed == here


def test_it_is_the_wheel_that_is_imported(installed: Path, tmp_path: Path) -> None:
    code = "import knowundo; print(knowundo.__file__, knowundo.__version__)"
    file, version = call(installed, "-c", code, folder=tmp_path).split()
    assert Path(file).is_relative_to(installed.parents[1])
    assert version == __version__


def test_the_demo_runs_from_it(installed: Path, tmp_path: Path) -> None:
    """The whole demo on two people and one method; all of its package data is read."""
    command = installed.parent / "knowundo"
    listed = json.loads(call(command, "list", "presets", "--json", folder=tmp_path))
    assert "demo" in [row["name"] for row in listed]
    variants = "unlearn.variants=[{preset: memflex}]"
    small = ["data.subjects=2", "memorize.epochs=2", "evaluate.resamples=10", variants]
    sets = [word for pair in small for word in ("--set", pair)]
    out = tmp_path / "demo"
    results = json.loads(call(command, "demo", *sets, "--out", out, "--json", folder=tmp_path))
    roles = {variant["role"] for variant in results["variants"]}
    assert roles >= {"base", "memorized", "retain", "unlearned"}
    assert "memflex" in (out / "report.html").read_text()
    call(command, "verify", out, folder=tmp_path)
