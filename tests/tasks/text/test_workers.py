"""Processes that encode: the tokens are the same for any number of them, and none of them is waited for in vain."""

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from looped.tasks.text import TextConfig, corpus, encoding, sources, workers
from looped.tasks.text.corpus import open_corpus
from looped.tasks.text.tokenizer import END_TOKEN, BPETokenizer, trained_bpe
from looped.tasks.text.workers import in_order

SENTENCE = "the cat sat on a mat, and the dog ran to the house; isn't it? 12 345 Größe 日本語 🙂 don't stop. (Yes!)"
WORDS = SENTENCE.split()
SPACES = [chr(code) for code in range(0x11000) if chr(code).isspace()]
BPE = BPETokenizer(trained_bpe([" ".join(WORDS)] * 9 + ["  \n\n \t"] * 3, 330), END_TOKEN, "test")
TEXT = st.text(st.sampled_from([*SPACES, *" \n\t.,'1aeé日🙂_", *"abcdts"]), max_size=60) | st.text(max_size=30)


@given(st.lists(TEXT, min_size=1, max_size=6))
def test_words_alone_have_the_tokens_of_the_text(texts: list[str]):
    assert BPE.packed(texts) == [np.array(ids, np.uint16).tobytes() for ids in BPE.encode(texts)]


def test_every_white_space_and_its_neighbours():
    assert len(SPACES) > 25
    texts = [
        f"{before}{space}{after}" for space in SPACES for before in ("a", ".", "1", " ", "\n") for after in ".a1 \n"
    ]
    assert [BPE.packed([text])[0] for text in texts] == [
        np.array(ids, np.uint16).tobytes() for ids in BPE.encode(texts)
    ]
    assert BPE._words
    assert len(BPE._words.known) > 100


def test_results_come_in_order():
    def slow(number: int) -> tuple[int, int]:
        time.sleep(0.02 * (number % 3 == 0))
        return number * number, os.getpid()

    for processes in (1, 3):
        found = list(in_order(slow, iter(range(40)), processes))
        assert [square for square, _ in found] == [number * number for number in range(40)]
        assert len({process for _, process in found}) == (1 if processes == 1 else 4)


def test_an_error_and_a_killed_process_end_the_work():
    def fails(number: int) -> int:
        if number == 20:
            raise ValueError("twenty is too much")
        return number

    def dies(number: int) -> int:
        if number == 20:
            os.kill(os.getpid(), signal.SIGKILL)
        return number

    with pytest.raises(ValueError, match="twenty is too much"):
        list(in_order(fails, range(99), 2))
    with pytest.raises(ValueError, match=r"a process that encodes text was killed by signal 9 \(SIGKILL\), perhaps"):
        list(in_order(dies, range(99), 2))


def story(number: int) -> str:
    return " ".join(np.random.default_rng(number).choice(WORDS, 40))


LOSSY = (  # lower case is not given back
    '{"version":"1.0","truncation":null,"padding":null,"added_tokens":[{"id":0,"content":"<|endoftext|>","single_word":'
    'false,"lstrip":false,"rstrip":false,"normalized":false,"special":true}],"normalizer":{"type":"Lowercase"},'
    '"pre_tokenizer":{"type":"ByteLevel","add_prefix_space":false,"trim_offsets":true,"use_regex":true},"decoder":{"type":'
    '"ByteLevel","add_prefix_space":true,"trim_offsets":true,"use_regex":true},"post_processor":null,"model":'
)


@pytest.mark.parametrize("tokenizer", ["bytes", "bpe", "lossy"])
def test_prepared_folders_are_equal(tokenizer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    monkeypatch.setattr(sources, "SETTLED", 10**18)  # the times of the files are then not in the manifest
    for name, value in (("BATCH", 500), ("PIECE", 200), ("LONGEST", 300), ("NEARBY", 50)):
        monkeypatch.setattr(encoding, name, value)
    (tmp_path / "text.txt").write_text("\n\n".join(story(n) for n in range(150)))
    chosen = tokenizer
    if tokenizer == "lossy":
        inner = json.loads(BPE.json)["model"]
        (tmp_path / "lossy.json").write_text(LOSSY + json.dumps(inner) + "}")
        chosen = str(tmp_path / "lossy.json")
    digests, messages = set(), set()
    for processes in (1, 2, 3):
        monkeypatch.setattr(corpus, "cores", lambda processes=processes: processes)
        monkeypatch.setattr(workers, "HERE", processes)
        folder = open_corpus(
            TextConfig(
                train_files=(str(tmp_path / "text.txt"),), document="paragraph", tokenizer=chosen, context=16,
                bpe_size=300 if tokenizer == "bpe" else 4096, cache=str(tmp_path / f"cache{processes}"),
            )
        ).folder  # fmt: skip
        assert folder
        files = sorted(folder.iterdir())
        assert [file.name for file in folder.parent.iterdir()] == [folder.name]
        contents = b"".join(file.read_bytes() for file in files)
        digests.add(hashlib.sha256(contents).hexdigest())
        messages.add(capsys.readouterr().err)
    assert len(digests) == 1
    assert len(messages) == 1
    assert ("does not give the text back" in messages.pop()) == (tokenizer == "lossy")


LONG = """
import sys
from looped.tasks.text import TextConfig, corpus, encoding, workers
encoding.BATCH, workers.HERE, corpus.cores = 2000, 1, lambda: 2
class Slow(corpus.ByteTokenizer):
    def packed(self, texts):
        import time
        time.sleep(0.05)
        return super().packed(texts)
corpus.ByteTokenizer = Slow
print("begins", flush=True)
try:
    corpus.open_corpus(TextConfig(train_files=("text.txt",), document="line", context=8))
except ValueError as error:
    sys.exit(str(error))
"""


def children(process: int) -> list[int]:
    return list(map(int, Path(f"/proc/{process}/task/{process}/children").read_text().split()))


def wait_for(condition, seconds: float = 20):
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end
        time.sleep(0.02)
    return found


@pytest.mark.parametrize("end", ["interrupt", "kill a worker", "kill"])
def test_nothing_is_left_of_a_preparation_that_ends_early(end: str, tmp_path: Path):
    (tmp_path / "text.txt").write_text("".join(f"{story(n)}\n" for n in range(4000)))
    process = subprocess.Popen(
        [sys.executable, "-c", LONG], cwd=tmp_path, stderr=subprocess.PIPE, text=True, start_new_session=True,
        stdout=subprocess.DEVNULL,
    )  # fmt: skip
    workers = wait_for(lambda: len(found := children(process.pid)) == 2 and found)
    assert list((tmp_path / "prepared").glob(".text-*.tmp"))
    time.sleep(0.5)  # Python loses an interrupt that comes while it starts a process
    if end == "interrupt":  # as Ctrl-C, which reaches all
        os.killpg(process.pid, signal.SIGINT)
    else:
        os.kill(workers[1] if end == "kill a worker" else process.pid, signal.SIGKILL)
    _, error = process.communicate(timeout=20)
    wait_for(lambda: not any(Path(f"/proc/{worker}").exists() for worker in workers))
    if end == "kill":
        assert list((tmp_path / "prepared").glob(".text-*.tmp"))
        again = TextConfig(
            train_files=(str(tmp_path / "text.txt"),), document="line", context=8, cache=str(tmp_path / "prepared")
        )
        folder = open_corpus(again).folder
        assert folder
        assert [file.name for file in folder.parent.iterdir()] == [folder.name]  # the next one clears up
    else:
        assert not (tmp_path / "prepared").exists()
        if end == "interrupt":
            assert re.findall(r"^\w*(?:Error|Interrupt)", error, re.MULTILINE) == ["KeyboardInterrupt"]
        else:
            assert error == "a process that encodes text was killed by signal 9 (SIGKILL), perhaps for lack of memory\n"
            assert process.returncode == 1


COMMAND = (
    LONG.partition("print(")[0]
    + """
from looped.cli import main
words = "--task.train-files text.txt --task.document line --task.tokenizer bytes --task.context 8"
sys.exit(main(["train", "language-looped", *words.split(), "--out", "run"]))
"""
)


def test_nothing_is_left_of_a_preparation_that_a_scheduler_ends(tmp_path: Path):
    (tmp_path / "text.txt").write_text("".join(f"{story(n)}\n" for n in range(4000)))
    process = subprocess.Popen(
        [sys.executable, "-c", COMMAND], cwd=tmp_path, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    wait_for(lambda: len(children(process.pid)) == 2)
    time.sleep(0.5)
    os.killpg(process.pid, signal.SIGTERM)  # all processes, as `scancel` does
    _, error = process.communicate(timeout=20)
    assert (process.returncode, error) == (128 + signal.SIGTERM, "looped: interrupted\n")
    assert os.listdir(tmp_path) == ["text.txt"]


TOGETHER = """
import sys, time
from looped.tasks.text import TextConfig, corpus
inner = corpus._prepare
def counted(*arguments):
    print("prepared", flush=True)
    time.sleep(0.5)
    inner(*arguments)
corpus._prepare = counted
found = corpus.open_corpus(TextConfig(train_files=("text.txt",), document="line", context=8))
print(len(found.tokens["train"]))
"""


def test_one_of_several_processes_prepares(tmp_path: Path):
    (tmp_path / "text.txt").write_text("".join(f"{story(n)}\n" for n in range(300)))
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", TOGETHER], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for _ in range(3)
    ]
    outputs = [process.communicate(timeout=60) for process in processes]
    assert all(process.returncode == 0 for process in processes), outputs
    assert sum("prepared" in output for output, _ in outputs) == 1
    assert len({output.split()[-1] for output, _ in outputs}) == 1
    waited = [error for _, error in outputs if error]
    assert all("writes into it; waiting for it" in error for error in waited)
