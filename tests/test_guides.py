"""Every block of the guides runs, in the order of its page, and prints what the page says.

A page runs in one process and one folder. Its Python blocks share their names, unless `title="FILE"` names a file.
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
import contextlib, io, shlex
from pathlib import Path
from looped.cli import main

def command(line):
    assert main(shlex.split(line, comments=True)[1:]) == 0, line

def printed(code, expected):
    with contextlib.redirect_stdout(io.StringIO()) as output:
        exec(code, globals())
    assert output.getvalue() == expected, output.getvalue()
"""


def program(page: Path) -> str:
    """The blocks of a page as one program. A few steps are enough, because nobody reads the answers."""
    lines = [START]
    for language, file, code, expected in BLOCK.findall(page.read_text()):
        code = re.sub(r"(--train.steps|steps=)( ?)\d{3,}", r"\1\g<2>110", code)
        if file:
            lines.append(f"Path({file!r}).write_text({code!r})")
        elif language == "sh":
            commands = code.replace("\\\n", "").splitlines()
            assert all(line.startswith("looped ") for line in commands), commands
            lines += [f"command({line!r})" for line in commands]
        else:
            assert language == "python", language
            lines.append(f"printed({code!r}, {expected!r})" if expected else code)
    return "\n".join(lines)


@pytest.mark.parametrize("page", GUIDES, ids=lambda page: page.stem)
def test_a_guide_runs(page: Path, tmp_path: Path):
    environment = os.environ | {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    words = [sys.executable, "-c", program(page)]
    done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.parametrize("page", GUIDES, ids=lambda page: page.stem)
def test_no_block_is_left_out(page: Path):
    text = page.read_text()
    found = BLOCK.findall(text)
    assert found
    assert len(found) + sum(bool(expected) for *_, expected in found) == len(re.findall("^```", text, re.MULTILINE)) / 2
