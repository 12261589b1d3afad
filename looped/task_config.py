"""The configuration of each task, told apart by its `name`."""

from typing import Literal

from looped.strict import check, forbid_unused, fraction, frozen, ordered, positive


@frozen
class EditDistanceConfig:
    """Weighted edit distance of two strings (insert 2, delete 2, replace 3)."""

    name: Literal["edit_distance"] = "edit_distance"
    length: int = 60
    """Length n of the first string in training; the second has n-3 .. n+2."""
    eval_lengths: tuple[int, ...] = ()
    """Further lengths for evaluation."""
    min_letters: int = 3
    max_letters: int = 26
    """Each pair draws its own alphabet of min_letters .. max_letters letters."""
    letter_pool: int = 26
    """The first letters of a-z, of which those alphabets are drawn."""
    pairs: Literal["mixed", "independent"] = "mixed"
    """Independent strings and edited copies, or (a public script with zero edits) only the former."""
    version: Literal["corrected", "published"] = "corrected"
    """published: leading gaps cost 1 instead of 2, and the end token after the answer is scored too."""
    answer_at: Literal["separator", "class", "last"] = "separator"
    """Where the answer is read: at <sep>, at a class token in front, or at the last letter."""

    def __post_init__(self) -> None:
        _check_strings(self)


@frozen
class LCSConfig:
    """Length of the longest common subsequence of two strings."""

    name: Literal["lcs"] = "lcs"
    length: int = 100
    eval_lengths: tuple[int, ...] = ()
    min_letters: int = 3
    max_letters: int = 25
    letter_pool: int = 26
    """The first letters of a-z, of which each pair draws its own min_letters .. max_letters."""
    version: Literal["corrected", "published", "published_v1"] = "corrected"
    """published: its 'insert' replaces, and the end token is scored too. published_v1: each string draws
    its own max_letters letters with replacement, both of length n (the older public script)."""
    answer_at: Literal["separator", "class", "last"] = "separator"

    def __post_init__(self) -> None:
        _check_strings(self)
        if self.version == "published_v1":
            forbid_unused(self, "version='published_v1'", "min_letters")


def _check_strings(config: "EditDistanceConfig | LCSConfig") -> None:
    for n in (config.length, *config.eval_lengths):
        check(4 <= n <= 1000, "length", n, "4 to 1000")
    pool = config.letter_pool
    check(1 <= pool <= 26, "letter_pool", pool, "1 to 26")
    check(1 <= config.min_letters <= pool, "min_letters", config.min_letters, f"1 to letter_pool={pool}")
    check(
        config.min_letters <= config.max_letters <= pool,
        "max_letters",
        config.max_letters,
        "min_letters to letter_pool",
    )
    check(
        config.version == "corrected" or config.answer_at == "separator",
        "answer_at", config.answer_at, "'separator' with the published versions (only there do they score <eos>)",
    )  # fmt: skip


@frozen
class SudokuConfig:
    """Fill a Sudoku board; puzzles come from files, or are generated with exactly one solution."""

    name: Literal["sudoku"] = "sudoku"
    box: int = 3
    """Side of a box: 3 for 9x9 boards, 2 for 4x4."""
    files: tuple[str, ...] = ()
    """Puzzle files (see `looped tasks`); none generates `pool` puzzles from `pool_seed`."""
    pool: int = 2000
    pool_seed: int = 0
    min_clues: int | None = None
    max_clues: int | None = None
    """Range of clue counts, of generated puzzles or of the rows used from files; None is any."""
    min_rating: float | None = None
    max_rating: float | None = None
    """Use only rows with a numeric rating in this range."""
    augment: bool = True
    """Apply a random symmetry to every training board."""
    loss: Literal["blanks", "all"] = "blanks"
    """Which cells are scored in training; the public code scores all, givens included."""
    on_bad_row: Literal["stop", "skip"] = "stop"
    """A row that is no puzzle with one solution stops the run, or is skipped and counted."""

    def __post_init__(self) -> None:
        check(self.box in (2, 3), "box", self.box, "2 or 3")
        positive(self, "pool")
        cells = self.box**4
        for name in ("min_clues", "max_clues"):
            value = getattr(self, name)
            check(value is None or 0 < value < cells, name, value, f"1 to {cells - 1}")
        ordered(self, "clues")
        ordered(self, "rating")
        if self.files:
            forbid_unused(self, "files are given", "pool", "pool_seed")
        else:
            forbid_unused(self, "puzzles are generated", "min_rating", "max_rating", "on_bad_row")


@frozen
class CountdownConfig:
    """Reach a target from given numbers, each used once, by + - * /."""

    name: Literal["countdown"] = "countdown"
    numbers: int = 4
    max_number: int = 99
    min_target: int = 10
    max_target: int = 100
    held_out: float = 0.1
    """Share of the targets that never occur in training."""
    target_seed: int = 4

    def __post_init__(self) -> None:
        check(2 <= self.numbers <= 6, "numbers", self.numbers, "2 to 6")
        positive(self, "min_target")
        check(2 <= self.max_number <= 999, "max_number", self.max_number, "2 to 999")
        allowed = f"more than min_target={self.min_target}, up to 999"
        check(self.min_target < self.max_target <= 999, "max_target", self.max_target, allowed)
        fraction(self, "held_out")
        held_out = int(self.held_out * (self.max_target - self.min_target + 1))
        check(held_out >= 1, "held_out", self.held_out, "a share that holds out at least one target")
        check(self.held_out < 1, "held_out", self.held_out, "a share that leaves targets for training")


@frozen
class InContextConfig:
    """A function's value at a point, from its values at the points before it."""

    name: Literal["in_context"] = "in_context"
    function: Literal["linear", "noisy_linear", "sparse_linear", "decision_tree", "relu"] = "decision_tree"
    dim: int = 20
    """Coordinates of a point."""
    points: int = 101
    """Points in a prompt; the last one has all others as context."""
    start_dim: int | None = None
    """Coordinates in use at the first training step, the others being zero; None is all."""
    dim_step: int = 1
    dim_every: int | None = None
    """`dim_step` coordinates are added every `dim_every` steps."""
    start_points: int | None = None
    """Points in a prompt at the first training step; None is all."""
    points_step: int = 1
    points_every: int | None = None
    truncation: Literal["corrected", "published"] = "corrected"
    """corrected: a function depends on the coordinates in use. published: trees ignore start_dim, and the
    coordinates of sparse functions are drawn from all, so that early ones can be zero everywhere."""

    def __post_init__(self) -> None:
        positive(self, "dim", "start_dim", "dim_step", "dim_every", "start_points", "points_step", "points_every")
        check(self.points >= 2, "points", self.points, "at least 2")
        for size in ("dim", "points"):
            start, every, full = getattr(self, f"start_{size}"), getattr(self, f"{size}_every"), getattr(self, size)
            if start is None:
                forbid_unused(self, f"start_{size}=None", f"{size}_step", f"{size}_every")
            else:
                check(start <= full, f"start_{size}", start, f"at most {size}={full}")
                check(every is not None, f"{size}_every", None, f"a number of steps with start_{size}={start}")
        if self.start_dim is None:
            forbid_unused(self, "start_dim=None", "truncation")
        elif self.function not in ("sparse_linear", "decision_tree"):
            forbid_unused(self, f"function={self.function!r}", "truncation")


@frozen
class TablesConfig:
    """The last column of a table's row, from the rows before it; the model is tested on a table held out.

    The published filter of OpenML tables is min_features=5, dim=20, min_rows=1000, max_rows=10000.
    """

    name: Literal["tables"] = "tables"
    tables: tuple[str, ...] = ("iris", "breast_cancer", "digits", "wine")
    """CSV (with a line of names) or ARFF files, the last column being the target; or data sets of
    scikit-learn: iris, wine, breast_cancer, digits (classes), diabetes (numbers)."""
    held_out: str = "wine"
    """The one of `tables` that is not trained on."""
    target: Literal["class", "number"] = "class"
    """What the last column is. Each prompt has two of the classes."""
    dim: int = 64
    """Width of a row as the model sees it; rows with fewer features have zeros on their left."""
    points: int = 41
    """Rows in a prompt; the last one has all others as context."""
    min_features: int = 1
    min_rows: int = 1
    max_rows: int | None = None
    split_seed: int = 2021
    """Fixes which 5% of the rows are asked about in validation and test."""

    def __post_init__(self) -> None:
        positive(self, "dim", "min_features", "min_rows", "max_rows")
        ordered(self, "rows")
        check(self.min_features <= self.dim, "min_features", self.min_features, f"at most dim={self.dim}")
        check(self.points >= 2, "points", self.points, "at least 2")
        check(self.split_seed >= 0, "split_seed", self.split_seed, "at least 0")
        check(self.held_out in self.tables, "held_out", self.held_out, f"one of tables={', '.join(self.tables)}")
        check(len(set(self.tables)) > 1, "tables", self.tables, "one to hold out, and others to train on")
        check(len(set(self.tables)) == len(self.tables), "tables", self.tables, "different tables")


@frozen
class TextConfig:
    """Predict every next token of a text."""

    name: Literal["text"] = "text"
    train_files: tuple[str, ...] = ()
    """Files of text, plain or .xz, .gz, .zst, or folders with *.txt files (also compressed)."""
    validation_files: tuple[str, ...] = ()
    test_files: tuple[str, ...] = ()
    """Without these two, each document of train_files belongs to the split that its content says."""
    dataset: str | None = None
    """Instead of files: a data set of the Hugging Face hub with a column `text`, as NAME or NAME:CONFIGURATION."""
    tokenizer: str = "bytes"
    """bytes; bpe (trained on the training text); a folder with encoder.json and vocab.bpe; a tokenizers JSON."""
    bpe_size: int = 4096
    """Tokens of a trained BPE, the 256 bytes and the end of text among them (tokenizer=bpe)."""
    end_token: str = "<|endoftext|>"
    """The end of text in the vocabulary of a tokenizer that is read from a file."""
    document: Literal["file", "paragraph", "line"] = "file"
    """What an end of text follows: a file, lines without a blank one between, or a line that is not blank."""
    version: Literal["corrected", "published"] = "corrected"
    """published: an end of text follows every line, blank ones too (where it is all there is of them)."""
    context: int = 256
    """Tokens that a window holds, and the most that the model sees."""
    stride: int | None = None
    """Tokens by which the sliding window moves in evaluation; None is half the context."""
    cache: str = "prepared"
    """Folder in which prepared tokens are kept."""

    def __post_init__(self) -> None:
        positive(self, "context", "stride")
        check((self.stride or 1) <= self.context, "stride", self.stride, f"at most context={self.context}")
        check(bool(self.tokenizer), "tokenizer", self.tokenizer, "bytes, bpe, or a file or folder")
        check(257 <= self.bpe_size <= 1_000_000, "bpe_size", self.bpe_size, "257 to 1000000")
        separate = bool(self.validation_files), bool(self.test_files)
        check(
            separate[0] == separate[1], "validation_files", self.validation_files, "files exactly where test_files are"
        )
        if self.dataset is not None:
            forbid_unused(self, "a dataset is given", "train_files", "validation_files", "test_files")
        if self.version == "published":
            forbid_unused(self, "version='published'", "document")
        if self.tokenizer != "bpe":
            forbid_unused(self, f"tokenizer={self.tokenizer!r}", "bpe_size")
        if self.tokenizer in ("bytes", "bpe"):
            forbid_unused(self, f"tokenizer={self.tokenizer!r}", "end_token")


TaskConfig = (
    EditDistanceConfig | LCSConfig | SudokuConfig | CountdownConfig | InContextConfig | TablesConfig | TextConfig
)
