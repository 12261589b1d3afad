"""Language models on the command line: training, scores, text, and mistakes in one clear line."""

import contextlib
import json
import lzma
import os
import pty
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from looped.cli import main
from looped.models import parse_rule
from looped.models.generation import Sampling, generate
from looped.tasks.text import Text, TextConfig
from looped.tasks.text.tokenizer import trained_bpe
from looped.training import load_run

SMALL = (
    "--task.context 16 --model.d-model 16 --model.num-heads 2 --model.num-loops 2 --optim.warmup-steps 2 "
    "--train.steps 4 --train.batch-size 8 --train.eval-examples 8 --train.device cpu --train.precision fp32 "
    "--train.compile False --train.workers 0 "
)
TRAIN = "train language-looped --task.bpe-size 300 --task.train-files text.txt " + SMALL


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("home")
    (folder / "text.txt").write_text("".join(f"{n} men and {n} boats\nsail é {n}\n\n" for n in range(200)))
    (folder / "other.txt").write_text("no men, no boats\n" * 20)
    (folder / "short.txt").write_text("few\n")
    (folder / "blank.txt").write_text(" \n")
    (folder / "binary.txt").write_bytes(b"\xff\xfe")
    (folder / "cut.txt.xz").write_bytes(lzma.compress(b"text" * 99)[:-9])
    (folder / "notes").mkdir()
    (folder / "gpt").mkdir()
    (folder / "tokenizer.json").write_text(trained_bpe(["abc"], 260))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(shlex.split(f"{TRAIN} --out run")) == 0
        boards = "--task.box 2 --task.pool 64 --task.min-clues 5 --task.max-clues 8 "
        settings = SMALL.replace("--task.context 16 ", "")
        assert main(shlex.split(f"train sudoku {boards} {settings} --out boards")) == 0
    return folder


@pytest.fixture(autouse=True)
def at_home(home: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(home)


def test_scores_are_perplexities(capsys: pytest.CaptureFixture[str]):
    assert main(shlex.split("evaluate run --loops 1 2 --examples 20")) == 0
    rows = [json.loads(line) for line in Path("run/eval.jsonl").read_text().splitlines()]
    found = {(row["group"], row["metric"]) for row in rows}
    three = {("sliding", f"{part}perplexity") for part in ("", "word_", "byte_")}
    assert found == {*three, ("published", "perplexity")}
    assert all(1 < row["low"] < row["value"] < row["high"] for row in rows)
    assert "sliding" in capsys.readouterr().out
    summary = json.loads(Path("run/summary.json").read_text())
    assert (summary["metric"], summary["lower_is_better"]) == ("perplexity", True)
    assert main(shlex.split("report run --out report")) == 0


@pytest.mark.parametrize(
    "options",
    [
        "--temperature 0 --output-weights int8",
        "--seed 3",
        "--seed 3 --top-k 4 --num-loops 1",
        "--top-p 0.7",
        "--cache last",
        "--exit-rule kl:0.2 --num-loops 6",
    ],
)
def test_generate_prints_what_the_model_writes(options: str, capsys: pytest.CaptureFixture[str]):
    assert main(shlex.split(f"generate run --prompt 'é men' --tokens 30 {options}")) == 0
    out, err = capsys.readouterr()
    config, model, _ = load_run(Path("run"))
    assert isinstance(config.task, TextConfig)
    task = Text(config.task)
    words = shlex.split(options)
    given = dict(zip(words[::2], words[1::2], strict=True))
    (ids,) = generate(
        model,
        [torch.from_numpy(task.prompt("é men"))],
        max_new_tokens=30,
        seed=int(given.get("--seed", 0)),
        sampling=Sampling(
            temperature=float(given.get("--temperature", 1)),
            top_k=int(given["--top-k"]) if "--top-k" in given else None,
            top_p=float(given["--top-p"]) if "--top-p" in given else None,
        ),
        stop=[task.tokenizer.end],
        num_loops=int(given["--num-loops"]) if "--num-loops" in given else None,
        cache_policy="last" if "--cache" in given else None,
        exit_rule=parse_rule(given["--exit-rule"]) if "--exit-rule" in given else None,
    )
    ids = ids[: ids.index(task.tokenizer.end)] if task.tokenizer.end in ids else ids
    assert len(ids) > 3
    assert out == f"é men{task.tokenizer.decode(ids)}\n"
    assert err == ""


def test_several_prompts_give_a_line_each(capsys: pytest.CaptureFixture[str]):
    def line(prompts: str, seed: int = 0) -> dict:
        assert main(shlex.split(f"generate run --prompt {prompts} --tokens 12 --temperature 0 --seed {seed}")) == 0
        return {row["prompt"]: row for row in map(json.loads, capsys.readouterr().out.splitlines())}

    rows = line("'7 men' 'sail' 'and é'")
    assert line("sail '7 men'")["sail"] == rows["sail"]
    assert [row["text"].startswith(prompt) for prompt, row in rows.items()] == [True] * 3
    assert {row["mean_loops"] for row in rows.values()} == {2}


def test_text_is_written_as_calibration_recommends(capsys: pytest.CaptureFixture[str]):
    assert main(shlex.split("calibrate run --loops 1 2 4 --examples 8 --tolerance 9")) == 0
    capsys.readouterr()
    try:
        assert main(shlex.split("generate run --prompt 7 8 --tokens 12")) == 0
        out, err = capsys.readouterr()
        chosen = json.loads(Path("run/calibration.json").read_text())["recommendation"]
        assert "as run/calibration.json recommends" in err
        assert all(json.loads(line)["mean_loops"] <= chosen["num_loops"] for line in out.splitlines())
    finally:
        Path("run/calibration.json").unlink()


def test_text_stops_after_a_word(capsys: pytest.CaptureFixture[str]):
    assert main(shlex.split("generate run --prompt 7 --tokens 30 --seed 1")) == 0
    text = capsys.readouterr().out
    word = text[6]
    assert main(["generate", "run", "--prompt", "7", "--tokens", "30", "--seed", "1", "--stop", word]) == 0
    assert capsys.readouterr().out == text[: text.index(word, 1) + 1] + "\n"


def test_solve_tells_the_next_token(capsys: pytest.CaptureFixture[str]):
    Path("prompts.txt").write_text("7 men\nand 7\n")
    assert main(shlex.split("solve run prompts.txt --format jsonl")) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["input"] for row in rows] == ["7 men", "and 7"]
    assert all(row["answer"] and 0 < row["confidence"] <= 1 for row in rows)


def test_a_line_ends_at_a_line_feed_only(capsys: pytest.CaptureFixture[str]):
    Path("prompts.txt").write_bytes("7\x0cmen\r\nand\u20287\n".encode())
    assert main(shlex.split("solve run prompts.txt --format jsonl")) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["input"] for row in rows] == ["7\x0cmen", "and\u20287"]


def test_control_characters_are_visible_on_a_terminal():
    command = "-m looped.cli generate run --prompt 7 --tokens 60 --temperature 90 --seed 5"
    shown = subprocess.run([sys.executable, *command.split()], capture_output=True, check=True).stdout
    assert re.search(rb"[\x00-\x08\x0e-\x1f]", shown)  # raw in a file
    leader, follower = pty.openpty()
    subprocess.run([sys.executable, *command.split()], stdout=follower, check=True)
    os.close(follower)
    seen = b""
    with contextlib.suppress(OSError), open(leader, "rb", buffering=0) as terminal:  # EIO at the end
        while part := terminal.read(4096):
            seen += part
    text = seen.decode()
    assert not re.search(r"[\x00-\x08\x0e-\x1f\x7f-\x9f]", text)
    assert re.search(r"\\x[01]", text)


def test_a_run_is_used_anywhere_without_its_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    write = ["generate", "run", "--prompt", "7 men", "--tokens", "20", "--temperature", "0"]
    assert main(write) == 0
    text = capsys.readouterr().out
    shutil.copytree("run", tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    Path("prompts.txt").write_text("7 men\n")
    assert main(write) == 0
    assert capsys.readouterr().out == text
    assert main(["solve", "run", "prompts.txt"]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["prompts.txt", "run"]


def test_a_run_is_tuned_on_another_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    tune = f"train language-looped --task.train-files text.txt --task.document line {SMALL} --from run --out "
    assert main(shlex.split(f"{tune} {tmp_path}/other --task.tokenizer bytes")) == 2
    advice = "--task.tokenizer run/task/tokenizer.json"
    assert capsys.readouterr().err.endswith(f"another tokenizer than that of run; expected {advice}\n")
    tuned = f"{tune} {tmp_path}/tuned {advice}"
    assert main(shlex.split(tuned)) == main(shlex.split(f"{tuned} --resume")) == 0
    assert (tmp_path / "tuned/task/tokenizer.json").read_bytes() == Path("run/task/tokenizer.json").read_bytes()

    assert main(shlex.split(f"{tune} {tmp_path}/bytes --task.tokenizer bytes".replace("--from run ", ""))) == 0
    tune = tune.replace("--from run", f"--from {tmp_path}/bytes")
    capsys.readouterr()
    assert main(shlex.split(f"{tune} {tmp_path}/other --task.bpe-size 300")) == 2
    assert capsys.readouterr().err.endswith("/bytes; expected --task.tokenizer bytes\n")


def test_another_text_does_not_change_the_tokens_of_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    for name in ("run", "text.txt"):
        (shutil.copytree if name == "run" else shutil.copy)(name, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    write = ["generate", "run", "--prompt", "7 men", "--tokens", "20", "--temperature", "0"]
    assert main(write) == 0
    text = capsys.readouterr().out
    Path("text.txt").write_text("zebra quartz vivid jumble\n\n" * 300 + Path("text.txt").read_text())
    assert main(write) == 0
    assert capsys.readouterr().out == text
    assert main(["evaluate", "run", "--loops", "2", "--examples", "8"]) == 2
    assert "text.txt: changed since run was trained on it" in capsys.readouterr().err


# The command, and what the complaint has to say.
MISTAKES = {
    "no text named": ("train language-looped --out new", ("task.train_files=()", "files or folders of text")),
    "no such text": (TRAIN.replace("text.txt", "absent.txt"), ("task.train_files", "absent.txt", "no such file")),
    "folder without text": (TRAIN.replace("text.txt", "notes"), ("no *.txt or *.jsonl file", "notes")),
    "empty corpus": (TRAIN.replace("text.txt", "blank.txt"), ("blank.txt: empty file",)),
    "binary": (TRAIN.replace("text.txt", "binary.txt"), ("binary.txt: not UTF-8 text",)),
    "cut short": (TRAIN.replace("text.txt", "cut.txt.xz"), ("cut.txt.xz", "damaged or cut short")),
    "one document": (TRAIN.replace("text.txt", "other.txt"), ("no text in the", "task.validation_files")),
    "shorter than a window": (
        TRAIN + "--task.validation-files short.txt --task.test-files other.txt",
        ("tokens in the validation split", "task.context=16"),
    ),
    "shorter than a window, prepared": (
        TRAIN.replace("--task.context 16", "--task.context 4000"), ("split", "task.context=4000"),
    ),
    "one text twice": (
        TRAIN + "--task.validation-files text.txt --task.test-files other.txt",
        ("task.validation_files", "text.txt is also among the train files"),
    ),
    "no test files": (TRAIN + "--task.validation-files text.txt", ("validation_files=('text.txt',)", "test_files")),
    "stride": (TRAIN + "--task.stride 17", ("task.stride=17", "at most context=16")),
    "size of no BPE": (TRAIN + "--task.tokenizer bytes", ("task.bpe_size=300", "no effect")),
    "no tokenizer": (
        TRAIN.replace("--task.bpe-size 300", "--task.bpe-size 4096 --task.tokenizer gpt"),
        ("task.tokenizer='gpt'", "gpt/encoder.json", "vocab.bpe", "https://"),
    ),
    "tokenizer of something else": (
        TRAIN.replace("--task.bpe-size 300", "--task.bpe-size 4096 --task.tokenizer text.txt"),
        ("text.txt: not a tokenizer",),
    ),
    "no end token": (
        TRAIN.replace("--task.bpe-size 300", "--task.bpe-size 4096 --task.tokenizer tokenizer.json")
        + "--task.end-token </s>",
        ("tokenizer.json: no token '</s>'", "task.end_token"),
    ),
    "data set and files": (TRAIN + "--task.dataset name", ("task.train_files", "no effect when a dataset is given")),
    "small vocabulary": (TRAIN + "--model.vocab-size 20", ("model.vocab_size=20", "at least", "task text")),
    "generate without a run": ("generate absent --prompt a", ("absent", "not a run folder")),
    "generate with another task": ("generate boards --prompt a", ("boards: trained on sudoku", "a run on text")),
    "generate without a prompt": ("generate run", ("--prompt",)),
    "generate from nothing": ("generate run --prompt ''", ("empty prompt",)),
    "generate from no UTF-8": ("generate run --prompt 'a\udcff'", ("--prompt", "'a\\udcff': not UTF-8 text")),
    "generate until nothing": ("generate run --prompt a --stop ''", ("--stop", "an empty text")),
    "generate from too much": (f"generate run --prompt '{'x ' * 40}'", ("a prompt of", "task.context=16")),
    "generate nothing": ("generate run --prompt a --tokens 0", ("tokens=0", "at least 1")),
    "generate hot": ("generate run --prompt a --temperature -1", ("temperature=-1.0", "at least 0")),
    "generate from no tokens": ("generate run --prompt a --top-k 0", ("top_k=0", "at least 1")),
    "generate from no probability": ("generate run --prompt a --top-p 0", ("top_p=0.0", "above 0")),
    "generate from an idle cache": (
        "generate run --prompt a --cache all --cache-loops 2", ("cache_loops=2", "cache='all'")
    ),
    "generate by no rule": ("generate run --prompt a --exit-rule when", ("exit rule 'when'", "expected one of")),
    "generate by an untrained rule": ("generate run --prompt a --exit-rule gate:0.9", ("model.halting='gate'",)),
    "generate in no loops": ("generate run --prompt a --num-loops 0", ("num_loops=0", "at least 1")),
    "unknown group": ("evaluate run --groups published slidin", ("group='slidin'", "sliding, published")),
}  # fmt: skip


def files(folder: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistake_is_one_clear_line(name: str, home: Path, capsys: pytest.CaptureFixture[str]):
    command, says = MISTAKES[name]
    before = files(home)
    code = main(
        shlex.split(command) + (["--out", "new"] if command.startswith(TRAIN[:19]) and "--out" not in command else [])
    )
    out, err = capsys.readouterr()
    assert (code, out) == (2, ""), err
    assert err.startswith("looped: error: ")
    assert err.count("\n") == 1, err
    for part in says:
        assert part in err
    assert files(home) == before
