"""Preparing text, compared with `datasets`: `python -m benchmarks.prepare --out results/prepare/prepare.json`.

Both read the same generated JSON lines, encode them with the same BPE, and write one array of tokens with an end of
text after each document. Each runs in a fresh process. The memory is that of the process and its children together.
"""

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import psutil

VOCABULARY = 500_000
LETTERS = "etaoinshrdlucmfwypvbgkjqxz"
# What follows a word, with its probability. The last one ends a document.
ENDINGS = {", ": 0.05, ". ": 0.05, "? ": 0.004, ".\n\n": 0.01, '" ': 0.004, " (": 0.002, ".": 0.002}
SAMPLE_EVERY = 0.2  # seconds
SIZE = 32_000  # tokens of the BPE


# Text


def write_text(path: Path, size: int, seed: int) -> None:
    """Write JSON lines with about `size` bytes of text.

    The words have a Zipf distribution with the exponent 1.25. The number of different words then grows with the text a
    little faster than in English Wikipedia.
    """
    rng = np.random.default_rng(seed)
    ranks = np.arange(1, VOCABULARY + 1)
    frequent = 1 / np.arange(1, len(LETTERS) + 1) ** 0.8
    lengths = np.clip(rng.poisson(2.2 + 1.3 * np.log10(ranks)), 1, 18)
    letters = iter(rng.choice(list(LETTERS), lengths.sum(), p=frequent / frequent.sum()).tolist())
    words = ["".join(next(letters) for _ in range(length)) for length in lengths.tolist()]
    forms = np.array([*words, *(word.capitalize() for word in words)], object)
    zipf = np.cumsum(1 / (ranks + 2.7) ** 1.25)
    endings = np.array([" ", *ENDINGS], object)
    probabilities = np.cumsum([1 - sum(ENDINGS.values()), *ENDINGS.values()])
    written, rest = 0, ""
    with path.open("w") as file:
        while written < size:
            numbers = np.searchsorted(zipf, rng.random(200_000) * zipf[-1])
            after = np.minimum(np.searchsorted(probabilities, rng.random(200_000)), len(endings) - 1)
            capital = np.char.startswith(np.roll(endings[after], 1).astype(str), ".")
            text = "".join((forms[numbers + VOCABULARY * capital] + endings[after]).tolist())
            ends = np.flatnonzero(after == len(endings) - 1)
            places = np.cumsum(np.vectorize(len)(forms[numbers + VOCABULARY * capital] + endings[after]))[ends].tolist()
            for start, end in zip([0, *places], places, strict=False):
                document = rest + text[start:end]
                file.write(json.dumps({"text": document}) + "\n")
                written, rest = written + len(document), ""
            rest = text[places[-1] :]


# The two ways


def by_looped(source: Path, tokenizer: str, folder: Path) -> int:
    from looped.tasks.text import TextConfig
    from looped.tasks.text.corpus import open_corpus

    config = TextConfig(train_files=(str(source),), text_field="text", tokenizer=tokenizer, cache=str(folder))
    return sum(len(tokens) for tokens in open_corpus(config).tokens.values())


def by_datasets(source: Path, tokenizer: str, folder: Path, processes: int) -> int:
    import datasets
    import pyarrow.compute as pc
    import tokenizers

    encoder = tokenizers.Tokenizer.from_file(tokenizer)
    end = encoder.token_to_id("<|endoftext|>")

    def encode(batch: dict[str, list[str]]) -> dict[str, list[np.ndarray]]:
        found = encoder.encode_batch_fast(batch["text"], add_special_tokens=False)
        return {"ids": [np.array([*encoding.ids, end], np.uint16) for encoding in found]}

    rows = datasets.load_dataset("json", data_files=str(source), split="train", cache_dir=str(folder / "cache"))
    rows = rows.map(encode, batched=True, num_proc=processes if processes > 1 else None, remove_columns=["text"])
    count = 0
    with (folder / "train.bin").open("wb") as file:
        table: Any
        for table in rows.with_format("arrow").iter(batch_size=1000):
            ids = pc.list_flatten(table["ids"]).to_numpy()  # pyright: ignore[reportAttributeAccessIssue]
            file.write(ids.tobytes())
            count += len(ids)
    return count


WAYS: dict[str, Callable[[Path, str, Path], int]] = {
    "looped": by_looped,
    "datasets, a process for each core": lambda *words: by_datasets(*words, processes=len(os.sched_getaffinity(0))),
    "datasets, threads of tokenizers": lambda *words: by_datasets(*words, processes=1),
}


def one(way: str, source: Path, tokenizer: str, folder: Path) -> None:
    """Prepare in this process, and print what it took."""
    began = time.perf_counter()
    tokens = WAYS[way](source, tokenizer, folder)
    seconds = time.perf_counter() - began
    times = os.times()
    print(json.dumps({"tokens": tokens, "seconds": seconds, "cpu_seconds": sum(times[:4])}))


# Measuring


def memory_of(process: psutil.Process) -> tuple[int, int]:
    """Bytes of a process and its children: all (PSS: a page that n of them share counts as 1/n each), and without
    pages of files."""
    total = anonymous = 0
    for each in [process, *process.children(recursive=True)]:
        try:
            lines = Path(f"/proc/{each.pid}/smaps_rollup").read_text().splitlines()[1:]
        except OSError:  # it has just ended
            continue
        sizes = {line.split(":")[0]: 1024 * int(line.split()[1]) for line in lines}
        total, anonymous = total + sizes["Pss"], anonymous + sizes["Pss_Anon"]
    return total, anonymous


def measured(way: str, source: Path, tokenizer: str) -> dict[str, Any]:
    """Prepare in a fresh process, whose memory is sampled."""
    with tempfile.TemporaryDirectory(dir=source.parent) as name:
        words = [sys.executable, "-m", "benchmarks.prepare", "--one", way, "--source", str(source)]
        environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_DATASETS_DISABLE_PROGRESS_BARS": "1"}
        environment["TOKENIZERS_PARALLELISM"] = "false" if "process" in way else "true"
        child = subprocess.Popen(
            [*words, "--tokenizer", tokenizer, "--folder", name], stdout=subprocess.PIPE, text=True, env=environment
        )
        process, peaks = psutil.Process(child.pid), (0, 0)
        while child.poll() is None:
            peaks = tuple(map(max, peaks, memory_of(process)))
            time.sleep(SAMPLE_EVERY)
        output = child.stdout.read() if child.stdout else ""
        if child.returncode:
            raise SystemExit(f"{way}: ended with code {child.returncode}")
        disk = sum(file.stat().st_size for file in Path(name).rglob("*") if file.is_file())
    found = json.loads(output.splitlines()[-1])
    size = source.stat().st_size
    return {
        "way": way, "tokenizer": Path(tokenizer).name, "bytes": size, **found,
        "mb_per_s": size / 1e6 / found["seconds"],
        "peak_memory": peaks[0], "peak_memory_without_files": peaks[1], "disk": disk,
    }  # fmt: skip


def environment() -> dict[str, Any]:
    processor = next(
        (line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line),
        platform.processor(),
    )
    versions = {name: version(name) for name in ("datasets", "tokenizers", "pyarrow", "numpy")}
    return {
        "processor": processor,
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        **versions,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--size", type=float, default=200e6, help="bytes of text")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--tokenizers", nargs="+", default=["shared"], help="shared (a BPE), bytes or bpe (trained)")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--scratch", type=Path, default=Path(tempfile.gettempdir()))
    for name in ("one", "source", "tokenizer", "folder"):
        parser.add_argument(f"--{name}", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        one(options.one, Path(options.source), options.tokenizer, Path(options.folder))
        return
    from looped.tasks.text.tokenizer import trained_bpe

    folder = Path(tempfile.mkdtemp(dir=options.scratch))
    try:
        source, shared = folder / "text.jsonl", folder / "shared.json"
        write_text(source, int(options.size), options.seed)
        with source.open() as file:
            shared.write_text(trained_bpe((json.loads(file.readline())["text"] for _ in range(5000)), SIZE))
        rows = []
        for _ in range(options.repeats):
            for kind in options.tokenizers:
                for way in options.ways:
                    load = os.getloadavg()[0]
                    rows.append(
                        measured(way, source, str(shared) if kind == "shared" else kind) | {"load_before": load}
                    )
                    print(json.dumps(rows[-1]), file=sys.stderr)
    finally:
        shutil.rmtree(folder)
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(
            json.dumps({"environment": environment(), "seed": options.seed, "rows": rows}, indent=1) + "\n"
        )


if __name__ == "__main__":
    main()
