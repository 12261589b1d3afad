"""Answers of a language model in a file, for a later evaluation."""

import json
import sqlite3
from collections.abc import Iterator, MutableMapping
from pathlib import Path
from typing import Any


class AnswerFile(MutableMapping[str, Any]):
    """A dict in a data base of SQLite. Values are JSON, which holds no code. Each is kept as soon as it is set.

    Raises:
        ValueError: the file is not one of these.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self.base = sqlite3.connect(path, isolation_level=None)
            self.base.execute("PRAGMA synchronous = OFF")  # a power cut may lose answers, a killed process does not
            self.base.execute("CREATE TABLE IF NOT EXISTS answers (name TEXT PRIMARY KEY, value TEXT)")
        except sqlite3.Error as error:
            raise ValueError(f"{path}: not a file of answers ({error})") from None

    def __getitem__(self, name: str) -> Any:
        found = self.base.execute("SELECT value FROM answers WHERE name = ?", (name,)).fetchone()
        if found is None:
            raise KeyError(name)
        try:
            return json.loads(found[0])
        except (ValueError, TypeError, RecursionError):
            raise ValueError(f"{self.path}: damaged; expected answers as JSON") from None

    def __setitem__(self, name: str, value: Any) -> None:
        self.base.execute("REPLACE INTO answers VALUES (?, ?)", (name, json.dumps(value)))

    def __delitem__(self, name: str) -> None:
        self.base.execute("DELETE FROM answers WHERE name = ?", (name,))

    def __iter__(self) -> Iterator[str]:
        return (name for (name,) in self.base.execute("SELECT name FROM answers"))

    def __len__(self) -> int:
        return self.base.execute("SELECT count(*) FROM answers").fetchone()[0]
