"""CPU time and peak memory of processes of `looped`, compared with `import torch` (`make bench`).

All processes run in turn, each on one thread. The ratios therefore depend little on the load of the machine.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

from looped.cli import COMMANDS
from looped.commands.construct import CONSTRUCTIONS
from looped.commands.theory import COMMANDS as THEORY
from looped.machine import processor

TRAIN = "train demo-looped-4 --optim.warmup-steps 5 --train.steps 20 --out run"
SOLVE = "solve run pairs.txt"
HELP = ["--help", *(f"{name} --help" for name in (*COMMANDS, "train demo-looped-4"))]
HELP += [f"theory {name} --help" for name in THEORY] + [f"construct {name} --help" for name in CONSTRUCTIONS]
LIGHT = [*HELP, "completion bash", "completion zsh", "recipes"]
SECONDS = {**dict.fromkeys(LIGHT, 0.3), SOLVE: 2.0}
"""The largest allowed CPU time, in times that of `import torch`."""
MEMORY = {TRAIN: 1.3}
"""The largest allowed peak memory, in times that of `import torch`."""


def measure(words: list[str], folder: Path, tree: Path) -> tuple[float, float] | None:
    """Seconds of CPU time and peak memory (in MB) of a Python process; None if it fails."""
    environment = os.environ | {"PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1"}
    streams = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen([sys.executable, *words], cwd=folder, env=environment, **streams)
    _, status, usage = os.wait4(process.pid, 0)
    unit = 1 if sys.platform == "darwin" else 1024
    return None if status else (usage.ru_utime + usage.ru_stime, usage.ru_maxrss * unit / 1e6)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--tree", type=Path, default=Path(__file__).parents[1], help="the version to measure")
    parser.add_argument("--out", type=Path, help="JSON file for the results")
    arguments = parser.parse_args()
    found: dict[str, list[tuple[float, float]]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "pairs.txt").write_text("abc acb\n")
        for _ in range(arguments.repeats):
            shutil.rmtree(folder / "run", ignore_errors=True)
            for line in ("import torch", TRAIN, SOLVE, "show run", "tasks", *LIGHT):
                words = ["-c", line] if line == "import torch" else ["-m", "looped.cli", *line.split()]
                if measured := measure(words, folder, arguments.tree.resolve()):
                    found.setdefault(line, []).append(measured)
    medians = {line: [statistics.median(part) for part in zip(*rows, strict=True)] for line, rows in found.items()}
    rows = []
    for line, (seconds, memory) in medians.items():
        ratios = seconds / medians["import torch"][0], memory / medians["import torch"][1]
        wrong = ratios[0] > SECONDS.get(line, ratios[0]) or ratios[1] > MEMORY.get(line, ratios[1])
        print(f"{line:72} {seconds:6.3f} s {ratios[0]:6.2f}x {memory:6.0f} MB {ratios[1]:6.2f}x{' too much' * wrong}")
        numbers = (seconds, ratios[0], memory, ratios[1])
        names = ("seconds", "seconds_ratio", "megabytes", "megabytes_ratio")
        rows.append({"process": line, **{name: round(n, 3) for name, n in zip(names, numbers, strict=True)}})
    print(f"the longest of the light ones: {max(medians[line][0] for line in LIGHT if line in medians):.3f} s")
    if arguments.out:
        results = {
            "command": "python -m benchmarks.startup", "processor": processor(), "python": sys.version.split()[0],
            "torch": version("torch"), "threads": 1, "repeats": arguments.repeats, "rows": rows,
        }  # fmt: skip
        arguments.out.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
