"""TAB in the shells: commands, options, choices and run folders. Also `python -m looped`."""

import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from looped.cli import COMMANDS
from looped.commands.completion import CHANGES

PRESS = """
source ./bash
words=($1) && [[ "$1" == *' ' ]] && words+=("")
COMP_WORDS=("${words[@]}") COMP_CWORD=$(( ${#words[@]} - 1 )) COMPREPLY=()
_looped && echo "${#COMPREPLY[@]} ${COMPREPLY[*]}"
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run folder, and with the completion of each shell."""
    folder = tmp_path_factory.mktemp("completion")
    (folder / "runs/mine").mkdir(parents=True)
    for shell in CHANGES:
        words = [sys.executable, "-m", "looped", "completion", shell]
        (folder / shell).write_bytes(subprocess.run(words, check=True, capture_output=True).stdout)
    return folder


def press_tab(folder: Path, line: str) -> list[str]:
    done = subprocess.run(["bash", "-c", PRESS, "bash", line], cwd=folder, capture_output=True, text=True, check=True)
    count, *proposals = done.stdout.split()
    assert int(count) == len(proposals)
    return proposals


def test_bash_proposes_commands_options_and_choices(folder: Path):
    assert press_tab(folder, "looped eva") == ["evaluate"]
    assert press_tab(folder, "looped evaluate runs/mine --spl") == ["--split"]
    assert press_tab(folder, "looped evaluate runs/mine --split ") == ["validation", "test"]
    assert set(COMMANDS) <= set(press_tab(folder, "looped "))


def test_bash_completes_run_folders(folder: Path):
    assert press_tab(folder, "looped report --out ru") == ["runs"]
    assert press_tab(folder, "looped evaluate ru") == []  # `-o default`: the shell then proposes files
    registered = subprocess.run(
        ["bash", "-c", "source ./bash; complete -p looped"], cwd=folder, capture_output=True, text=True, check=True
    )
    assert registered.stdout == "complete -o default -F _looped looped\n"


@pytest.mark.parametrize("shell", CHANGES)
def test_every_shell_knows_every_command_and_files(folder: Path, shell: str):
    text = (folder / shell).read_text()
    assert all(f"'{name}': {{'description'" in text for name in COMMANDS)
    for new in CHANGES[shell].values():
        assert new in text, "tyro's text has changed"
    if shutil.which(shell):
        subprocess.run([shell, "-n", shell], cwd=folder, check=True)  # the text is valid


def test_python_m_looped_tells_its_version(tmp_path: Path):
    words = [sys.executable, "-m", "looped", "--version"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == f"looped {version('looped')}\n"
