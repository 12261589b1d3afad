"""Data sets of Hugging Face, by name and from a folder."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from fake_hub import Hub, served

from looped.tasks.base import SPLITS, split_of
from looped.tasks.text import Text, TextConfig
from looped.tasks.text.corpus import open_corpus


def story(number: int, sentences: int = 12) -> str:
    rng = np.random.default_rng(number)
    return "".join(" ".join(rng.choice(["the", "cat", "sat", "Größe", "日本語"], 9)) + ".\n" for _ in range(sentences))


@pytest.fixture
def config(tmp_path: Path) -> TextConfig:
    """Three files, bytes."""
    names = {}
    for number, split in enumerate(SPLITS):
        (tmp_path / f"{split}.txt").write_text(story(number), encoding="utf-8")
        names[f"{split}_files"] = (str(tmp_path / f"{split}.txt"),)
    return TextConfig(**names, context=16, cache=str(tmp_path / "cache"))


def rows(folder: Path, name: str, values: list[str], column: str = "text") -> None:
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.jsonl").write_text("".join(json.dumps({column: value}) + "\n" for value in values))


def test_a_hugging_face_data_set(config: TextConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    datasets = pytest.importorskip("datasets", reason="needs the extra looped[datasets]")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf")
    for number, split in enumerate(SPLITS):
        lines = story(number).splitlines(keepends=True)
        rows(tmp_path / "named", split, [*lines, ""])
    by_name = TextConfig(dataset=str(tmp_path / "named"), context=16, cache=config.cache)
    for version in ("corrected", "published"):
        files = open_corpus(dataclasses.replace(config, version=version))
        named = open_corpus(dataclasses.replace(by_name, version=version))
        for split in SPLITS:
            ends = [named.tokenizer.end]  # the blank last row, which the file does not have
            last = ends if version == "published" else [10, *ends]
            expected = np.asarray(files.tokens[split]).tolist()
            expected = expected + last if version == "published" else expected[:-1] + last
            assert np.asarray(named.tokens[split]).tolist() == expected
    rows(tmp_path / "other", "train", ["a"], column="sentence")
    with pytest.raises(ValueError, match="no column text in a split train"):
        open_corpus(dataclasses.replace(by_name, dataset=str(tmp_path / "other")))


@pytest.mark.parametrize("saved", [False, True])
def test_a_changed_data_set_is_noticed(saved: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    datasets = pytest.importorskip("datasets", reason="needs the extra looped[datasets]")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf")
    folder = tmp_path / "data"
    config = TextConfig(dataset=str(folder), document="line", context=16, cache=str(tmp_path / "cache"))

    def write(number: int) -> None:
        lines = [f"{n} {line}" for n, line in enumerate(story(number, 99).splitlines())]
        if saved:
            shutil.rmtree(folder, ignore_errors=True)
            datasets.Dataset.from_dict({"text": lines}).save_to_disk(folder)
        else:
            rows(folder, "train", lines)

    write(0)
    sources = Text(config).sources()
    assert {Path(name).parent for name in sources} == {folder}
    assert Text(config).sources() == sources
    write(1)
    with pytest.raises(ValueError, match=r"data/.*: changed since .* was prepared from it; restore it, or delete"):
        open_corpus(config)


OPEN = """
import sys
from looped.tasks.text import Text, TextConfig
try:
    task = Text(TextConfig(dataset="some/name", document="line", context=16, cache="cache"))
    print(task.sources(), task.corpus.counts["train"]["documents"])
except ValueError as error:
    sys.exit(str(error))
"""


def test_a_data_set_of_the_hub_streams_and_a_new_commit_is_noticed(tmp_path: Path):
    pytest.importorskip("datasets", reason="needs the extra looped[datasets]")
    lines = [f"{n} {line}" for n, line in enumerate(story(0, 999).splitlines())]
    content = "".join(json.dumps({"text": line}) + "\n" for line in lines).encode()

    def opened(hub: Hub, offline: int) -> subprocess.CompletedProcess[str]:
        variables = {"HF_ENDPOINT": hub.address, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": str(offline)}
        return subprocess.run(
            [sys.executable, "-c", OPEN], cwd=tmp_path, env=os.environ | variables, capture_output=True, text=True
        )

    with served(Hub({"train.jsonl": content, "other.bin": b"not read"})) as hub:
        first = opened(hub, offline=0)
        assert first.returncode == 0, first.stderr
        assert "'some/name (train)': " in first.stdout
        assert int(first.stdout.split()[-1]) > 600
        stored = [file for file in (tmp_path / "hf").rglob("*") if file.is_file()]
        assert sum(file.stat().st_size for file in stored) < 1000 < len(content)  # only the tokens are on the disk
        hub.commit = "b" * 40
        changed = opened(hub, offline=0)
        assert changed.returncode == 1
        assert "some/name (train): changed since" in changed.stderr
    assert opened(hub, offline=1).stdout == first.stdout  # a prepared data set needs no connection


@pytest.mark.parametrize("kind", ["parquet", "jsonl", "saved"])
def test_columns_and_kinds_of_files(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    datasets = pytest.importorskip("datasets", reason="needs the extra looped[datasets]")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf")
    lines = [f"{n} {line}" for n, line in enumerate(story(0, 250).splitlines())]
    rows = datasets.Dataset.from_dict({"id": list(range(len(lines))), "body": lines, "more": [[1.0]] * len(lines)})
    if kind == "saved":
        rows.save_to_disk(tmp_path / "data")
    else:
        (tmp_path / "data").mkdir()
        getattr(rows, f"to_{kind.removesuffix('l')}")(str(tmp_path / f"data/train.{kind}"))
    config = TextConfig(dataset=str(tmp_path / "data"), text_field="body", document="line", context=16)
    corpus = open_corpus(dataclasses.replace(config, cache=str(tmp_path / "cache")))
    expected = {split: [256] for split in SPLITS}
    for line in lines:
        expected[split_of(f"{line}\n".encode())] += [*f"{line}\n".encode(), 256]
    assert {split: np.asarray(tokens).tolist() for split, tokens in corpus.tokens.items()} == expected
    assert not list((tmp_path / "hf").rglob("*.arrow"))  # nothing is converted
    if kind != "saved":
        (file,) = (tmp_path / "data").iterdir()
        file.write_bytes(file.read_bytes()[:-40] + b"{" * 9)
        with pytest.raises(
            ValueError, match=r"task\.dataset='.*data': cannot be (read from row \d+ of train on|loaded) \("
        ):
            open_corpus(dataclasses.replace(config, cache=str(tmp_path / "other")))


def test_a_data_set_name_while_offline_is_one_clear_line(tmp_path: Path):
    pytest.importorskip("datasets", reason="needs the extra looped[datasets]")
    words = "-m looped.cli train language-looped --task.dataset some/name:config --out new"
    done = subprocess.run(
        [sys.executable, *words.split()],
        cwd=tmp_path,
        env=os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hf")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    last = done.stderr.splitlines()[-1]
    assert last.startswith("looped: error: task.dataset='some/name:config': cannot be loaded (")
    assert "https://huggingface.co/datasets/some/name" in last
    assert "--task.train-files" in last
    assert "Traceback" not in done.stderr
