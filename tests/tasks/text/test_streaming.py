"""Text is streamed: where it is cut in memory changes nothing, and little of it is there at a time."""

import re
import subprocess
import sys
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from looped.tasks.base import split_of
from looped.tasks.text import TextConfig, encoding
from looped.tasks.text.encoding import pieces
from looped.tasks.text.sources import SplitPart, documents, split_by_content
from looped.tasks.text.tokenizer import ByteTokenizer

SENTENCE = "the cat sat on a mat and the dog ran to the house, isn't it? 12 345 Größe 日本語 🙂"
WORDS = ["\t", *SENTENCE.split()]
TEXT = st.text(st.sampled_from([*" \n\t.,'1aeé日🙂_", *"abc"]), max_size=60) | st.text(max_size=30)


def story(number: int, sentences: int = 12) -> str:
    rng = np.random.default_rng(number)
    return "".join(" ".join(rng.choice(WORDS, 9)) + ".\n" for _ in range(sentences))


def whole(parts: Iterable[tuple[str, bool]]) -> list[str]:
    """The documents in parts of documents."""
    found, text = [], ""
    for part, last in parts:
        text += part
        if last:
            found.append(text)
            text = ""
    assert not text
    return found


def test_what_a_document_is():
    lines = [" = A = \n", "\n", "b\n", "c\n", " \n", "d"]
    kinds = {kind: whole(documents(lines, TextConfig(document=kind))) for kind in ("file", "paragraph", "line")}
    assert kinds == {
        "file": [" = A = \n\nb\nc\n \nd"],
        "paragraph": [" = A = ", "b\nc", "d"],
        "line": [" = A = \n", "b\n", "c\n", "d"],
    }
    assert whole(documents(lines, TextConfig(version="published"))) == [" = A = \n", "", "b\n", "c\n", "", "d"]


BLANKS = st.text(st.sampled_from("a\n\n\n \t\r\x0c\u2028é"), max_size=30)


@given(BLANKS, st.lists(st.integers(0, 30), max_size=4))
def test_documents_do_not_depend_on_the_parts_of_the_text(text: str, places: list[int]):
    lines = re.findall(r"[^\n]*\n|[^\n]+", text)
    paragraphs = re.split(r"\n(?:[^\S\n]*\n)+", text.strip("\n"))
    expected = {
        "file": [text] if text.strip() else [],
        "line": [line for line in lines if line.strip()],
        "paragraph": [part for part in paragraphs if part.strip()],
    }
    ends = [0, *sorted(min(place, len(text)) for place in places), len(text)]
    parts = [text[i:j] for i, j in pairwise(ends)]
    for kind in ("file", "line", "paragraph"):
        assert whole(documents(parts, TextConfig(document=kind))) == expected[kind]
    published = [line if line.strip() else "" for line in lines]
    assert whole(documents(parts, TextConfig(version="published"))) == published


@given(st.lists(st.lists(TEXT, min_size=1, max_size=4), max_size=5))
def test_the_split_of_a_document_does_not_depend_on_its_parts(texts: list[list[str]]):
    parts = [(part, k == len(text) - 1) for text in texts for k, part in enumerate(text)]
    found = [(split, last) for split, _, last in split_by_content(parts)]
    assert found == [(split_of("".join(text).encode()), k == len(text) - 1) for text in texts for k in range(len(text))]
    assert [part for _, part, _ in split_by_content(parts)] == [part for text in texts for part in text]


@given(TEXT, st.integers(1, 9), st.lists(st.integers(0, 60), max_size=4))
def test_pieces_do_not_depend_on_the_parts_of_a_document(text: str, piece: int, places: list[int]):
    ends = [0, *sorted(min(place, len(text)) for place in places), len(text)]
    parts: list[SplitPart] = [("train", text[i:j], k == len(ends) - 2) for k, (i, j) in enumerate(pairwise(ends))]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encoding, "PIECE", piece)
        patch.setattr(encoding, "LONGEST", 5 * piece)
        patch.setattr(encoding, "NEARBY", piece)
        found = list(pieces(parts))
        assert found == list(pieces([("train", text, True)]))
        counts, _ = encoding.encode(parts, ByteTokenizer(), lambda split, ids: None, "text")
    assert "".join(part for _, part, _ in found) == text
    assert all(len(part) <= 5 * piece for _, part, _ in found)
    assert counts["train"] == {
        "tokens": len(text.encode()) + 1, "documents": 1, "words": len(text.split()), "bytes": len(text.encode())
    }  # fmt: skip


MEMORY = """
import re, sys
from pathlib import Path
from looped.tasks.text.corpus import open_corpus
from looped.tasks.text import TextConfig

settings = {"validation_files": ("v.txt",), "test_files": ("e.txt",)} if sys.argv[2] == "named" else {}
config = TextConfig(train_files=tuple(sys.argv[3:]), document=sys.argv[1], context=8, **settings)
open_corpus(TextConfig(train_files=("e.txt", "v.txt", "w.txt"), document="line", context=8))
# Not ru_maxrss, which begins with the peak of the process that started this one.
peak = lambda: 1024 * int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
before = peak()
open_corpus(config)
print(peak() - before)
"""


@pytest.mark.parametrize(("document", "splits"), [("file", "named"), ("paragraph", "content")])
def test_preparing_needs_less_memory_than_two_texts(document: str, splits: str, tmp_path: Path):
    size = 40_000_000
    parts = "\n\n".join(story(n) for n in range(300)).replace("🙂", "x")
    for name in "evw":
        (tmp_path / f"{name}.txt").write_text(f"{name}\n" + "\n\n".join(story(n + ord(name)) for n in range(40)))
    with (tmp_path / "large.txt").open("w") as file:
        for _ in range(size // len(parts.encode())):
            file.write(parts + " 🙂\n\n")
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, document, splits, "large.txt"],
        cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 2 * size
