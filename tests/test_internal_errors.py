"""Faults of the program or the machine: one line, exit code 3, and the traceback in a file."""

import subprocess
import sys
from pathlib import Path

import pytest

from looped.cli import main


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (RuntimeError("a fault\nof two lines \x1b[2J"), "failed: RuntimeError: a fault; the traceback is in "),
        (MemoryError(), "failed: too little memory; expected a smaller"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), "failed: too little memory"),
    ],
)
def test_a_fault_is_one_line_and_a_file(
    error: Exception, says: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    def recipes(words: list[str]) -> None:
        raise error

    monkeypatch.setattr("looped.commands.recipes.main", recipes)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert main(["recipes", "a word"]) == 3
    err = capsys.readouterr().err
    assert err.startswith(f"looped: {says}")
    assert err.count("\n") == 1
    (file,) = tmp_path.iterdir()
    assert err.strip().endswith(str(file))
    text = file.read_text()
    assert text.startswith("looped recipes 'a word'\nTraceback")
    monkeypatch.setenv("LOOPED_DEBUG", "1")
    with pytest.raises(type(error)):
        main(["recipes"])


def test_an_exit_of_the_users_code_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    for code, expected in (("no\ndata", (2, "looped: error: no data\n")), (5, (5, "")), (None, (0, ""))):
        monkeypatch.setattr("looped.commands.recipes.main", lambda words, code=code: sys.exit(code))
        assert (main(["recipes"]), capsys.readouterr().err) == expected


def test_messages_hold_no_control_characters(capsys: pytest.CaptureFixture[str]):
    assert main(["show", "a\x1b[31mred\u202e\x00"]) == 2
    assert capsys.readouterr().err == "looped: error: a\\x1b[31mred\\u202e\\x00: not a run folder (no config.json)\n"


@pytest.mark.parametrize("command", [["recipes"], ["--help"]])
def test_output_to_a_full_disk_is_one_line(command):
    with open("/dev/full", "w") as full:
        done = subprocess.run([sys.executable, "-m", "looped.cli", *command], stdout=full, stderr=subprocess.PIPE)
    assert (done.returncode, done.stderr.count(b"\n")) == (2, 1)
    assert b"No space left on device" in done.stderr
