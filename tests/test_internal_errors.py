"""Faults of the program or the machine: one line, exit code 3, and the traceback in a file."""

import os
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
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "nowhere"))
    assert main(["recipes"]) == 3
    assert capsys.readouterr().err.endswith("cannot be written (No such file or directory); LOOPED_DEBUG=1 prints it\n")
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


def test_no_message_ends_the_work(tmp_path: Path):
    """Standard error may be on a full disk, a pipe without a reader, or closed."""
    looped = [sys.executable, "-m", "looped.cli"]
    train = [
        *looped, "train", "edit-distance-small", "--task.length=4", "--model.d-model=16", "--model.num-heads=2",
        "--optim.warmup-steps=0", "--train.steps=10", "--train.batch-size=8", "--train.workers=0",
        "--train.eval-examples=8", "--train.compile=False", "--train.device=cpu", "--train.log-every=1",
    ]  # fmt: skip
    read, write = os.pipe()
    os.close(read)
    with open("/dev/full", "w") as full, open(write, "w") as pipe:
        for name, stream in (("full", full), ("pipe", pipe)):
            done = subprocess.run([*train, "--out", str(tmp_path / name)], stderr=stream, stdout=subprocess.PIPE)
            assert (done.returncode, b"after 10 steps" in done.stdout) == (0, True)
        assert subprocess.run([*looped, "show", "nowhere"], stderr=full).returncode == 2
    closed = subprocess.run(["sh", "-c", '"$@" 2>&-', "sh", *looped, "show", "nowhere"], stdout=subprocess.PIPE)
    assert (closed.returncode, closed.stdout) == (2, b"")
