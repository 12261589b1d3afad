"""A tiny run, and ways to compare two of them. As a script it trains one in a process of its own."""

import dataclasses
import json
import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from looped import files
from looped.config import ModelConfig, OptimConfig, RunConfig, ScheduleConfig, TrainConfig
from looped.strict import from_dict
from looped.tasks import TASKS
from looped.tasks.edit_distance import EditDistanceConfig
from looped.training import train

TIMING = {"seconds", "examples_per_s", "tokens_per_s", "matmul_share", "data_wait", "peak_memory"}


def tiny(*, model: dict[str, Any] | None = None, optim: dict[str, Any] | None = None, schedule: Any = None, **config):
    """A run of a model of width 16 on strings of 4 letters; `config` are fields of TrainConfig."""
    task = EditDistanceConfig(length=4, max_letters=3)
    sizes = dataclasses.asdict(TASKS["edit_distance"](task).spec)
    of_model: dict[str, Any] = {"d_model": 16, "num_heads": 2, "num_loops": 3, **sizes, **(model or {})}
    of_optim: dict[str, Any] = {"warmup_steps": 2, **(optim or {})}
    of_train: dict[str, Any] = {
        "steps": 20, "batch_size": 16, "log_every": 5, "eval_every": 10, "eval_examples": 24,
        "device": "cpu", "precision": "fp32", "compile": False, "workers": 0, **config,
    }  # fmt: skip
    return RunConfig(
        model=ModelConfig(**of_model),
        task=task,
        optim=OptimConfig(**of_optim),
        schedule=schedule or ScheduleConfig(),
        train=TrainConfig(**of_train),
    )


# Everything that a resumed run has to restore: both optimisers, averages, random loop counts, sums of unfinished
# lines, workers.
RESUMABLE = tiny(
    steps=120, log_every=7, eval_every=40, save_every=20, accumulation=2, workers=1, precision="auto",
    optim={"optimizer": "muon", "ema_decay": 0.9},
    schedule=ScheduleConfig(kind="random", min_loops=1, max_loops=4, num_grad_loops=2),
)  # fmt: skip


def metrics(folder: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl without what depends on the clock."""
    lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [{key: value for key, value in line.items() if key not in TIMING} for line in lines]


def losses(folder: Path) -> list[float]:
    return [line["loss"] for line in metrics(folder) if line["kind"] == "train"]


def weights(folder: Path, step: int) -> dict[str, torch.Tensor]:
    return load_file(folder / f"checkpoints/step_{step:06d}/model.safetensors")


def assert_same_run(one: Path, other: Path, step: int) -> None:
    """Bit for bit: weights, optimiser, averages and metrics of two runs whose last step was `step`."""
    folders = [folder / f"checkpoints/step_{step:06d}" for folder in (one, other)]
    assert {path.name for path in folders[0].iterdir()} == {path.name for path in folders[1].iterdir()}
    for path in folders[0].glob("*.safetensors"):
        tensors = load_file(path)
        assert tensors
        torch.testing.assert_close(tensors, load_file(folders[1] / path.name), rtol=0, atol=0)
    progress = [json.loads((folder / "progress.json").read_text()) for folder in folders]
    for name in ("step", "best", "sums", "without_moments"):  # the others depend on the clock
        assert progress[0][name] == progress[1][name]
    assert metrics(one) == metrics(other)
    for name in ("best.json", "config.json"):
        assert (one / name).read_text() == (other / name).read_text()


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """Inside, the system refuses to make any file larger than `size` bytes."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def hang_in_save(at_step: int) -> None:
    """From now on, writing the checkpoint of that step stops half way and says so in a file."""

    def sync(path: Path) -> None:
        if path.parent.name.startswith(f".step_{at_step:06d}."):
            (path.parents[2] / "hangs").touch()
            time.sleep(600)

    files.sync = sync


if __name__ == "__main__":
    torch.set_num_threads(1)
    run = from_dict(RunConfig, json.loads(sys.argv[2]))
    if len(sys.argv) > 3:
        hang_in_save(int(sys.argv[3]))
    train(run, Path(sys.argv[1]))
