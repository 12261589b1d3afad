"""The settings of the task text."""

from typing import ClassVar, Literal

from looped.strict import check, forbid_unused, frozen, positive
from looped.tasks.registry import TaskConfig


@frozen
class TextConfig(TaskConfig):
    """Predict every next token of a text."""

    name = "text"

    paths: ClassVar[tuple[str, ...]] = (
        "train_files", "validation_files", "test_files", "dataset", "tokenizer", "cache",
    )  # fmt: skip

    train_files: tuple[str, ...] = ()
    """Files of text or .jsonl, plain or .xz, .gz, .zst, or folders with *.txt and *.jsonl files (also compressed)."""
    validation_files: tuple[str, ...] = ()
    test_files: tuple[str, ...] = ()
    """Without validation_files and test_files, the content of each document of train_files decides its split."""
    text_field: str | None = None
    """The field of .jsonl files that holds the text, or the column of a data set (None is then `text`). Each object
    of a .jsonl file counts as a file, each row of a data set as a line."""
    dataset: str | None = None
    """A data set instead of files: of the Hugging Face hub, as NAME or NAME:CONFIGURATION, or a folder that
    `save_to_disk` wrote."""
    tokenizer: str = "bytes"
    """bytes; bpe, trained on the training text (on an even sample of 128 MiB, if it is larger); a tokenizers JSON file,
    also that of a run (RUN/task/tokenizer.json); a folder with one, as `save_pretrained` writes it; or a folder with
    encoder.json and vocab.bpe."""
    bpe_size: int = 4096
    """Number of tokens of a trained BPE, including the 256 bytes and the end of text (tokenizer=bpe)."""
    end_token: str = "<|endoftext|>"
    """The end of text in the vocabulary of a tokenizer that is read from a file."""
    document: Literal["file", "paragraph", "line"] = "file"
    """The unit that an end of text follows. paragraph: lines without a blank one between. line: a line that is not
    blank."""
    version: Literal["corrected", "published"] = "corrected"
    """published: an end of text follows every line, including blank lines."""
    order: Literal["random", "epochs"] = "random"
    """The windows of training. random: they begin anywhere, drawn with replacement, as published. epochs: each token is
    in one window of an epoch, in a new order."""
    context: int = 256
    """Number of tokens in a window, and the longest input of the model."""
    stride: int | None = None
    """Number of tokens by which the sliding window moves in evaluation; None is half the context."""
    cache: str = "prepared"
    """Folder for prepared token files, and nothing else."""

    def __post_init__(self) -> None:
        positive(self, "context", "stride")
        check((self.stride or 1) <= self.context, "stride", self.stride, f"at most context={self.context}")
        check(self.text_field != "", "text_field", self.text_field, "the name of a field")
        check(bool(self.tokenizer), "tokenizer", self.tokenizer, "bytes, bpe, or a file or folder")
        check(257 <= self.bpe_size <= 1_000_000, "bpe_size", self.bpe_size, "257 to 1000000")
        separate = bool(self.validation_files), bool(self.test_files)
        check(
            separate[0] == separate[1],
            "validation_files",
            self.validation_files,
            "files if test_files are given, else none",
        )
        if self.dataset is not None:
            forbid_unused(self, "a dataset is given", "train_files", "validation_files", "test_files")
        if self.version == "published":
            forbid_unused(self, "version='published'", "document")
        if self.tokenizer != "bpe":
            forbid_unused(self, f"tokenizer={self.tokenizer!r}", "bpe_size")
        if self.tokenizer in ("bytes", "bpe"):
            forbid_unused(self, f"tokenizer={self.tokenizer!r}", "end_token")

    @property
    def has_data(self) -> bool:
        """Whether they name a text."""
        return bool(self.train_files) or self.dataset is not None
