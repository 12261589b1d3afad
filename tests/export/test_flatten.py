"""One file from the modules of a package: it runs, reads well, and refuses names that would hide one another."""

import ast
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from looped.export.flatten import flatten
from looped.export.folders import modeling_code

PARTS = {
    "one.py": '''"""The first."""
import math
from jaxtyping import Float

# The number of everything.
BASE = 2  # noqa: E000
"""Below a constant."""


def double(x: "Float") -> int:
    """Twice x."""
    return BASE * x


def unused() -> float:
    return math.pi
''',
    "two.py": '''"""The second."""
import os.path as place
from typing import TYPE_CHECKING

from {package}.one import double
from {package}.slow import fast

if TYPE_CHECKING:
    from {package}.one import unused


class Thing:
    """A thing."""

    @property
    def path(self) -> str:
        return place.join("a", "b")

    def save(self) -> None:
        unused()

    def run(self, x: int) -> int:
        import json

        from {package}.one import BASE

        assert json.dumps(x)

        # Quick, if it can be.
        if fast(x):
            return fast(x)
        return double(x) + BASE


KINDS = []
KINDS.append(Thing)
''',
    "slow.py": "def fast(x: int) -> int:\n    raise RuntimeError\n",
}


def package(folder: Path, monkeypatch: pytest.MonkeyPatch, **changes: str) -> str:
    """A package with these modules, in place of or besides PARTS; returns its name."""
    name = f"flat_{folder.name.replace('-', '_')}"
    root = folder / name
    root.mkdir()
    (root / "__init__.py").touch()
    for file, text in {**PARTS, **{f"{module}.py": text for module, text in changes.items()}}.items():
        (root / file).write_text(text.replace("{package}", name))
    monkeypatch.syspath_prepend(str(folder))
    return name


def run(text: str) -> Mapping[str, Any]:
    space: dict[str, Any] = {}
    exec(compile(text, "flat", "exec"), space)
    return space


def test_everything_that_is_needed_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    name = package(tmp_path, monkeypatch)
    text = flatten([f"{name}.two.Thing"], omit=[f"{name}.slow", f"{name}.two.Thing.save"])
    space = run(text)
    assert space["Thing"]().run(5) == 12
    assert space["Thing"]().path == "a/b"
    assert space["KINDS"] == [space["Thing"]], "a statement that acts on what is needed"
    assert not {"unused", "math", "fast", "json"} & space.keys()
    assert not hasattr(space["Thing"], "save")
    assert name not in "".join(line for line in text.splitlines() if not line.startswith("#"))
    assert '# The number of everything.\nBASE = 2\n"""Below a constant."""\n' in text
    assert text.index("BASE = 2") < text.index("def double") < text.index("class Thing")


@pytest.mark.parametrize(
    ("change", "omit", "message"),
    [
        ({"one": PARTS["one.py"] + "\n\nclass Thing:\n    x = double\n"}, [], ""),
        ({"one": PARTS["one.py"].replace("BASE * x", "join(x)") + "\n\ndef join(x): return place\nplace = 1\n"}, [],
         "place: is defined in .*one and in os.path; expected different names"),
        ({"slow": "BASE = 3\n\n\ndef fast(x): return BASE\n"}, [], "BASE: is defined in .*slow and in .*one"),
        ({"slow": "import json as place\n\n\ndef fast(x): return place\n"}, [], "place: is .* in .*, but .* elsewhere"),
        ({"slow": ""}, [], "two: flat.*slow.fast: expected a definition"),
        ({}, ["{package}.one.nothing"], "omit: .*one.nothing is used nowhere"),
        ({}, ["{package}.slow", "{package}.one.unused"], "Thing.save: nothing is left of it"),
    ],
)  # fmt: skip
def test_names_that_hide_one_another(
    change: dict[str, str], omit: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    name = package(tmp_path, monkeypatch, **change)
    words = [entry.replace("{package}", name) for entry in omit]
    if not message:  # a name that nothing needs hides none
        assert flatten([f"{name}.two.Thing"], omit=words)
        return
    with pytest.raises(ValueError, match=message):
        flatten([f"{name}.two.Thing"], omit=words)


def test_the_file_of_the_model_reads_well(tmp_path: Path):
    text = modeling_code()
    (tmp_path / "modeling_looped.py").write_text(text)
    packages = {
        name.partition(".")[0]
        for node in ast.walk(ast.parse(text))
        for name in ([alias.name for alias in node.names] if isinstance(node, ast.Import) else
                     [node.module or ""] if isinstance(node, ast.ImportFrom) else [])
    }  # fmt: skip
    assert packages - set(sys.stdlib_module_names) == {"torch", "transformers"}
    assert not [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.ImportFrom) and node.level]
    assert "Apache License" in text[:1000]
    for words in (["format", "--diff"], ["check", "--select", "E,F,W,B", "--ignore", "F722"]):
        command = [sys.executable, "-m", "ruff", *words, "--isolated", "--line-length", "120", str(tmp_path)]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
