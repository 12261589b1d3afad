"""A sweep whose processes are killed again and again, and whose result equals that of undisturbed runs bit for bit.

`python -m benchmarks.killed_sweep --out results/sweep/killed.json` runs `looped compare` with 100 seeds of a tiny
model. SIGKILL and SIGTERM reach the command and its child processes 20 times, at random moments. The command is
repeated until it ends well. Every file of weights and every score is then compared with a training in this process.
"""

import argparse
import collections
import contextlib
import hashlib
import io
import json
import os
import random
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from looped.commands.arguments import override_words, training_run
from looped.files import write_atomic
from looped.launch.status import find_runs, run_state
from looped.locks import LOCK
from looped.run_folder import Failure
from looped.runs import evaluate_run
from looped.training import train
from looped.training.logger import environment

RECIPE = "edit-distance-small"
SETTINGS = [
    "task.length=4", "model.d-model=16", "model.num-heads=2", "model.num-loops=2", "train.batch-size=8",
    "train.eval-examples=8", "train.compile=False", "train.workers=0", "train.precision=fp32", "train.device=cpu",
    "train.log-every=20", "train.eval-every=60", "train.save-every=20", "optim.warmup-steps=0",
]  # fmt: skip
SPREAD = 4.0
"""A kill comes at most so many seconds after the number of finished runs for which it waits."""


class KilledSweep:
    """`looped compare` of `runs` seeds in `folder`, repeated after each kill."""

    def __init__(self, folder: Path, runs: int, steps: int, jobs: int) -> None:
        self.folder = folder
        self.settings = [*SETTINGS, f"train.steps={steps}"]
        self.seeds = range(runs)
        words = ["compare", RECIPE, "--out", str(folder), "--jobs", str(jobs), "--seeds", *map(str, self.seeds)]
        self.words = [sys.executable, "-m", "looped.cli", *words, "--override", *self.settings]
        self.starts = 0
        self.process = self.start()

    def start(self) -> subprocess.Popen[bytes]:
        self.starts += 1
        quiet = subprocess.DEVNULL
        return subprocess.Popen(self.words, stdin=quiet, stdout=quiet, stderr=quiet, start_new_session=True)

    def disturb(self, kills: int, rng: random.Random) -> list[dict[str, Any]]:
        """Kill the command or one of its children, `kills` times; tells whom, how, and in which work."""
        done = []
        for at in sorted(rng.randrange(len(self.seeds)) for _ in range(kills)):
            whom, how = rng.choice(["command", "child"]), rng.choice([signal.SIGKILL, signal.SIGTERM])
            while len(list(self.folder.glob("*/eval.jsonl"))) < at:
                self.keep_running()
            time.sleep(rng.uniform(0, SPREAD))
            self.keep_running()
            found = children(self.process.pid) if whom == "child" else []
            victim = rng.choice(found) if found else self.process.pid
            whom, work = ("child", working_on(victim)) if found else ("command", "sweep")
            with contextlib.suppress(ProcessLookupError):  # it ended in this instant
                os.kill(victim, how)
                done.append({"whom": whom, "signal": how.name, "finished_runs": at, "work": work})
            if whom == "command":
                self.process.wait()  # its children may live on for a moment, while the next one starts
        return done

    def keep_running(self) -> None:
        """Wait an instant, and start the command again if it has ended."""
        time.sleep(0.05)
        if self.process.poll() is not None:
            self.process = self.start()

    def finish(self) -> None:
        """Wait for the end, and repeat the command if a run was killed twice.

        Raises:
            RuntimeError: it does not end well in three times.
        """
        for _ in range(3):
            if self.process.wait() == 0:
                return
            self.process = self.start()
        raise RuntimeError(f"exit code {self.process.wait()}: {shlex.join(self.words)}")

    def differences(self, undisturbed: Path) -> list[str]:
        """The differences from undisturbed runs, and the files that the kills have left."""
        wrong = [f"left over: {path}" for path in self.folder.rglob("*") if left_over(path)]
        states = [run_state(*run) for run in find_runs(self.folder)]
        wrong += [f"{state.name}: {state.state}" for state in states if state.state != "done"]
        for seed in self.seeds:
            run, _, _ = training_run(RECIPE, [*override_words(self.settings), "--train.seed", str(seed)])
            expected, name = undisturbed / str(seed), f"{RECIPE}-seed{seed}"
            with contextlib.redirect_stderr(io.StringIO()):
                train(run, expected)
                evaluate_run(expected)
            ours, theirs = results(self.folder / name), results(expected)
            different = [file for file in ours.keys() | theirs.keys() if ours.get(file) != theirs.get(file)]
            wrong += [f"{name}/{file}: differs" for file in different]
        return wrong


def left_over(path: Path) -> bool:
    return path.name in (LOCK, Failure.file) or path.suffix == ".tmp"


def children(process: int) -> list[int]:
    """The child processes of all threads of a process."""
    found: list[int] = []
    for path in Path(f"/proc/{process}/task").glob("*/children"):
        try:
            found += map(int, path.read_text().split())
        except OSError:  # the thread has ended
            continue
    return found


def working_on(process: int) -> str:
    """`train` or `evaluate`, from the command line of a child."""
    try:
        words = Path(f"/proc/{process}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return "ended"
    return next((word.decode() for word in words if word in (b"train", b"evaluate")), "starting")


def results(folder: Path) -> dict[str, Any]:
    """The files of weights, as hashes, and the scores. They depend on nothing but the settings."""
    hashes = {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*.safetensors")
    }
    return hashes | {name: (folder / name).read_text() for name in ("eval.jsonl", "answers_by_loop.json", "best.json")}


def killed_sweep(folder: Path, *, runs: int, kills: int, steps: int, jobs: int, seed: int) -> dict[str, Any]:
    """Run and kill a sweep; returns its figures, and what is wrong with its result."""
    began = time.perf_counter()
    sweep = KilledSweep(folder / "sweep", runs, steps, jobs)
    try:
        disturbed = sweep.disturb(kills, random.Random(seed))
        sweep.finish()
    finally:
        sweep.process.terminate()
    seconds = time.perf_counter() - began
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // jobs))  # as in the sweep: bits depend on it
    wrong = sweep.differences(folder / "undisturbed")
    counts = collections.Counter(f"{kill['whom']} {kill['signal']}" for kill in disturbed)
    work = collections.Counter(kill["work"] for kill in disturbed)
    return {
        "runs": runs, "steps": steps, "jobs": jobs, "seed": seed, "kills": len(disturbed), "by_signal": dict(counts),
        "by_work": dict(work), "starts_of_the_command": sweep.starts, "seconds": round(seconds), "wrong": wrong,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="file for the figures")
    for name, default in (("runs", 100), ("kills", 20), ("steps", 200), ("jobs", 2), ("seed", 0)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = vars(parser.parse_args())
    out = options.pop("out")
    with tempfile.TemporaryDirectory() as folder:
        found = killed_sweep(Path(folder), **options) | environment("32-true", torch.device("cpu"))
    out.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(out, json.dumps(found, indent=1) + "\n")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
