"""What `pip install` would bring: a wheel with all files of the library, which runs anywhere."""

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCES = ["pyproject.toml", "README.md", "LICENSE", "MANIFEST.in"]
OURS = {str(p.relative_to(ROOT)) for p in (ROOT / "looped").rglob("*") if p.is_file() and "__pycache__" not in p.parts}
IN_THE_WHEEL = """
import shutil
from pathlib import Path
import looped
from looped.nn.native.library import HERE, SOURCES, library

assert Path(looped.__file__).is_relative_to(Path(__file__).parent / "installed")
assert all((HERE / name).exists() for name in SOURCES)
assert library() is not None or not shutil.which("c++")
"""


def run(*words: str, folder: Path, **environment: str) -> str:
    done = subprocess.run(words, cwd=folder, env=os.environ | environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with both archives. The build leaves files beside its sources, so it gets a copy."""
    folder = tmp_path_factory.mktemp("wheel")
    for name in SOURCES:
        shutil.copy(ROOT / name, folder)
    for name in ("looped", "tests"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    run(sys.executable, "-m", "build", "--no-isolation", folder=folder)
    return folder / "dist"


def test_both_archives_hold_the_library_and_no_tests(dist: Path):
    (wheel,) = dist.glob("*.whl")
    (source,) = dist.glob("*.tar.gz")
    packed = set(zipfile.ZipFile(wheel).namelist())
    assert {name for name in packed if ".dist-info/" not in name} == OURS
    assert {"looped/py.typed", "looped/nn/native/block.cpp", "looped/theory/computer/programs/sort.asm"} <= OURS
    with tarfile.open(source) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert names >= {*OURS, *SOURCES}
    assert not {name for name in names if name.startswith("tests")}


def test_an_installed_wheel_runs_anywhere(dist: Path, tmp_path: Path):
    (wheel,) = dist.glob("*.whl")
    installed = tmp_path / "installed"
    run(sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(installed), str(wheel), folder=dist)
    (tmp_path / "check.py").write_text(IN_THE_WHEEL)
    run(sys.executable, "check.py", folder=tmp_path, PYTHONPATH=str(installed))
    help_text = run(sys.executable, "-m", "looped", "--help", folder=tmp_path, PYTHONPATH=str(installed))
    assert help_text.startswith("usage: looped ")
    assert run(str(installed / "bin/looped"), "recipes", folder=tmp_path, PYTHONPATH=str(installed))
