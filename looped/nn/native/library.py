"""Compiles block.cpp for this processor, once, and loads it."""

import ctypes
import functools
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path

from looped.files import write_atomic

HERE = Path(__file__).parent
SOURCES = ("block.cpp", "functions.h", "products.h")
FLAGS = (
    "-std=c++17", "-O3", "-march=native", "-fPIC", "-shared",
    # Sums may be reordered, so loops become vectors. Infinities and NaN keep their meaning: training looks for them.
    "-fno-math-errno", "-fno-trapping-math", "-fassociative-math", "-fno-signed-zeros",
)  # fmt: skip
OPTIONAL_FLAGS = ("-fopenmp", "-mprefer-vector-width=512")
"""Not every compiler or processor has these."""


def find_compiler() -> str | None:
    """The C++ compiler: $CXX, or the first of c++, g++ and clang++ that is installed."""
    return next(filter(None, map(shutil.which, (os.environ.get("CXX", "c++"), "g++", "clang++"))), None)


@functools.cache
def library() -> ctypes.CDLL | None:
    """The compiled functions; None if no compiler is found or it fails.

    The file is kept in `$XDG_CACHE_HOME/looped` (~/.cache/looped), under a name for this source, compiler and
    processor. The first call on a machine takes some seconds.
    """
    compiler = find_compiler()
    if compiler is None or os.name != "posix":
        return None
    try:
        version = subprocess.run([compiler, "--version"], capture_output=True, check=True).stdout
        key = hashlib.sha256(version + repr((FLAGS, OPTIONAL_FLAGS, processor())).encode())
        for source in SOURCES:
            key.update((HERE / source).read_bytes())
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "looped"
        path = cache / f"block-{key.hexdigest()[:16]}.so"
        if not path.exists():
            cache.mkdir(parents=True, exist_ok=True, mode=0o700)
            write_atomic(path, compiled(compiler))
        return ctypes.CDLL(str(path))
    except (OSError, RuntimeError, subprocess.SubprocessError):
        return None  # everything works without, only slower


def compiled(compiler: str) -> bytes:
    """The content of the shared library, with as many optional flags as the compiler takes."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "block.so"
        for optional in (OPTIONAL_FLAGS, OPTIONAL_FLAGS[:1], OPTIONAL_FLAGS[1:], ()):
            command = [compiler, *FLAGS, *optional, str(HERE / SOURCES[0]), "-o", str(path)]
            if subprocess.run(command, capture_output=True).returncode == 0:
                return path.read_bytes()
    raise RuntimeError(f"{compiler}: cannot compile {SOURCES[0]}")


def processor() -> str:
    """A description that differs between processors with other instructions."""
    try:
        lines = Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines()
        return "\n".join(line for line in lines if line.startswith(("model name", "flags", "Features")))
    except OSError:
        return platform.machine() + platform.processor()
