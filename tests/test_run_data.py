"""A run holds what answering needs, and notices when its data is not what it was."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from looped.cli import main
from looped.run_data import task_with_data
from looped.run_folder import read_config

WORDS = ["the", "a", "cat", "dog", "sat", "on", "mat", "ran", "far", "and", "saw", "one", "two", "red", "blue"]
SMALL = [
    "--task.bpe-size=300", "--task.document=paragraph", "--task.context=32", "--model.d-model=16",
    "--model.num-heads=2", "--model.num-loops=2", "--train.steps=3", "--train.batch-size=4", "--optim.warmup-steps=1",
    "--train.compile=False", "--train.workers=0", "--train.device=cpu", "--train.eval-examples=4",
]  # fmt: skip


def write_text(path: str, seed: int) -> None:
    words = np.random.default_rng(seed).choice(WORDS[: 15 - 5 * seed], (600, 30))
    Path(path).write_text("\n\n".join(" ".join(row) + "." for row in words.tolist()) + "\n")


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_text("corpus.txt", 0)
    train = ["train", "language-looped", "--out", "run", "--task.train-files", "corpus.txt", "--task.tokenizer", "bpe"]
    assert main([*train, *SMALL]) == 0
    return Path("run")


def generated(run: Path, capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    assert main(["generate", str(run), "--prompt", "the cat", "--tokens", "9"]) == 0
    return capsys.readouterr().out


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    capsys.readouterr()
    assert main(list(words)) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    return err


def test_a_text_run_answers_anywhere_and_without_its_corpus(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    text = generated(run, capsys)
    assert text.startswith("the cat")
    shutil.copytree(run, tmp_path / "elsewhere/run")
    Path("corpus.txt").unlink()
    shutil.rmtree("prepared")
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert generated(Path("run"), capsys) == text
    Path("prompts.txt").write_text("the cat\none two\n")
    assert main(["solve", "run", "prompts.txt"]) == 0
    assert "corpus.txt" in refused(capsys, "evaluate", "run")


def test_changed_data_is_noticed(run: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["evaluate", "run", "--loops", "2", "--examples", "4"]) == 0
    scores, text = Path("run/eval.jsonl").read_bytes(), generated(run, capsys)
    write_text("corpus.txt", 1)
    shutil.rmtree("prepared")
    for command in (["evaluate", "run"], ["calibrate", "run"], ["inspect", "run"]):
        assert "corpus.txt: changed since run was trained on it" in refused(capsys, *command)
    assert Path("run/eval.jsonl").read_bytes() == scores
    assert generated(run, capsys) == text


def test_another_tokenizer_is_noticed(run: Path, capsys: pytest.CaptureFixture[str]):
    (file,) = Path("run/task").iterdir()
    file.write_text(file.read_text() + " ")
    assert f"{file}: is not the file with which run was trained" in refused(capsys, "generate", "run", "--prompt", "a")
    assert file.name in refused(capsys, "evaluate", "run")


def test_another_run_can_start_with_its_tokenizer(run: Path, capsys: pytest.CaptureFixture[str]):
    tune = ["train", "language-looped", "--out", "tuned", "--from", "run", "--task.train-files", "corpus.txt"]
    plain = [word for word in SMALL if "bpe-size" not in word]
    message = refused(capsys, *tune, *plain, "--task.tokenizer", "bytes")
    assert "another tokenizer than that of run; expected --task.tokenizer run/task/tokenizer.json" in message
    assert main([*tune, *plain, "--task.tokenizer", "run/task/tokenizer.json"]) == 0
    assert (run / "task/tokenizer.json").read_bytes() == Path("tuned/task/tokenizer.json").read_bytes()


def test_a_pipe_in_a_run_folder_is_refused(run: Path, capsys: pytest.CaptureFixture[str]):
    os.mkfifo(run / "task/more")
    assert "run/task/more: a pipe" in refused(capsys, "generate", "run", "--prompt", "a")


def test_paths_outside_the_working_folder_need_a_flag(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    for path in (str(tmp_path / "corpus.txt"), "../" + tmp_path.name + "/corpus.txt"):
        config = json.loads((run / "config.json").read_text())
        config["run"]["task"]["train_files"] = [path]
        (run / "config.json").write_text(json.dumps(config))
        for command in ("evaluate", "calibrate", "inspect"):
            message = refused(capsys, command, "run")
            assert f"run/config.json: task.train_files='{path}': outside the working folder" in message
        assert not {"eval.jsonl", "inspect"} & {file.name for file in run.iterdir()}
        with pytest.raises(ValueError, match="outside"):
            task_with_data(read_config(run), run)


@pytest.mark.parametrize("name", ["checkpoints", "task", "eval.jsonl", "checkpoints/extra"])
def test_links_out_of_the_run_folder_are_refused(
    name: str, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    outside = tmp_path / "outside"
    if (run / name).exists():
        (run / name).rename(outside)
    else:
        outside.write_text("mine")
    (run / name).symlink_to(outside)
    for command in (["evaluate", "run"], ["generate", "run", "--prompt", "a"], ["solve", "run", "-"], ["show", "run"]):
        assert f"run/{name}: a link out of the run folder" in refused(capsys, *command)
    shutil.copytree(run, "copy", symlinks=True)
    (Path("copy") / name).unlink()
    (Path("copy") / name).symlink_to(Path("config.json") if "/" not in name else Path("../config.json"))
    read_config(Path("copy"))  # a link inside the folder is as good as a file


@pytest.mark.parametrize(
    ("part", "name", "value"),
    [
        ("model", "num_heads", 4),
        ("model", "causal", False),
        ("task", "bpe_size", 301),
        ("task", "train_files", ["no-such-file.txt"]),
    ],
)
def test_settings_that_would_change_the_answers_are_noticed(
    part: str, name: str, value: object, run: Path, capsys: pytest.CaptureFixture[str]
):
    """Also settings on which no shape of a weight depends, and before a task is made from them."""
    config = json.loads((run / "config.json").read_text())
    assert config["run"][part][name] != value
    config["run"][part][name] = value
    (run / "config.json").write_text(json.dumps(config))
    for command in (["evaluate", "run"], ["generate", "run", "--prompt", "a"], ["solve", "run", "corpus.txt"]):
        assert "run/config.json: changed since the training began" in refused(capsys, *command)


def test_line_ends_and_order_of_the_settings_do_not_matter(run: Path, capsys: pytest.CaptureFixture[str]):
    text = generated(run, capsys)
    config = json.loads((run / "config.json").read_text())
    turned = json.dumps(dict(reversed(config.items())), indent=4).replace("\n", "\r\n")
    (run / "config.json").write_bytes(turned.encode())
    assert generated(run, capsys) == text
