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

from looped.tasks.base import SPLITS
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


def test_a_changed_data_set_of_the_hub_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    datasets = pytest.importorskip("datasets", reason="needs the extra looped[datasets]")
    config = TextConfig(dataset="some/name", document="line", context=16, cache=str(tmp_path / "cache"))

    def hub(number: int | None):
        def load_dataset(name: str, configuration: str | None):
            if number is None:
                raise ConnectionError("no connection")
            lines = [f"{n} {line}" for n, line in enumerate(story(number, 99).splitlines())]
            return datasets.DatasetDict({"train": datasets.Dataset.from_dict({"text": lines})})

        monkeypatch.setattr(datasets, "load_dataset", load_dataset)

    hub(0)
    sources = Text(config).sources()
    assert sources.keys() == {"some/name (train)"}
    hub(None)  # a prepared data set needs no connection
    assert Text(config).sources() == sources
    hub(1)
    with pytest.raises(ValueError, match=r"some/name \(train\): changed since"):
        open_corpus(config)


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
