"""Plans compared with trainings: `python -m benchmarks.plan --out results/plan/plan.json`.

Each case is planned and then trained for 60 steps, each in a fresh process.
"""

import argparse
import json
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from looped.commands.arguments import training_run
from looped.training import train

ROOT = Path(__file__).resolve().parents[1]
SHORT = "--train.steps 60 --optim.warmup-steps 10 --train.eval-every 60 --train.eval-examples 128 --train.log-every 1"
TEXT = f"--task.train-files {ROOT}/docs/constructions.md {ROOT}/docs/results.md --task.cache"
CASES = [
    "edit-distance-small-timestep",
    "sudoku-looped@cpu",
    "in-context-linear-looped@cpu",
    "language-timestep@cpu TEXT --optim.optimizer muon",
    "edit-distance-small-timestep --model.num-loops 32 --train.recompute loop",
    "sudoku-looped@cpu --schedule.kind random --schedule.min-loops 1 --schedule.max-loops 8",
    "edit-distance-small-timestep --model.num-loops 12 --schedule.num-grad-loops 3 --train.accumulation 4",
]
FIELDS = ("memory", "step_seconds", "seconds")


def trained(words: list[str]) -> dict[str, float]:
    """Train here, and return the peak memory of this process and the times."""
    with tempfile.TemporaryDirectory() as folder:
        run, _, _ = training_run(words[0], words[1:])
        summary = train(run, Path(folder) / "run")
        rows = [json.loads(line) for line in (Path(folder) / "run/metrics.jsonl").read_text().splitlines()]
    size = run.train.batch_size
    steps = [size / row["examples_per_s"] for row in rows if row["kind"] == "train"][10:]
    # Not ru_maxrss, which begins with the peak of the process that started this one.
    peak = 1024 * int(re.findall(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[0])
    return {"memory": peak, "step_seconds": statistics.fmean(steps), "seconds": summary["seconds"]}


def compare(case: str, folder: Path) -> dict[str, Any]:
    """A plan, a training, and the ratios of their numbers."""
    words = f"{case.replace('TEXT', f'{TEXT} {folder}/cache')} {SHORT}".split()
    began = time.perf_counter()
    command = [sys.executable, "-m", "looped.cli", "plan", *words, "--out", str(folder / "plan.json")]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    took = time.perf_counter() - began
    plan = json.loads((folder / "plan.json").read_text())
    configured = plan["choices"][0]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.plan", "--train", *words], check=True, stdout=-1, text=True
    )
    real = json.loads(done.stdout.splitlines()[-1])
    predicted = {name: configured[name] for name in FIELDS}
    ratios = {name: round(predicted[name] / real[name], 3) for name in FIELDS}
    return {
        "case": case, "predicted": predicted, "measured": real, "predicted / measured": ratios,
        "program": plan["program"], "tensors": configured["tensors"], "planning_seconds": round(took, 1),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, help="JSON file for the results")
    parser.add_argument("--train", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    parser.add_argument("--cases", type=int, nargs="*", default=range(len(CASES)), help="numbers of cases")
    arguments = parser.parse_args()
    if arguments.train:
        print("\n" + json.dumps(trained(arguments.train)))
        return
    processor = re.findall(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, stdout=-1, text=True).stdout.strip()
    results: dict[str, Any] = {
        "command": "python -m benchmarks.plan", "commit": commit, "processor": processor[0] if processor else "",
        "threads": torch.get_num_threads(), "torch": torch.__version__, "python": platform.python_version(),
        "cases": [],
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        for number in arguments.cases:
            found = compare(CASES[number], Path(folder))
            print(found["case"], found["predicted / measured"], f"planned in {found['planning_seconds']} s", flush=True)
            results["cases"].append(found)
    if arguments.out:
        arguments.out.parent.mkdir(exist_ok=True)
        arguments.out.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
