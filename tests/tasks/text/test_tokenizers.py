"""Real tokenizers of every kind: the text comes back, or what is lost is said; a run keeps its tokenizer."""

import json
import pickle
import time
from pathlib import Path

import numpy as np
import pytest
import tokenizers
import torch
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

from looped.commands.generate import Typed
from looped.tasks.continuation import Tokenizer, continuation
from looped.tasks.text import Text, TextConfig, tokenizer
from looped.tasks.text.tokenizer import (
    BPETokenizer,
    ByteTokenizer,
    checked_json,
    read_bpe,
    read_tokenizer,
    tokenizer_files,
    write_tokenizer,
)

STORIES = [f"The cat {n} sat on the mat, and dog {n * n % 97} ran.\n" for n in range(200)]
SPECIAL = ["<unk>", "</s>"]


def byte_level() -> tokenizers.Tokenizer:
    made = tokenizers.Tokenizer(models.BPE())
    made.pre_tokenizer, made.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    made.train_from_iterator(
        STORIES,
        trainers.BpeTrainer(
            vocab_size=400, special_tokens=SPECIAL, show_progress=False,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        ),
    )  # fmt: skip
    return made


def metaspace() -> tokenizers.Tokenizer:
    made = tokenizers.Tokenizer(models.BPE(unk_token="<unk>"))
    made.pre_tokenizer, made.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    made.train_from_iterator(STORIES, trainers.BpeTrainer(vocab_size=200, special_tokens=SPECIAL, show_progress=False))
    return made


def byte_fallback() -> tokenizers.Tokenizer:
    """As Llama's: unknown characters are their bytes."""
    pieces = {f"<0x{byte:02X}>": 3 + byte for byte in range(256)}
    letters = sorted({*"".join(STORIES), "▁"} - {" "})
    vocabulary = {"<unk>": 0, "<s>": 1, "</s>": 2, **pieces}
    vocabulary |= {letter: len(vocabulary) + k for k, letter in enumerate(letters)}
    made = tokenizers.Tokenizer(models.BPE(vocabulary, [], unk_token="<unk>", byte_fallback=True))
    made.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    made.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    made.add_special_tokens(["<unk>", "<s>", "</s>"])
    return made


def unigram() -> tokenizers.Tokenizer:
    made = tokenizers.Tokenizer(models.Unigram())
    made.pre_tokenizer, made.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    made.train_from_iterator(
        STORIES,
        trainers.UnigramTrainer(vocab_size=120, special_tokens=SPECIAL, unk_token="<unk>", show_progress=False),
    )
    return made


def word_piece() -> tokenizers.Tokenizer:
    made = tokenizers.Tokenizer(models.WordPiece(unk_token="<unk>"))
    made.normalizer, made.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    made.decoder = decoders.WordPiece()
    made.train_from_iterator(
        STORIES, trainers.WordPieceTrainer(vocab_size=300, special_tokens=SPECIAL, show_progress=False)
    )
    return made


def words(unknown: str | None = "<unk>") -> tokenizers.Tokenizer:
    names = sorted({word for story in STORIES for word in story.split()})
    vocabulary = {word: k for k, word in enumerate([*SPECIAL, *names])}
    made = tokenizers.Tokenizer(models.WordLevel(vocabulary, unk_token=unknown or "[none]"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return made


KINDS = {f.__name__: f for f in (byte_level, metaspace, byte_fallback, unigram, word_piece, words)}


@pytest.fixture(scope="module")
def made() -> dict[str, str]:
    """The JSON of a tokenizer of each kind."""
    return {name: kind().to_str() for name, kind in KINDS.items()}


def load(text: str) -> BPETokenizer:
    return BPETokenizer(text, "</s>", "here")


def corpus_task(folder: Path, text: str, stories: list[str] = STORIES, **options) -> Text:
    (folder / "t.json").write_text(text)
    (folder / "a.txt").write_text("".join(stories))
    options = {"document": "line", "context": 16} | options
    return Text(
        TextConfig(
            train_files=(str(folder / "a.txt"),), tokenizer=str(folder / "t.json"), end_token="</s>",
            cache=str(folder / "cache"), **options,
        )
    )  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_lost_is_said(kind: str, made: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    task = corpus_task(tmp_path, made[kind])
    said = capsys.readouterr().err
    lossless = kind in ("byte_level", "metaspace", "byte_fallback", "unigram")
    assert (said == "") == lossless
    assert (task.corpus.lost == 0) == lossless
    perplexities = task.reported("loss", 1.0, "test", "sliding").keys()
    assert perplexities == {"perplexity"} | ({"word_perplexity", "byte_perplexity"} if lossless else set())
    if not lossless:
        assert said.count("\n") == 1
        assert "a.txt: the tokenizer does not give the text back" in said
        assert "becomes" in said
        again = corpus_task(tmp_path, made[kind])
        assert again.corpus.lost == task.corpus.lost
    if kind == "word_piece":  # one upper-case letter and one line feed of each line
        assert task.corpus.lost == 2 * len(STORIES)


@pytest.mark.parametrize("kind", ["metaspace", "unigram"])
def test_a_space_at_the_beginning_is_lost(kind: str, made: dict[str, str], tmp_path: Path):
    stories = [f" {story}" for story in STORIES]
    assert corpus_task(tmp_path, made[kind], stories).corpus.lost == len(stories)


def test_an_unknown_character_without_unknown_token(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    settings = json.loads(metaspace().to_str())
    settings["model"]["unk_token"] = None
    stories = [story + "äöü\n" for story in STORIES]
    task = corpus_task(tmp_path, json.dumps(settings), stories)
    assert task.corpus.lost == 3 * len(stories)
    assert "of the characters are lost, as '" in capsys.readouterr().err


def test_a_word_without_unknown_token_is_refused(tmp_path: Path):
    with pytest.raises(ValueError, match=r"t\.json: cannot encode this text \(WordLevel error: Missing"):
        corpus_task(tmp_path, words(None).to_str(), [*STORIES, "another\n"])


@pytest.mark.parametrize("kind", KINDS)
def test_truncation_padding_and_dropout_are_off(kind: str, made: dict[str, str]):
    limited = tokenizers.Tokenizer.from_str(made[kind])
    limited.enable_truncation(4)
    limited.enable_padding(length=4, pad_id=1, pad_token="</s>")
    settings = json.loads(limited.to_str())
    if settings["model"]["type"] == "BPE":
        settings["model"]["dropout"] = 0.5
    texts = [STORIES[0].strip(), "The"]
    assert load(json.dumps(settings)).encode(texts) == load(made[kind]).encode(texts)


@pytest.mark.parametrize("special", [True, False])
def test_the_name_of_the_end_is_only_text(special: bool):
    inner = tokenizers.ByteLevelBPETokenizer(add_prefix_space=False)
    inner.train_from_iterator(["some text to learn from"] * 20, 270, show_progress=False)
    (inner.add_special_tokens if special else inner.add_tokens)(["<|endoftext|>"])
    found = BPETokenizer(inner.to_str(), "<|endoftext|>", "here")
    (ids,) = found.encode(["a <|endoftext|> b"])
    assert found.end not in ids
    assert found.decode(ids) == "a <|endoftext|> b"
    assert found.decode([found.end]) == "<|endoftext|>"
    assert pickle.loads(pickle.dumps(found)).encode(["a <|endoftext|> b"]) == [ids]


def test_a_vocabulary_that_makes_text_an_end_is_refused(made: dict[str, str]):
    with pytest.raises(ValueError, match=r"here: encodes a part of the text as its end of text '</s>'"):
        load(made["words"]).encode(["The </s> cat"])
    unknown_is_end = tokenizers.Tokenizer(models.WordLevel({"a": 0, "</s>": 1}, unk_token="</s>"))
    with pytest.raises(ValueError, match="as its end of text"):
        load(unknown_is_end.to_str()).encode(["b"])


@pytest.mark.parametrize("kind", ["byte_level", "metaspace", "byte_fallback", "unigram"])
@pytest.mark.parametrize("cut", [3, 7, 11])
def test_prompt_and_continuation_are_one_text(kind: str, cut: int, made: dict[str, str]):
    found, text = load(made[kind]), "The cat sat on the mat, and ran"
    (ids,) = found.encode([text])
    before = ids[:cut]
    prompt = found.decode(before)
    typed = Typed(found, prompt, ())
    assert typed.prompt_ids == before
    shown = typed.new(last=False)
    for token in ids[cut:]:
        typed.ids.append(token)
        shown += typed.new(last=False)
    assert typed.whole() == shown + typed.new(last=True) == text


@pytest.mark.parametrize("kind", ["bytes", "byte_level", "byte_fallback"])
def test_incomplete_characters_are_held_back(kind: str, made: dict[str, str]):
    found: Tokenizer = ByteTokenizer() if kind == "bytes" else load(made[kind])
    typed = Typed(found, "The", ())
    (start,), (ids,) = found.encode(["The"]), found.encode(["The 日🙂"])
    shown = [typed.new(last=False)]
    for token in ids[len(start) :]:
        typed.ids.append(token)
        shown.append(typed.new(last=False))
    assert "".join(shown) == "The 日🙂"
    assert "\ufffd" not in "".join(shown)
    assert sum(bool(part) for part in shown) == 4


def test_stop_strings_see_spaces(made: dict[str, str]):
    found = load(made["metaspace"])
    typed = Typed(found, "The cat", (" sat",))
    (ids,) = found.encode(["The cat sat on"])
    assert typed.has_stop(ids[len(typed.prompt_ids) :])
    typed.ids = ids[len(typed.prompt_ids) :]
    assert typed.whole() == "The cat sat"


def test_a_token_is_shown_as_it_continues_the_text(made: dict[str, str], tmp_path: Path):
    task = corpus_task(tmp_path, made["metaspace"])
    (prompt,), _ = task.read(["The cat"], "here", "stop")
    (ids,) = task.tokenizer.encode(["The cat sat"])
    token = ids[len(prompt.inputs) - 1]
    logits = torch.zeros(2, len(prompt.inputs), task.tokenizer.vocab_size)
    logits[:, -1, token] = 20.0
    word = continuation(task.tokenizer, prompt.inputs[1:].tolist(), [token])
    assert word.startswith(" ")
    assert task.answer(prompt, logits[0])["answer"] == word
    assert repr(word) in [label for label, _ in task.visualise(prompt, logits)["loops"][0]["probabilities"]]


# A run folder and foreign files


@pytest.mark.parametrize("kind", [*KINDS, "bytes", "bpe"])
def test_a_run_answers_without_its_corpus(kind: str, made: dict[str, str], tmp_path: Path):
    if kind in made:
        task = corpus_task(tmp_path, made[kind])
    else:
        (tmp_path / "a.txt").write_text("".join(STORIES))
        task = Text(
            TextConfig(
                train_files=(str(tmp_path / "a.txt"),), tokenizer=kind, document="line", context=16,
                cache=str(tmp_path / "cache"), bpe_size=300 if kind == "bpe" else 4096,
            )
        )  # fmt: skip
    saved = tmp_path / "saved"
    saved.mkdir()
    task.save(saved)
    assert [path.name for path in saved.iterdir()] == ([] if kind == "bytes" else ["tokenizer.json"])
    assert task.sources().keys() == {str(tmp_path / "a.txt")}
    for path in (tmp_path / "a.txt", *tmp_path.glob("cache/*/*")):
        path.unlink()
    (tmp_path / "t.json").unlink(missing_ok=True)
    loaded = Text.load(task.config, saved)
    assert loaded.spec == task.spec
    assert loaded.tokenizer.end == task.tokenizer.end
    text = "cat 1 sat"
    np.testing.assert_array_equal(loaded.prompt(text), task.prompt(text))
    (prompt,), _ = loaded.read([text], "here", "stop")
    assert loaded.to_text(prompt) == task.to_text(prompt)
    logits = torch.randn(len(prompt.inputs), loaded.tokenizer.vocab_size)
    assert loaded.answer(prompt, logits) == task.answer(prompt, logits)
    copy = pickle.loads(pickle.dumps(loaded))
    np.testing.assert_array_equal(copy.prompt(text), task.prompt(text))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "damaged; expected the tokenizer of a run"),
        ("[" * 100_000, "damaged; expected the tokenizer of a run"),
        ('{"end": 1, "tokenizer": {}}', "damaged; expected the tokenizer of a run"),
        ('{"end": {"id": 1, "token": "x"}, "tokenizer": {}}', "not a tokenizer of the tokenizers library"),
    ],
)
def test_a_damaged_tokenizer_of_a_run(content: str, message: str, tmp_path: Path):
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(ValueError, match=rf"tokenizer\.json: {message}"):
        Text.load(TextConfig(tokenizer="bpe"), tmp_path)


def test_the_end_of_a_saved_tokenizer_is_checked(made: dict[str, str], tmp_path: Path):
    content = {"end": {"id": 5, "token": "</s>"}, "tokenizer": json.loads(made["unigram"])}
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"'</s>' has the id 1; expected 5"):
        read_tokenizer(tmp_path / "tokenizer.json")


@pytest.mark.parametrize("kind", KINDS)
def test_the_tokenizer_of_a_run_is_one_for_other_runs(kind: str, made: dict[str, str], tmp_path: Path):
    found = BPETokenizer(made[kind], "</s>", "here")
    path = tmp_path / "tokenizer.json"
    write_tokenizer(path, found)
    again = BPETokenizer(read_bpe([path]), "</s>", str(path))
    assert again.encode(STORIES) == found.encode(STORIES)
    write_tokenizer(tmp_path / "again.json", again)
    assert path.read_bytes() == (tmp_path / "again.json").read_bytes()


@pytest.mark.parametrize("content", ["", "no JSON", "[" * 100_000, "{}", '{"model": 7}', "\0", '{"a": ' * 5000])
def test_foreign_files_that_are_no_tokenizer(content: str):
    with pytest.raises(ValueError, match="here: not a tokenizer"):
        checked_json([content], "here")


@pytest.mark.parametrize(
    ("loader", "message"),
    [
        ("import time; time.sleep(60)", "does not finish to read it"),
        ("import os; os.abort()", "fails on it, signal 6"),
        ("import resource; resource.setrlimit(resource.RLIMIT_CPU, (1, 1))\nwhile True: pass", "fails on it, signal"),
    ],
)
def test_a_tokenizer_that_hangs_or_aborts(loader: str, message: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(tokenizer, "LOADER", loader)
    monkeypatch.setattr(tokenizer, "SECONDS", 2 if "sleep" in loader else 60)
    begin = time.monotonic()
    with pytest.raises(ValueError, match=rf"here: not a tokenizer \(the tokenizers library {message}"):
        checked_json(["{}"], "here")
    assert time.monotonic() - begin < 30


def test_the_two_files_of_gpt2(tmp_path: Path):
    inner = tokenizers.ByteLevelBPETokenizer(add_prefix_space=False)
    inner.train_from_iterator(STORIES, 300, special_tokens=["<|endoftext|>"], show_progress=False)
    inner.save_model(str(tmp_path))
    (tmp_path / "vocab.json").rename(tmp_path / "encoder.json")
    (tmp_path / "merges.txt").rename(tmp_path / "vocab.bpe")
    found = BPETokenizer(read_bpe(tokenizer_files(str(tmp_path))), "<|endoftext|>", "here")
    assert found.encode(STORIES) == [inner.encode(story).ids for story in STORIES]
    assert found.lossless
