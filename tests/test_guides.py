"""Every block of the guides runs, in the order of its page, and prints what the page says.

The blocks of a page share one folder, and its Python blocks their names. `title="FILE"` makes a file of a block.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
GUIDES = sorted((ROOT / "docs/guides").glob("*.md"))
BLOCK = re.compile(r'^```(\w+)(?: title="([\w.]+)")?\n(.*?)^```$(?:\s+^```text\n(.*?)^```$)?', re.MULTILINE | re.DOTALL)
START = """\
import contextlib, io, os, shlex, sys
from pathlib import Path
from looped.cli import main

def command(line):
    print(line, file=sys.stderr)
    assert main(shlex.split(line, comments=True)[1:]) == 0, line

def run(code, names, expected):
    with contextlib.redirect_stdout(io.StringIO()) as output:
        exec(code, names)
    assert not expected or output.getvalue() == expected, output.getvalue()
"""


def program(page: Path) -> str:
    """The blocks of a page as a program. It trains for few steps, because nobody reads the answers."""
    lines = [f"print({page.name!r}, file=sys.stderr)", "names = {}"]
    lines += [f"os.makedirs({page.stem!r}); os.chdir({page.stem!r})"]
    for language, file, code, expected in BLOCK.findall(page.read_text()):
        code = re.sub(r"(--train.steps |steps=)\d{3,}", r"\g<1>110", code)
        if file:
            lines.append(f"Path({file!r}).write_text({code!r})")
        elif language == "sh":
            commands = code.replace("\\\n", "").splitlines()
            assert all(line.startswith("looped ") for line in commands), commands
            lines += [f"command({line!r})" for line in commands]
        else:
            assert language == "python", language
            lines.append(f"run({code!r}, names, {expected!r})")
    return "\n".join([*lines, "os.chdir('..')"])


def test_the_guides_run(tmp_path: Path):
    """In one process, because each would wait for torch and transformers again."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hf")}
    words = [sys.executable, "-c", "\n".join([START, *map(program, GUIDES)])]
    done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.parametrize("page", GUIDES, ids=lambda page: page.stem)
def test_no_block_is_left_out(page: Path):
    text = page.read_text()
    found = BLOCK.findall(text)
    assert found
    assert len(found) + sum(bool(expected) for *_, expected in found) == len(re.findall("^```", text, re.MULTILINE)) / 2
