"""CPU time from the first training step to a validation score: the recipes against the settings of an earlier commit.

    git worktree add /tmp/old 6ba1362
    python benchmarks/time_to_accuracy.py --old /tmp/old --out results/bench/time_to_accuracy.json

The earlier code had a recipe for edit distance only. Its settings therefore serve for the other tasks too. Old and new
take turns, each in a process of its own with one thread. A run that misses the score counts with the time of all its
steps, so the ratio is then a lower bound. Finished runs in the file are not repeated.
"""

import argparse
import dataclasses
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parents[1]
TARGETS = {"sudoku-4x4": 0.95, "p-hop-looped": 0.99, "edit-distance-small-timestep": 0.8, "edit-distance-small": 0.8}
TASKS: dict[str, dict[str, Any]] = {
    "sudoku-4x4": {"name": "sudoku", "box": 2, "pool": 20_000},
    "p-hop-looped": {"name": "p_hop", "hops": 2, "length": 24},
}
"""The tasks without a recipe in the earlier code."""
EVERY = {"sudoku-4x4": 25, "p-hop-looped": 50, "edit-distance-small-timestep": 50, "edit-distance-small": 50}
"""Steps between validations, whose time does not count."""
LIMIT = {("p-hop-looped", "old"): 600}
"""Steps after which a run is stopped that would not reach the score in all its steps."""


def settings(case: str, version: str, seed: int) -> Any:
    """The configuration of a run in the code that was imported."""
    from looped.config import RunConfig
    from looped.recipes import complete, recipe
    from looped.strict import from_dict, to_dict

    if version == "old" and case in TASKS:
        data = to_dict(recipe("edit-distance-small-timestep")) | {"task": TASKS[case]}
        data["model"]["causal"] = case == "p-hop-looped"
        run = from_dict(RunConfig, data)
    else:
        run = recipe(case)
    # Without other processes, the CPU time of this one holds everything.
    train = dataclasses.replace(run.train, seed=seed, target=TARGETS[case], eval_every=EVERY[case], workers=0)
    return complete(dataclasses.replace(run, train=train))


def measure(case: str, version: str, seed: int) -> dict[str, Any]:
    """Train until the target, and score the best weights on test examples."""
    import looped.tasks
    from looped.training import load_run, trainer

    torch.set_num_threads(1)
    if version == "old" and case == "p-hop-looped":  # the task is newer than that code
        looped.tasks.__path__.append(str(ROOT / "looped/tasks"))
        import looped.tasks.p_hop

    class Timed(trainer.Trainer):
        """Counts the CPU time of steps: batches, passes, updates; not validation and checkpoints."""

        seconds = 0.0

        def _step(self, batches: Iterator[Any]) -> bool:
            began = time.process_time()
            improved = super()._step(batches)
            Timed.seconds += time.process_time() - began
            return improved

        def _validate(self) -> bool:
            began = time.process_time()
            improved = super()._validate()
            Timed.seconds -= time.process_time() - began
            return improved

        def _finished(self) -> str | None:
            stopped = self.progress.step == LIMIT.get((case, version))
            return super()._finished() or ("interrupted" if stopped else None)

    trainer.Trainer = Timed
    run = settings(case, version, seed)
    with tempfile.TemporaryDirectory() as folder:
        summary = trainer.train(run, Path(folder) / "run")
        model, task = load_run(Path(folder) / "run")[1], looped.tasks.TASKS[run.task.name](run.task)
    test = task.batch("test", 0, 1024, seed=0)
    with torch.no_grad():
        score = task.score(test, model(test.inputs, attention_mask=test.attention_mask).logits)[task.metric]
    return {
        "case": case,
        "version": version,
        "seed": seed,
        "reached": summary["finished"] == "target",
        "steps": summary["steps"],
        "cpu_seconds": round(Timed.seconds, 2),
        "validation": round(summary["best"]["value"], 4),
        "test": round(score.double().mean().item(), 4),
    }


def table(rows: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Medians over the seeds, and their ratio, for each case."""
    result: dict[str, dict[str, Any]] = {}
    for case in dict.fromkeys(row["case"] for row in rows):
        result[case] = {"target": TARGETS[case]}
        for version in ("old", "new"):
            runs = [row for row in rows if (row["case"], row["version"]) == (case, version)]
            if runs:
                result[case] |= {
                    f"{version}: runs that reached it": f"{sum(row['reached'] for row in runs)} of {len(runs)}",
                    **{
                        f"{version}: median {name}": statistics.median(row[name] for row in runs)
                        for name in ("cpu_seconds", "steps", "test")
                    },
                }
        old, new = (result[case].get(f"{version}: median cpu_seconds") for version in ("old", "new"))
        if old and new:
            result[case]["old / new"] = round(old / new, 1)
    return result


def line(case: str, values: dict[str, Any]) -> str:
    """A row of a Markdown table of the medians."""

    def cell(version: str) -> str:
        median = {name: values[f"{version}: median {name}"] for name in ("cpu_seconds", "steps", "test")}
        reached = values[f"{version}: runs that reached it"]
        return f"{median['cpu_seconds']:.1f} s, {median['steps']:,g} steps, {reached} | {median['test']:.3f}"

    return f"| {case} | {values['target']} | {cell('old')} | {cell('new')} | {values['old / new']:.1f}x |"


def commit(folder: Path) -> str:
    return subprocess.check_output(["git", "-C", str(folder), "rev-parse", "--short", "HEAD"], text=True).strip()


def processor() -> str:
    names = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return names[0].partition(": ")[2] if names else platform.processor()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--old", type=Path, help="folder with the earlier commit; without it only the recipes run")
    parser.add_argument("--cases", nargs="+", choices=TARGETS, default=list(TARGETS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4])
    parser.add_argument("--out", type=Path, required=True, help="JSON file of the results")
    parser.add_argument("--measure", nargs=3, metavar=("CASE", "VERSION", "SEED"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        case, version, seed = arguments.measure
        arguments.out.write_text(json.dumps(measure(case, version, int(seed))))
        return
    code = {"old": arguments.old, "new": ROOT} if arguments.old else {"new": ROOT}
    rows = json.loads(arguments.out.read_text())["runs"] if arguments.out.exists() else []
    about = {"command": "python benchmarks/time_to_accuracy.py", "processor": processor(), "threads": 1}
    about |= {"torch": torch.__version__, "python": platform.python_version()}
    for seed in arguments.seeds:
        for case in arguments.cases:
            for version, folder in code.items():
                if any((row["case"], row["version"], row["seed"]) == (case, version, seed) for row in rows):
                    continue
                with tempfile.NamedTemporaryFile("r") as answer:
                    call = [sys.executable, __file__, "--out", answer.name, "--measure", case, version, str(seed)]
                    environment = os.environ | {"PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"}
                    subprocess.run(call, check=True, env=environment, stderr=subprocess.DEVNULL)
                    rows.append(json.load(answer) | {"commit": commit(folder)})
                print(rows[-1], flush=True)
                content = about | {"medians": table(rows), "runs": rows}
                arguments.out.write_text(json.dumps(content, indent=1) + "\n")
    for case, values in table(rows).items():
        print(line(case, values) if arguments.old else values)


if __name__ == "__main__":
    main()
