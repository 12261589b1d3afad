"""Mistakes of the user: each ends in one clear line and exit code 2, and nothing is lost."""

import errno
import hashlib
import json
import lzma
import pickle
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from safetensors.torch import load_file

from looped import files
from looped.cli import main

SMALL = (
    "--model.d-model 16 --model.num-heads 2 --optim.warmup-steps 2 --train.steps 4 --train.batch-size 8 "
    "--train.eval-examples 8 --train.device cpu --train.precision fp32 --train.compile False --train.workers 0 "
)
# Three run folders, one of each way to read a user's file. That of the strings knows at most 3 loops.
RUNS = {
    "strings": "edit-distance-small --task.length 4 --model.num-loops 2 --model.modulation table "
    "--model.max-loops 3 " + SMALL,
    "boards": "sudoku --task.box 2 --task.pool 64 --task.min-clues 5 --task.max-clues 8 --model.num-loops 2 "
    "--schedule.kind curriculum --schedule.min-loops 1 --schedule.max-loops 2 --schedule.every 400 " + SMALL,
    "sums": "countdown-looped --task.numbers 3 --task.max-number 9 --task.max-target 20 --model.num-loops 2 " + SMALL,
}
STEP = "strings/checkpoints/step_000004"
GOOD_BOARD = "31.22....21..32."
DEMO = "train edit-distance-small --out new "

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("trained")
    for name, words in RUNS.items():
        assert main(["train", *shlex.split(words), "--out", str(root / name)]) == 0
        assert (root / name / "checkpoints/step_000004/optimizer.safetensors").exists()
    return root


@pytest.fixture
def folder(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a copy of the runs."""
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


# What there is before the command: files by name, or something done to the runs.


def put(name: str, content: str | bytes) -> Callable[[], object]:
    return lambda: Path(name).write_bytes(content if isinstance(content, bytes) else content.encode())


def cut(name: str, keep: float = 0.5) -> Callable[[], object]:
    def prepare() -> None:
        content = Path(name).read_bytes()
        Path(name).write_bytes(content[: int(keep * len(content))])

    return prepare


def config(name: str, old: str, new: str) -> Callable[[], object]:
    def prepare() -> None:
        path = Path(name) / "config.json"
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new))

    return prepare


def lines(*rows: str) -> Callable[[], object]:
    return put("in.txt", "".join(row + "\n" for row in rows))


NO_CHECKPOINT = put("strings/best.json", '{"step": 3, "metric": "accuracy", "value": 0.5}')


def no_checkpoint() -> None:
    shutil.rmtree("strings/checkpoints")


def folder_in_the_way() -> None:
    Path("in.txt").mkdir()


class Case(NamedTuple):
    command: str
    says: tuple[str, ...]
    """Parts of the message."""
    prepare: Callable[[], object] | None = None


CASES = {
    # Words that do not exist
    "command": Case("trian edit-distance-small", ("'trian'", "did you mean 'train'")),
    "recipe": Case("train edit-distance-smal", ("'edit-distance-smal'", "did you mean 'edit-distance-small'")),
    "option": Case(DEMO + "--train.stepz 9", ("--train.stepz", "did you mean --train.steps?")),
    "option without its part": Case(DEMO + "--num-loops 9", ("--num-loops", "did you mean --model.num-loops?")),
    "option of evaluate": Case("evaluate strings --loop 2", ("--loop", "did you mean --loops?")),
    "option's value": Case(DEMO + "--train.loss al", ("--train.loss", "'al'", "'last', 'all', 'window', 'task'")),
    "split": Case("evaluate strings --split tset", ("--split", "'tset'", "'validation', 'test'")),
    "field of another task": Case("train sudoku --out new --task.length 9", ("--task.length",)),
    # Loops and exit rules
    "no loops to solve with": Case("solve strings in.txt --num-loops 0", ("num_loops=0", "at least 1"), lines("ab ba")),
    "loops beyond the table": Case(
        "solve strings in.txt --num-loops 4", ("num_loops=4", "at most 3, the max_loops"), lines("ab ba")
    ),
    "calibrate no loops": Case("calibrate strings --loops 0 1", ("loops=[0, 1,", "1 to 3, for which")),
    "calibrate beyond the table": Case("calibrate strings --loops 4", ("loops=[2, 4]", "1 to 3, for which")),
    "tolerance": Case("calibrate strings --tolerance -1", ("tolerance=-1.0", "at least 0")),
    "examples of calibrate": Case("calibrate strings --examples 0", ("examples=0", "at least 1")),
    "unknown exit rule": Case("evaluate strings --exit-rule entropie:1", ("'entropie:1'", "did you mean 'entropy'")),
    "exit rule's threshold": Case("evaluate strings --exit-rule kl:-1", ("'kl:-1'", "threshold=-1.0", "positive")),
    "exit rule without training": Case(
        "solve strings in.txt --exit-rule gate:0.5", ("gate:0.5", "model.halting='gate'", "'none'"), lines("ab ba")
    ),
    "halting without its loss": Case(DEMO + "--model.halting act", ("train.loss='last'", "'halting'")),
    "loss without halting": Case(DEMO + "--train.loss halting", ("train.loss='halting'", "model.halting='none'")),
    "recommendation": Case(
        "evaluate strings", ("strings/calibration.json", "looped calibrate"), put("strings/calibration.json", "{}")
    ),
    "word too many": Case("show strings boards", ("boards", "looped show --help")),
    "argument missing": Case("solve strings", ("Missing", "one problem a line")),
    "value missing": Case(DEMO + "--train.steps", ("Missing value", "--train.steps")),
    "no recipe to compare": Case("compare", ("recipes=()", "at least one")),
    "unknown recipe to compare": Case("compare sudokoo", ("'sudokoo'", "did you mean 'sudoku'")),
    "override without value": Case("compare sudoku --out new --override train.steps", ("train.steps", "field=value")),
    "override of nothing": Case(
        "compare sudoku --out new --override trian.steps=4", ("--trian.steps", "did you mean --train.steps?")
    ),
    "option twice": Case(
        "compare sudoku --out new --override train.steps=9 --override task.box=2", ("--override", "2 times", "once")
    ),
    "seed of compare and of override": Case(
        "compare sudoku --out new --override train.seed=9", ("--train.seed", "2 times", "once")
    ),
    "override out of range": Case("compare sudoku --out new --override train.steps=0", ("train.steps=0", "at least 1")),
    "learning rate to compare": Case(
        "compare sudoku --out new --learning-rates -1", ("learning_rate=-1.0", "positive")
    ),
    "no runs at a time": Case("compare sudoku --out new --jobs 0", ("--jobs 0", "at least one")),
    # Types and ranges
    "type": Case(DEMO + "--train.steps many", ("--train.steps", "'many'", "INT")),
    "batch of none": Case(DEMO + "--train.batch-size 0", ("train.batch_size=0", "at least 1")),
    "learning rate": Case(DEMO + "--optim.learning-rate -1", ("optim.learning_rate=-1.0", "a positive number")),
    "no loops": Case(DEMO + "--model.num-loops 0", ("model.num_loops=0", "at least 1")),
    "no steps": Case(DEMO + "--train.steps 0", ("train.steps=0", "at least 1")),
    "heads": Case(DEMO + "--model.num-heads 5", ("model.num_heads=5", "a divisor of d_model=64")),
    "warm-up": Case(DEMO + "--train.steps 50", ("optim.warmup_steps=100", "at most train.steps=50")),
    "parts": Case(DEMO + "--train.accumulation 3", ("train.batch_size=128", "a multiple of 3")),
    "target": Case(DEMO + "--train.target 98", ("train.target=98.0", "from 0 to 1")),
    "length": Case(DEMO + "--task.length 3", ("task.length=3", "4 to 1000")),
    "clues": Case("train sudoku --out new --task.max-clues 81", ("task.max_clues=81", "1 to 80")),
    "held out": Case(
        "train countdown-looped --out new --task.held-out 0", ("task.held_out=0.0", "at least one target")
    ),
    "vocabulary": Case(DEMO + "--model.vocab-size 5", ("model.vocab_size=5", "at least 29", "edit_distance")),
    "vectors": Case(DEMO + "--model.inputs vectors", ("model.inputs='vectors'", "'tokens'")),
    "device": Case(DEMO + "--train.device gpu", ("'gpu'", "--train.device", "'auto', 'cpu', 'cuda', 'mps'")),
    # Settings that contradict each other or have no effect
    "gate offset": Case(DEMO + "--model.gate-offset 1", ("model.gate_offset=1", "no effect", "modulation='none'")),
    "timestep": Case(DEMO + "--model.timestep both", ("model.timestep='both'", "no effect", "modulation='none'")),
    "window": Case(DEMO + "--train.loss-window 2", ("train.loss_window=2", "no effect", "loss='last'")),
    "no window": Case(DEMO + "--train.loss window", ("train.loss_window=None", "a number of loops")),
    "wide window": Case(
        DEMO + "--train.loss window --train.loss-window 5", ("train.loss_window=5", "at most the 4 loops")
    ),
    "no every": Case(
        DEMO + "--schedule.kind curriculum --schedule.min-loops 1 --schedule.max-loops 2",
        ("schedule.every=None", "a number of steps"),
    ),
    "range of loops": Case(
        DEMO + "--schedule.kind random --schedule.min-loops 3 --schedule.max-loops 2",
        ("schedule.min_loops=3", "at most max_loops=2"),
    ),
    "gradient of all": Case(
        DEMO + "--train.loss all --schedule.num-grad-loops 1", ("schedule.num_grad_loops=1", "None", "loss='all'")
    ),
    "rows without table": Case(DEMO + "--model.max-loops 4", ("model.max_loops=4", "no effect")),
    "table without rows": Case(DEMO + "--model.modulation table", ("model.max_loops=None", "number of loops")),
    "rating of generated": Case(
        "train sudoku --out new --task.min-rating 3", ("task.min_rating=3.0", "no effect", "generated")
    ),
    "files and pool": Case(
        "train sudoku --out new --task.files in.txt --task.pool 9", ("task.pool=9", "no effect", "files are given")
    ),
    # Run folders
    **{
        f"{command}: no run folder": Case(f"{command} empty{rest}", ("empty", "not a run folder (no config.json)"))
        for command, rest in (("evaluate", ""), ("solve", " -"), ("show", ""), ("report", " --out new"))
    },
    "report: no folder": Case("report absent --out new", ("absent", "no such folder")),
    "no checkpoint": Case("evaluate strings", ("strings", "no checkpoint yet"), no_checkpoint),
    "config cut short": Case("evaluate strings", ("strings/config.json", "not JSON"), cut("strings/config.json")),
    "config no object": Case("show strings", ("strings/config.json", "an object"), put("strings/config.json", "[1]")),
    "config not UTF-8": Case("show strings", ("strings/config.json",), put("strings/config.json", b"\xff{}")),
    "config key": Case(
        "show strings", ("config.json", "run.model.d_modle", "'d_model'"), config("strings", "d_model", "d_modle")
    ),
    "config value": Case(
        "show boards",
        ("boards/config.json", "run.schedule.kind='curiculum'", "'curriculum'"),
        config("boards", '"curriculum"', '"curiculum"'),
    ),
    "config type": Case(
        "show strings", ("config.json", "num_loops='2'", "int"), config("strings", '"num_loops": 2', '"num_loops": "2"')
    ),
    "weights cut short": Case("evaluate strings", (STEP, "cut short"), cut(f"{STEP}/model.safetensors")),
    "no weights": Case("solve strings -", (STEP, "cut short"), put(f"{STEP}/model.safetensors", "")),
    "weights are foreign": Case(
        "evaluate strings", (STEP, "damaged"), put(f"{STEP}/model.safetensors", pickle.dumps({"step": print}))
    ),
    "summary cut short": Case("show strings", ("strings/summary.json", "not JSON"), cut("strings/summary.json")),
    "best cut short": Case("evaluate strings", ("strings/best.json", "not JSON"), cut("strings/best.json")),
    "best of no checkpoint": Case("evaluate strings", ("strings", "no checkpoint of step 3", "4"), NO_CHECKPOINT),
    "architecture": Case(
        "evaluate strings",
        (STEP, "of another architecture", "(29, 16) here and (29, 32) in the model"),
        config("strings", '"d_model": 16', '"d_model": 32'),
    ),
    "metrics of the report": Case(
        "report strings --out new", ("strings/metrics.jsonl:2", "not JSON"), cut("strings/metrics.jsonl", 0.9)
    ),
    "folder taken": Case(
        f"train {RUNS['strings']} --out strings", ("strings", "already holds a run", "resume it or choose another")
    ),
    "resumed as another": Case(
        f"train {RUNS['strings']} --out strings --resume --train.seed 7",
        ("strings", "train.seed=7", "the folder has 0"),
    ),
    "resumed from garbage": Case(
        f"train {RUNS['strings']} --out strings --resume --train.stepz 8", ("--train.stepz", "--train.steps")
    ),
    "evaluate no loops": Case("evaluate strings --loops 0", ("loops=[0]", "1 to 3")),
    "evaluate twice": Case("evaluate boards --loops 2 2", ("loops=[2, 2]", "different loop counts")),
    "evaluate beyond the table": Case("evaluate strings --loops 2 4", ("loops=[2, 4]", "1 to 3", "has weights")),
    "evaluate loops type": Case("evaluate boards --loops two", ("--loops", "'two'", "INT")),
    "unknown group": Case("evaluate strings --groups 40", ("group='40'", "4")),
    "group twice": Case("evaluate strings --groups 4 4", ("groups=['4', '4']", "different groups")),
    "no examples": Case("evaluate strings --examples 0", ("examples=0", "at least 1")),
    "solve in no loops": Case("solve boards in.txt --num-loops 0", ("num_loops=0", "at least 1"), lines(GOOD_BOARD)),
    "solve beyond the table": Case("solve strings in.txt --num-loops 4", ("4", "3"), lines("abcd abda")),
    # The user's files
    "no file": Case("solve boards in.txt", ("in.txt", "No such file")),
    "a folder": Case("solve boards in.txt", ("in.txt", "Is a directory"), folder_in_the_way),
    "empty file": Case("solve boards in.txt", ("in.txt", "empty file"), put("in.txt", "")),
    "blank file": Case("solve boards in.txt", ("in.txt", "empty file"), put("in.txt", "\n \n")),
    "not UTF-8": Case("solve boards in.txt", ("in.txt", "not UTF-8", "byte 3"), put("in.txt", b"31.\xff2")),
    "xz cut short": Case(
        "solve boards in.txt", ("in.txt", "damaged or cut short"), put("in.txt", lzma.compress(b"31.22" * 99)[:-9])
    ),
    "gzip in name only": Case(
        "solve boards in.txt", ("in.txt", "damaged or cut short"), put("in.txt", b"\x1f\x8b" + b"nothing" * 9)
    ),
    "board too short": Case(
        "solve boards in.txt", ("in.txt, line 2", "expected 16 characters, not 15"), lines(GOOD_BOARD, GOOD_BOARD[:-1])
    ),
    "board of letters": Case(
        "solve boards in.txt", ("in.txt, line 3", "'x'", "1 to 4"), lines(GOOD_BOARD, "", "x" + GOOD_BOARD[1:])
    ),
    "board of large digits": Case("solve boards in.txt", ("line 1", "'5'", "1 to 4"), lines("5" + GOOD_BOARD[1:])),
    "wrong solution": Case(
        "solve boards in.txt",
        ("in.txt, line 2", "the stated solution is not that of the puzzle"),
        lines("puzzle,solution", f"{GOOD_BOARD},{'1234' * 4}"),
    ),
    "no solution": Case("solve boards in.txt", ("in.txt, line 1", "has no solution"), lines("11" + "." * 14)),
    "several solutions": Case("solve boards in.txt", ("in.txt, line 1", "more than one solution"), lines("." * 16)),
    "hash": Case(
        "solve boards in.txt", ("in.txt, line 1", "hash '0123456789ab'"), lines(f"0123456789ab {GOOD_BOARD} 2")
    ),
    "no column of puzzles": Case("solve boards in.txt", ("in.txt, line 1", "puzzle"), lines("a,b", "1,2")),
    "only bad boards": Case(
        "solve boards in.txt --on-bad-row skip", ("in.txt", "no Sudoku puzzle", "1 bad rows"), lines("." * 16)
    ),
    "bad board in training": Case(
        "train sudoku --out new --train.workers 0 --train.compile False --task.box 2 --task.files in.txt "
        "--task.min-clues 5 --task.max-clues 8",
        ("in.txt, line 2", "more than one solution"),
        lines(GOOD_BOARD, "." * 16),
    ),
    "string of digits": Case("solve strings in.txt", ("in.txt, line 2", "'12'", "a-z"), lines("abcd abda", "abc 12")),
    "three strings": Case("solve strings in.txt", ("in.txt, line 1", "two strings, not 3"), lines("ab cd ef")),
    "strings too long": Case("solve strings in.txt", ("line 1", "9 and 3", "6 letters"), lines("abcabcabc abc")),
    "wrong distance": Case("solve strings in.txt", ("line 1", "states 9", "is 3"), lines("a b c | a b d <sep> 9")),
    "sum of letters": Case("solve sums in.txt", ("in.txt, line 2", "'b'", "1 to 9"), lines("1 2 3 6", "1 b 3 6")),
    "too few numbers": Case("solve sums in.txt", ("line 1", "3 values; expected 3", "on_bad_row=skip"), lines("1 2 6")),
    "number too large": Case("solve sums in.txt", ("line 1", "10", "1 to 9"), lines("1 2 10 6")),
    # Where to write
    "solve below a file": Case(
        "solve boards in.txt --out in.txt/answers.csv", ("in.txt/answers.csv", "Not a directory"), lines(GOOD_BOARD)
    ),
    "solve into no folder": Case(
        "solve boards in.txt --out no/a.csv", ("no/a.csv", "No such file or directory"), lines(GOOD_BOARD)
    ),
    "solve into a folder": Case("solve boards in.txt --out empty", ("empty", "Is a directory"), lines(GOOD_BOARD)),
    "train below a file": Case(
        f"train {RUNS['strings']} --out in.txt/run", ("in.txt/run", "Not a directory"), lines("a file")
    ),
    "report below a file": Case("report strings --out in.txt", ("in.txt",), lines("a file")),
    "compare below a file": Case("compare edit-distance-small --out in.txt", ("in.txt",), lines("a file")),
    "full disk": Case("solve boards in.txt --out /dev/full", ("/dev/full", "No space left"), lines(GOOD_BOARD)),
    "no cuda": Case(DEMO + "--train.device cuda", ("device='cuda'", "this machine has no cuda devices")),
    "too many devices": Case(
        DEMO + "--train.device cuda --train.devices 2", ("device='cuda'", "this machine has no cuda devices")
    ),
}


def contents(folder: Path) -> dict[str, str]:
    """The digest of every file in the folder, and every folder."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "folder"
        for path in folder.rglob("*")
    }


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_mistake_is_one_clear_line(
    case: Case, folder: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    if "/dev/full" in case.command and not Path("/dev/full").is_char_device():
        pytest.skip("no /dev/full here")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # for other processes
    (folder / "empty").mkdir()
    if case.prepare:
        case.prepare()
    before = contents(folder)
    assert before["strings/best.json"]

    code = main(shlex.split(case.command))

    out, err = capfd.readouterr()
    assert (code, out) == (2, ""), err
    assert err.startswith("looped: error: ")
    assert err.endswith("\n")
    assert err.count("\n") == 1, err
    for part in case.says:
        assert part in err
    assert contents(folder) == before
    assert not Path("/dev/full").exists() or Path("/dev/full").is_char_device()


@pytest.mark.parametrize(
    ("name", "content"),
    [(f"{STEP}/model.safetensors", b"\x80garbage" * 9), ("strings/best.json", b"{}")],
    ids=["garbage", "best of no step"],
)
def test_damage_of_any_kind_is_one_line(name: str, content: bytes, folder: Path, capsys: pytest.CaptureFixture[str]):
    put(name, content)()
    assert main(["evaluate", "strings"]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert name.partition("/model")[0] in err


def test_bad_rows_are_skipped_and_counted(folder: Path, capsys: pytest.CaptureFixture[str]):
    lines(GOOD_BOARD, "." * 16, "3", GOOD_BOARD)()
    assert main(shlex.split("solve boards in.txt --on-bad-row skip --format jsonl")) == 0
    out, err = capsys.readouterr()
    assert [json.loads(line)["input"] for line in out.splitlines()] == [GOOD_BOARD.replace(".", "0")] * 2
    assert err == "in.txt: skipped the bad rows in lines 2, 3\n2 bad rows skipped\n"


def test_full_disk_in_training_keeps_what_was_there(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    command = ["train", *shlex.split(RUNS["strings"]), "--train.save-every", "2", "--out", "new"]
    sync, full = files.sync, True

    def sync_on_full_disk(path: Path) -> None:
        if full and "step_000004." in str(path):
            raise OSError(errno.ENOSPC, "No space left on device")
        sync(path)

    monkeypatch.setattr(files, "sync", sync_on_full_disk)
    assert main(command) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert [line for line in err.splitlines() if "rror" in line] == err.splitlines()[-1:]
    assert "Traceback" not in err
    for part in ("looped: error: new/checkpoints/step_000004", "earlier ones are intact", "No space left"):
        assert part in err.splitlines()[-1]
    assert [path.name for path in (folder / "new/checkpoints").iterdir()] == ["step_000002"]

    full = False  # there is room again: the run goes on from what it had
    assert main([*command, "--resume"]) == 0
    same = [load_file(folder / run / "checkpoints/step_000004/optimizer.safetensors") for run in ("new", "strings")]
    torch.testing.assert_close(*same, rtol=0, atol=0)
