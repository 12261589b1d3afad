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

TRAIN = "train edit-distance-small --optim.warmup-steps 5 --train.steps 20 --out run"
SOLVE = "solve run pairs.txt"
HELP = ["--help", *(f"{name} --help" for name in (*COMMANDS, "train edit-distance-small"))]
HELP += [f"theory {name} --help" for name in THEORY] + [f"construct {name} --help" for name in CONSTRUCTIONS]
COMPLETE = "a press of TAB after `looped train edit-distance-small --model.num`"
PRESS = (
    "source completion.bash; COMP_WORDS=(looped train edit-distance-small --model.num); COMP_CWORD=3; _tyro_looped; "
    "[[ ${COMPREPLY[*]} == *--model.num-loops* ]]"
)
LIGHT = [*HELP, COMPLETE, "recipes"]
SECONDS = {**dict.fromkeys(LIGHT, 0.3), SOLVE: 2.0}
"""The largest allowed CPU time, in times that of `import torch`."""
MEMORY = {TRAIN: 1.3}
"""The largest allowed peak memory, in times that of `import torch`."""


def measure(line: str, folder: Path, tree: Path) -> tuple[float, float] | None:
    """Seconds of CPU time and peak memory (in MB) of a process; None if it fails.

    The memory is at least that of this process, which has imported no torch.
    """
    ours = {"PYTHONPATH": str(tree), "PYTHONPYCACHEPREFIX": str(folder / "bytecode"), "OMP_NUM_THREADS": "1"}
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"} | ours
    words = [sys.executable, "-m", "looped.cli", *line.split()]
    words = {"import torch": [sys.executable, "-c", line], COMPLETE: ["bash", "-c", PRESS]}.get(line, words)
    output = (folder / "completion.bash" if line == "completion bash" else Path(os.devnull)).open("w")
    with output:
        process = subprocess.Popen(words, cwd=folder, env=environment, stdout=output, stderr=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
    unit = 1 if sys.platform == "darwin" else 1024
    return None if status else (usage.ru_utime + usage.ru_stime, usage.ru_maxrss * unit / 1e6)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--tree", type=Path, default=Path(__file__).parents[1], help="the version to measure")
    parser.add_argument("--out", type=Path, help="JSON file for the results")
    arguments = parser.parse_args()
    lines = ["import torch", TRAIN, SOLVE, "show run", "tasks", "completion bash", *LIGHT]
    found: dict[str, list[tuple[float, float]]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "pairs.txt").write_text("abc acb\n")
        for repeat in range(arguments.repeats + 1):
            shutil.rmtree(folder / "run", ignore_errors=True)
            for line in lines:
                measured = measure(line, folder, arguments.tree.resolve())
                if measured and repeat:  # the first time also compiles the modules
                    found.setdefault(line, []).append(measured)
    torch_seconds, torch_memory = (statistics.median(part) for part in zip(*found["import torch"], strict=True))
    rows = []
    for line, numbers in found.items():
        seconds, memory = (statistics.median(part) for part in zip(*numbers, strict=True))
        ratios = seconds / torch_seconds, memory / torch_memory
        wrong = ratios[0] > SECONDS.get(line, ratios[0]) or ratios[1] > MEMORY.get(line, ratios[1])
        print(f"{line:72} {seconds:6.3f} s {ratios[0]:6.2f}x {memory:6.0f} MB {ratios[1]:6.2f}x{' too much' * wrong}")
        measured = {"seconds": seconds, "seconds_ratio": ratios[0], "megabytes": memory, "megabytes_ratio": ratios[1]}
        rows.append({"process": line, **{key: round(value, 3) for key, value in measured.items()}})
    if arguments.out:
        results = {
            "command": "python -m benchmarks.startup", "processor": processor(), "python": sys.version.split()[0],
            "torch": version("torch"), "threads": 1, "repeats": arguments.repeats, "rows": rows,
        }  # fmt: skip
        arguments.out.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
