"""Lines on standard error about work that takes long."""

import sys
import time

from looped.printing import duration

EVERY = 10  # seconds


class Progress:
    """Counts bytes that are read, and says every few seconds how many they are, how fast, and how long the rest takes.

    Args:
        what: what is being done, the beginning of each line.
        total: number of bytes in all; None if it is not known.
    """

    def __init__(self, what: str, total: int | None) -> None:
        self.what, self.total, self.done = what, total, 0
        self._began = self._said = time.monotonic()

    def __call__(self, size: int) -> None:
        self.done += size
        now = time.monotonic()
        if now - self._said < EVERY:
            return
        self._said = now
        speed = self.done / (now - self._began)
        line = f"{self.what}: {self.done / 1e6:,.0f} MB"
        if self.total:
            line += f" of {self.total / 1e6:,.0f} MB, {duration((self.total - self.done) / speed)} left"
        print(f"{line}, {speed / 1e6:.1f} MB/s", file=sys.stderr)
