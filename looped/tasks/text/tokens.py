"""The tokens of a split: one axis of ids in files of bounded size, which are mapped into memory.

SPLIT-00000.npy, SPLIT-00001.npy and so on follow each other. No file is ever read as a whole.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt

SHARD = 1 << 28  # tokens in a file at most, which is 512 MiB or 1 GiB


class Tokens:
    """Tokens in one or more arrays, which are views of files or lie in memory.

    They are a ring: the first token and the last one are the same end of text.

    Args:
        shards: the arrays in their order, each (tokens,) of uint16 or uint32.
        files: the files that the arrays are views of; none for arrays in memory.
    """

    def __init__(self, shards: Sequence[np.ndarray], files: Sequence[Path] = ()) -> None:
        self.files = files
        self.shards = [np.asarray(shard) for shard in shards]
        self._begins = [0, *accumulate(map(len, shards))]

    def __len__(self) -> int:
        return self._begins[-1]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.concatenate(self.shards).astype(dtype or self.shards[0].dtype)

    def __reduce__(self) -> tuple[Callable[..., "Tokens"], tuple[Any, ...]]:
        # Another process maps the files itself. Copies of the maps would fill its memory.
        return (_mapped, (self.files,)) if self.files else (Tokens, (self.shards,))

    def window(self, start: int, length: int) -> UInt[np.ndarray, " length"]:
        """The tokens from `start` on. Within one file this is a view, which reads nothing yet."""
        shard = bisect_right(self._begins, start) - 1
        place = start - self._begins[shard]
        window = self.shards[shard][place : place + length]
        if len(window) == length:
            return window
        following = start + len(window)
        rest = self.window(following if following < len(self) else 1, length - len(window))
        return np.concatenate([window, rest])


def _mapped(files: Sequence[Path]) -> Tokens:
    return Tokens([np.load(file, mmap_mode="r", allow_pickle=False) for file in files], files)


def mapped_tokens(folder: Path, split: str, lengths: Iterable[int]) -> Tokens:
    """Map the files of a split, which hold so many tokens.

    Raises:
        ValueError: a file is missing, cut short or no token file; names it.
    """
    files = []
    for number, length in enumerate(lengths):
        file = shard_name(folder, split, number)
        files.append(file)
        try:
            tokens = np.lib.format.open_memmap(file, mode="r")
        except FileNotFoundError:
            raise ValueError(f"{file}: no such file; expected {length} tokens") from None
        except Exception:  # numpy's reader of the header has many, without a common base
            tokens = np.zeros(0)
        if tokens.shape != (length,) or tokens.dtype not in (np.uint16, np.uint32):
            raise ValueError(f"{file}: damaged or cut short; expected {length} tokens")
    return _mapped(files)


def shard_name(folder: Path, split: str, number: int) -> Path:
    return folder / f"{split}-{number:05}.npy"


class TokenWriter:
    """The files of a split, while tokens are added to them."""

    def __init__(self, folder: Path, split: str, kind: type[np.unsignedinteger]) -> None:
        self.folder, self.split, self.kind = folder, split, kind
        self.lengths: list[int] = []
        """The number of tokens in each file."""
        self._begin_file()

    def write(self, ids: UInt[np.ndarray, " tokens"]) -> None:
        while len(ids):
            if self.lengths[-1] == SHARD:
                self.close()
                self._begin_file()
            some, ids = np.split(ids, [SHARD - self.lengths[-1]])
            self.lengths[-1] += len(some)
            self._file.write(some.data)

    def close(self) -> None:
        with self._file:
            self._file.seek(0)
            self._write_header()

    def _begin_file(self) -> None:
        self._file = shard_name(self.folder, self.split, len(self.lengths)).open("wb")
        self.lengths.append(0)
        self._write_header()

    def _write_header(self) -> None:
        """Write the header for the present length. Its size does not depend on the length."""
        described = np.lib.format.dtype_to_descr(np.dtype(self.kind))
        np.lib.format.write_array_header_1_0(
            self._file, {"shape": (self.lengths[-1],), "fortran_order": False, "descr": described}
        )
