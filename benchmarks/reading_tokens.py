"""Reading batches from large token files: `python -m benchmarks.reading_tokens --out results/prepare/reading.json`.

The windows of `task.order=epochs` are compared with random ones, and with random ones that are gathered by one array of
indices, as before tokens lay in several files. The three take turns, because the load of the machine changes. The file
is in the cache of the system.
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np

from looped.tasks.base import Split
from looped.tasks.text import Text, TextConfig
from looped.tasks.text.corpus import Corpus
from looped.tasks.text.task import Window
from looped.tasks.text.tokenizer import ByteTokenizer
from looped.tasks.text.tokens import TokenWriter, mapped_tokens

BATCH, ROUND = 64, 50  # windows of a batch; batches that one way reads before the next one


class Gathered(Text):
    """Random windows by one array of indices."""

    def sample(self, split: Split, size: int, rng: np.random.Generator, group: str | None = None) -> list[Window]:
        (shard,), context = self.corpus.tokens[split].shards, self.config.context
        starts = rng.integers(0, len(shard) - 1 - context, size, endpoint=True)
        windows = shard[starts[:, None] + np.arange(context + 1)].astype(np.int64)
        return [Window(row[:-1], row[1:], context) for row in windows]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--tokens", type=float, default=268_435_456)
    parser.add_argument("--rounds", type=int, default=10)
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        writer = TokenWriter(folder, "train", np.uint16)
        block = rng.integers(0, 256, 1 << 24).astype(np.uint16)
        for _ in range(int(options.tokens) // len(block)):
            writer.write(block)
        writer.close()
        found = mapped_tokens(folder, "train", writer.lengths)
        found.shards[0].max()  # reads the only file
        rows = []
        for context in (256, 1024, 4096):
            corpus = Corpus(None, ByteTokenizer(), {"train": found}, {})
            ways: dict[str, Text] = {
                "gathered": Gathered(TextConfig(context=context), corpus),
                "random": Text(TextConfig(context=context), corpus),
                "epochs": Text(TextConfig(context=context, order="epochs"), corpus),
            }
            speeds: dict[str, list[float]] = {way: [] for way in ways}
            for number in range(1 + options.rounds):
                for way, task in ways.items():
                    began = time.perf_counter()
                    for step in range(number * ROUND, (number + 1) * ROUND):
                        task.batch("train", step, BATCH, seed=0)
                    speeds[way].append(ROUND / (time.perf_counter() - began))
            medians = {way: statistics.median(values[1:]) for way, values in speeds.items()}
            rows.append({"context": context, "batch": BATCH, "batches_per_s": medians})
            print(rows[-1])
    if options.out:
        options.out.write_text(json.dumps({"tokens": options.tokens, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
