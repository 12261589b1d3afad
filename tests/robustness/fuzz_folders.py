"""Readers of run folders, and of the words of a command line."""

import dataclasses
import hashlib
import json
import shlex
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from fuzz import Reader, command
from kill_points import SMALL
from mutations import changed, damaged, edited, pick

from looped import run_folder as files
from looped.commands.arguments import override_words, training_run
from looped.models.exit_rules import parse_rule
from looped.models.transformer import LoopedTransformer
from looped.models.weights import WEIGHTS, load_weights
from looped.recipes import recipe
from looped.report.reproduction import load_tables
from looped.run_data import FILES, Data
from looped.runs import recommended_setting
from looped.tasks.text.task import SAVED_TOKENIZER
from looped.training.checkpoint import MOMENTS, PROGRESS

SMALL_TEXT = shlex.split(
    "wikitext-looped --task.train-files corpus.txt --task.document line --task.cache prepared --task.tokenizer bpe "
    "--task.bpe-size 300 --task.context 16 --model.d-model 16 --model.num-heads 2 --model.d-head None --model.d-ff 16 "
    "--model.core-layers 1 --model.num-loops 2 --optim.warmup-steps 1 --train.steps 1 --train.batch-size 2 "
    "--train.eval-examples 2 --train.device cpu --train.precision fp32 --train.compile False --train.workers 0"
)
RUN, GOOD = Path("run"), Path("good")
STEP = f"{files.CHECKPOINTS}/step_000002"
IN_CONTEXT = {
    "group": "all", "method": "model", "num_loops": 2, "points": 3, "metric": "squared_error", "value": 0.5, "low": 0.1,
    "high": 1.0, "n": 8, "split": "test", "step": 2,
}  # fmt: skip
DATA = {"settings": "2" * 64, "sources": {"corpus.txt": "0" * 64}, "files": {"tokenizer.json": "1" * 64}}
TABLE = {
    "title": "Table 2", "scale": "demo", "command": "looped reproduce 2",
    "rows": [{"task": "LCS", "model": "looped", "paper": "0.9", "published": [], "corrected": ["run"]}],
    "claims": [{"task": "LCS", "says": "Loops help.", "first": ["run"], "second": ["run"]}], "differs": ["Steps."],
}  # fmt: skip


def trained(steps: int = 2) -> None:
    """A run folder with every file of a finished run, and a copy of it."""
    command("train", *SMALL, "--train.steps", str(steps), "--out", str(RUN))
    command("evaluate", str(RUN), "--examples", "8", "--loops", "1", "2", "--exit-rule", "kl:0.1")
    command("calibrate", str(RUN), "--examples", "8", "--loops", "1")
    Path("in.txt").write_text("abcd abda\n")
    shutil.copytree(RUN, GOOD)


def _with_file(name: str, read: Callable[[], object], cases: int, content: bytes | None = None) -> Reader:
    """A reader of one file of the folder."""
    trained()

    def write_and_read(content: bytes) -> object:
        (RUN / name).write_bytes(content)
        return read()

    valid = [content or (RUN / name).read_bytes()]
    return Reader(valid=valid, read=write_and_read, names=(name,), cases=cases, damage=edited)


def _file(kind: type[files.InFile], cases: int) -> Reader:
    return _with_file(kind.file, lambda: files.read_file(RUN, kind), cases)


def _rows(kind: type[files.InFile], cases: int, content: bytes | None = None) -> Reader:
    return _with_file(kind.file, lambda: files.read_rows(RUN, kind), cases, content)


def config() -> Reader:
    return _with_file(files.CONFIG, lambda: files.read_config(RUN), 900)


def metrics() -> Reader:
    return _rows(files.MetricsRow, 300)


def best() -> Reader:
    return _file(files.Best, 100)


def summary() -> Reader:
    return _file(files.Summary, 200)


def evaluations() -> Reader:
    return _rows(files.EvalRow, 300)


def in_context() -> Reader:
    return _rows(files.InContextRow, 100, json.dumps(IN_CONTEXT).encode() + b"\n")


def answers() -> Reader:
    return _file(files.AnswersByLoop, 200)


def environment() -> Reader:
    return _file(files.Environment, 100)


def data() -> Reader:
    return _with_file(Data.file, lambda: files.read_file(RUN, Data), 100, json.dumps(DATA).encode())


def table() -> Reader:
    return _with_file(files.RunTable.file, lambda: load_tables([RUN]), 200, json.dumps(TABLE).encode())


def calibration() -> Reader:
    return _with_file(files.Calibration.file, lambda: recommended_setting(RUN, 2), 300)


def weights() -> Reader:
    model = LoopedTransformer(_read_model())
    name = f"{STEP}/{WEIGHTS}"
    return Reader(
        valid=[(RUN / name).read_bytes()],
        read=lambda content: ((RUN / name).write_bytes(content), load_weights(model, RUN / name)),
        names=(WEIGHTS,),
        cases=300,
    )


def _read_model() -> Any:
    trained()
    return files.read_config(RUN).model


def saved_model() -> Reader:
    LoopedTransformer(_read_model()).save("saved")
    path = Path("saved/model.json")
    return Reader(
        valid=[path.read_bytes()],
        read=lambda content: (path.write_bytes(content), LoopedTransformer.load("saved")),
        names=("saved/",),
        cases=200,
        damage=edited,
    )


# A command on a folder of which one file is damaged


def _command(names: Sequence[str], words: Sequence[str], cases: int) -> Reader:
    trained()
    valid = [name.encode() + b"\n" + (RUN / name).read_bytes() for name in names]

    def damage(content: bytes, valid: Sequence[bytes], rng: np.random.Generator) -> bytes:
        name, _, inside = content.partition(b"\n")
        return name + b"\n" + (edited if b"json" in name else damaged)(inside, [inside], rng)

    def read(content: bytes) -> None:
        name, _, inside = content.partition(b"\n")
        path = RUN / name.decode()
        path.write_bytes(inside)
        try:
            command(*words)
        finally:
            path.unlink()
            shutil.copytree(GOOD, RUN, dirs_exist_ok=True)

    return Reader(valid=valid, read=read, names=("run/", "run:", "=", "--"), cases=cases, damage=damage)


def show() -> Reader:
    return _command((files.CONFIG, "summary.json"), ["show", str(RUN)], 100)


def evaluate() -> Reader:
    names = (files.CONFIG, "best.json", "calibration.json", f"{STEP}/{WEIGHTS}")
    return _command(names, ["evaluate", str(RUN), "--examples", "8", "--loops", "1", "2"], 120)


def solve() -> Reader:
    names = (files.CONFIG, "best.json", "calibration.json", f"{STEP}/{WEIGHTS}")
    return _command(names, ["solve", str(RUN), "in.txt"], 120)


def report() -> Reader:
    names = ("metrics.jsonl", "eval.jsonl", "summary.json", "answers_by_loop.json", "answers_by_loop.json")
    return _command(names, ["report", str(RUN), "--out", "report"], 25)


def resume() -> Reader:
    """The state of a training that goes on. Half of the changes of tensors leave the encoding right."""
    trained(3)
    command("train", *SMALL, "--train.steps", "2", "--out", "short")
    for name in (GOOD / "summary.json", GOOD / "best.json"):
        name.unlink()
    shutil.rmtree(GOOD / files.CHECKPOINTS)
    shutil.copytree(Path("short") / files.CHECKPOINTS, GOOD / files.CHECKPOINTS)
    tensors = [torch.zeros(3), torch.zeros(3, dtype=torch.int64), torch.full((16, 16), torch.nan), torch.zeros(0)]

    def damage(content: bytes, valid: Sequence[bytes], rng: np.random.Generator) -> bytes:
        name, _, inside = content.partition(b"\n")
        if name == PROGRESS.encode():
            return name + b"\n" + edited(inside, [inside], rng)
        if rng.random() < 0.5:
            return name + b"\n" + damaged(inside, [inside], rng)
        state = changed(safetensors.torch.load(inside), rng, tensors)
        state = state if isinstance(state, dict) else {}
        return name + b"\n" + safetensors.torch.save({key: tensor.clone() for key, tensor in state.items()})

    def read(content: bytes) -> None:
        name, _, inside = content.partition(b"\n")
        shutil.rmtree(RUN)
        shutil.copytree(GOOD, RUN)
        (RUN / STEP / name.decode()).write_bytes(inside)
        command("train", *SMALL, "--train.steps", "3", "--out", str(RUN), "--resume")

    valid = [name.encode() + b"\n" + (GOOD / STEP / name).read_bytes() for name in (PROGRESS, MOMENTS)]
    return Reader(valid=valid, read=read, names=(STEP, "metrics.jsonl"), cases=60, damage=damage)


def task_files() -> Reader:
    """data.json and the tokenizer of a text run, as `solve` reads them from the run folder alone."""
    Path("corpus.txt").write_text("".join(f"A document number {i}.\n" for i in range(400)))
    command("train", *SMALL_TEXT, "--out", str(RUN))
    shutil.copytree(RUN, GOOD)
    Path("in.txt").write_text("A document\n")
    tokenizer = f"{FILES}/{SAVED_TOKENIZER}"

    def damage(content: bytes, valid: Sequence[bytes], rng: np.random.Generator) -> bytes:
        name, _, inside = content.partition(b"\n")
        return name + b"\n" + edited(inside, [inside], rng)

    def read(content: bytes) -> None:
        shutil.copytree(GOOD, RUN, dirs_exist_ok=True)
        name, _, inside = content.partition(b"\n")
        (RUN / name.decode()).write_bytes(inside)
        if name == tokenizer.encode():  # otherwise its sha256 is wrong, and nothing else is read
            stored = json.loads((GOOD / Data.file).read_text())
            stored["files"] = {SAVED_TOKENIZER: hashlib.sha256(inside).hexdigest()}
            (RUN / Data.file).write_text(json.dumps(stored))
        command("solve", str(RUN), "in.txt")

    valid = [name.encode() + b"\n" + (RUN / name).read_bytes() for name in (Data.file, tokenizer)]
    return Reader(valid=valid, read=read, names=("run/",), cases=60, damage=damage)


# Words

LONGEST = 131_071  # bytes of a word; Linux starts no program with a longer one
NUMBERS = [b"0", b"-1", b"1", b"3", b"1.5", b"1e3", b"nan", b"inf", b"", b"1_2", b"9" * 10, b"9" * 30, b"9" * 5000]


def _text(valid: Sequence[str], read: Callable[[str], object], names: tuple[str, ...], cases: int) -> Reader:
    """A reader of a word, which may hold any bytes but zeros."""

    def as_word(content: bytes) -> object:
        return read(content.replace(b"\0", b"")[:LONGEST].decode(errors="surrogateescape"))

    return Reader(valid=[text.encode() for text in valid], read=as_word, names=names, cases=cases)


def exit_rules() -> Reader:
    valid = ["fixed:8", "change:0.05", "kl:0.01/token", "entropy:0.1/min:3", "unchanged:2", "gate:0.5", "act"]
    return _text(valid, parse_rule, ("exit rule",), 900)


def recipes() -> Reader:
    valid = ["sudoku", "edit-distance-small", "wikitext-looped@demo", "in-context-linear-timestep@small", "lcs"]
    valid = [name for name in valid if _is_recipe(name)]
    return _text(valid, recipe, ("recipe", "scale", "@"), 300)


def _is_recipe(name: str) -> bool:
    try:
        recipe(name)
    except ValueError:
        return False
    return True


def overrides() -> Reader:
    valid = [
        "train.steps=500", "model.num-loops=3", "optim.learning-rate=1e-3", "optim.clip-norm=1.5", "train.target=None",
        "task.length=8", "task.eval-lengths=6", "schedule.num-grad-loops=1", "model.halting=none", "train.seed=3",
    ]  # fmt: skip

    def read(word: str) -> object:
        return training_run("edit-distance-small", override_words([word]))

    def damage(content: bytes, valid: Sequence[bytes], rng: np.random.Generator) -> bytes:
        name, _, value = content.partition(b"=")
        if rng.random() < 0.2:
            return damaged(content, valid, rng)
        value = pick(NUMBERS, rng) if rng.random() < 0.5 else damaged(value, [value], rng)
        return name + b"=" + value

    names = ("--", "=", "task.", "train.")
    return dataclasses.replace(_text(valid, read, names, 80), damage=damage)


def words() -> Reader:
    """Command lines that take no time. Words are separated by line feeds."""
    trained()
    valid = [
        "show run", "solve run in.txt --num-loops 2", "solve run in.txt --format jsonl --on-bad-row skip",
        "solve run in.txt --exit-rule kl:0.1", "evaluate run --examples 4 --loops 1 2 --split test",
        "evaluate run --examples 4 --loops 1 --groups 4", "recipes",
        "calibrate run --loops 1 2 --examples 4 --tolerance 0.1",
        "compare edit-distance-small lcs --seeds 0 1 --learning-rates 1e-3 --jobs 1 --override train.steps=500",
    ]  # fmt: skip

    def read(line: str) -> None:
        given = [word for word in line.split("\n") if word]
        # Without --dry-run these would train; a damaged --out could write anywhere.
        command(*given, *(["--dry-run"] if given[:1] == ["compare"] else []))

    valid = [line.replace(" ", "\n") for line in valid]
    names = ("'", "=", "--", "usage", "run", "No such file", "name too long")
    return dataclasses.replace(_text(valid, read, names, 160), damage=_other_words)


def _other_words(content: bytes, valid: Sequence[bytes], rng: np.random.Generator) -> bytes:
    """Words of one or two of the command lines, one of them damaged. Numbers become impossible, not merely large."""
    words, others = content.split(b"\n"), pick(valid, rng).split(b"\n")
    if rng.random() < 0.3:
        words = words[: rng.integers(1, len(words) + 1)] + others[rng.integers(len(others)) :]
    numbers = [place for place, word in enumerate(words) if word.isdigit()]
    if numbers and rng.random() < 0.5:
        words[pick(numbers, rng)] = pick(NUMBERS, rng)
    elif not words[place := rng.integers(len(words))].isdigit():
        words[place] = damaged(words[place], valid, rng)
    return b"\n".join(words)
