"""A looped model in a folder that `save_pretrained` or `looped export` wrote, with its tokenizer."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from looped.files import read_object
from looped.models.transformer import LoopedTransformer

CONFIG = "config.json"


class FolderTokenizer:
    """A tokenizer of transformers as a `looped.tasks.base.Tokenizer`."""

    def __init__(self, inner: Any) -> None:
        self.inner, self.vocab_size, self.end = inner, len(inner), inner.eos_token_id
        first = inner("a", return_special_tokens_mask=True)
        self.start: list[int] = first["input_ids"][: [*first["special_tokens_mask"], 0].index(0)]
        """The tokens that it puts before each text; [] for most."""

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        return [self.inner.encode(text, add_special_tokens=False) for text in texts]

    def decode(self, ids: Sequence[int]) -> str:
        return self.inner.decode(list(ids), skip_special_tokens=False)


def open_folder(folder: Path) -> tuple[LoopedTransformer, FolderTokenizer]:
    """The model in a folder of transformers, and its tokenizer.

    Raises:
        ValueError: another kind of model; no tokenizer, or one without an end of text.
    """
    kind = read_object(folder / CONFIG).get("model_type")
    if kind != "looped":
        raise ValueError(
            f"{folder / CONFIG}: model_type={kind!r}: expected a run or a model of looped.hf; "
            f"`looped open {folder} --out RUN` makes a run of other models"
        )
    if not (folder / "tokenizer.json").is_file():
        raise ValueError(f"{folder}: no tokenizer.json; expected the tokenizer beside the model")
    from looped.hf import LoopedForCausalLM

    from transformers import AutoTokenizer  # isort: skip  looped.hf says which extra has it

    inner = AutoTokenizer.from_pretrained(folder)
    if inner.eos_token_id is None:
        raise ValueError(f"{folder}: the tokenizer has no eos_token; expected one, the end of text")
    return LoopedForCausalLM.from_pretrained(folder).looped, FolderTokenizer(inner)
