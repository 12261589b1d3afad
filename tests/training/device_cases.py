"""Short trainings that two devices must compute like one. As a script it is one of two processes that run them all."""

import dataclasses
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import torch
from training_cases import tiny

from benchmarks.devices import LOOPS, count, run_of
from looped.config import OWN_LOOPS, RunConfig, ScheduleConfig
from looped.models.graphs import share_graphs
from looped.models.transformer import LoopedTransformer
from looped.models.weights import whole
from looped.runs import evaluate_run
from looped.tasks import TASKS
from looped.tasks.edit_distance_chain import EditDistanceChainConfig
from looped.tasks.n_rasp_l import NRaspLConfig
from looped.tasks.sudoku import SudokuConfig
from looped.training import NonFiniteError, train
from looped.training.errors import OtherError
from looped.training.fabric import OneDevice, make_fabric, reduced
from looped.training.optim import WeightAverage, make_optimizers
from looped.training.processes import together
from looped.training.schedule import LoopSchedule, loops_of_step
from looped.training.step import ModelWithLoss, train_step

STEPS = 20


def case(model: Any = None, optim: Any = None, schedule: Any = None, task: Any = None, **config: Any) -> RunConfig:
    run = tiny(
        model={"positions": "rotary", **(model or {})},
        optim={"warmup_steps": 0, "learning_rate": 3e-3, **(optim or {})},
        schedule=ScheduleConfig(**(schedule or {})),
        batch_size=8,
        **config,
    )
    if task is None:
        return run
    sizes = dataclasses.asdict(TASKS[task.name](task).spec)
    return dataclasses.replace(run, task=task, model=dataclasses.replace(run.model, **sizes))


INJECTED: Any = {"input_injection": "add", "prelude_layers": 1, "loop_norm": True}

CASES: dict[str, RunConfig] = {
    "plain": case(),
    "modulated, averaged": case(
        model={"modulation": "scale_gate", "positions": "learned"}, optim={"ema_decay": 0.9, "clip_norm": 0.1}
    ),
    "truncated": case(schedule={"num_grad_loops": 2}),
    "truncated, prelude and coda": case(
        model={"prelude_layers": 2, "coda_layers": 1, "positions": "learned"}, schedule={"num_grad_loops": 2},
        accumulation=2, recompute="loop",
    ),
    "random loops": case(
        schedule={"kind": "random", "min_loops": 1, "max_loops": 5, "num_grad_loops": 3}, recompute="nested"
    ),
    "recompute": case(recompute="loop", model={"prelude_layers": 1, "coda_layers": 1}),
    "low rank": case(
        model={"lora_rank": 2}, schedule={"kind": "random", "min_loops": 1, "max_loops": 3}, recompute="loop"
    ),
    "own attention": case(model={"core_tied": "feedforward"}, schedule={"num_grad_loops": 2}),
    "tied, factorised": case(
        model={"embedding_dim": 6, "tie_embeddings": True, "vocab_size": 40, "output_size": 40, "coda_layers": 1}
    ),
    "loss all": case(
        loss="all", model={"core_layers": 2, "coda_layers": 1, "layer_order": "reverse"},
        regularisers=(("cosine:1", 10.0),),
    ),
    "gate": case(loss="halting", model={"halting": "gate"}, accumulation=2),
    "act": case(loss="halting", model={"halting": "act", "causal": True}),
    "loss task": case(loss="task", task=NRaspLConfig(length=6), model={"num_loops": 8, "input_injection": "add"}),
    "loss steps": case(loss="steps", task=EditDistanceChainConfig(answer="rounds", length=4), model={"num_loops": 8}),
    "cache": case(model={"cache": "first", "causal": True, "coda_layers": 1}, schedule={"num_grad_loops": 2}),
    "implicit": case(gradient="implicit", model={**INJECTED, "num_loops": 8}),
    "phantom": case(gradient="phantom", gradient_terms=3, gradient_damping=0.5, model=INJECTED),
    "neumann": case(gradient="neumann", gradient_terms=3, model=INJECTED),
    "muon": case(model={"d_ff": 33, "modulation": "scale_gate"}, optim={"optimizer": "muon"}),
    "muon, injection": case(
        model={"input_injection": "concat", "prelude_layers": 1, "coda_layers": 1, "positions_every_loop": True,
               "positions": "learned"},
        schedule={"num_grad_loops": 2}, optim={"optimizer": "muon", "ema_decay": 0.9},
    ),
    "graph heads": case(
        task=SudokuConfig(box=2, pool=150, tokens="candidates"), loss="window", loss_window=2,
        model={"num_heads": 0, "d_head": 4, "graph_heads": ("row", "column", "box", "cell"), "positions": "none",
               "input_injection": "add"},
        schedule={"num_grad_loops": 2},
    ),
    "two states": case(model={"inner_loops": 2, "input_injection": "add", "loop_norm": True, "num_loops": 2}),
    "C++": case(model={"prelude_layers": 1, "coda_layers": 1}, compile=None),
    "torch.compile": case(model={"attention": "linear", "prelude_layers": 1, "coda_layers": 1}, compile=True),
}  # fmt: skip
"""Each on one device."""


def run_case(run: RunConfig, fabric: Any) -> dict[str, torch.Tensor]:
    task = TASKS[run.task.name](run.task)
    model = LoopedTransformer(run.model, seed=0).double()
    share_graphs(model, task.graphs)
    if run.train.compile is not False:
        model.compile_core() if run.train.compile else model.use_native()
    scored = fabric.setup_module(ModelWithLoss(model, run.train))
    optimizers = make_optimizers(model, run.optim)
    average = WeightAverage(model, run.optim.ema_decay) if run.optim.ema_decay else None
    schedule = LoopSchedule(run.schedule, run.model.num_loops, run.train.seed, 1)
    rows = []
    for step in range(STEPS):
        batch = task.batch("train", step, run.train.batch_size, seed=0, part=(fabric.global_rank, fabric.world_size))
        loops = loops_of_step(run.train, schedule.at(step), batch)
        if run.train.loss in OWN_LOOPS:
            longest = int(reduced(fabric, torch.tensor(loops[0]), "max"))
            loops = longest, longest
        values = train_step(fabric, scored, optimizers, batch, run, step, loops)
        rows.append(list(values.values()))
        if average:
            average.update()
    result = {"values": torch.tensor(rows, dtype=torch.float64)}
    result |= {name: whole(parameter.detach()) for name, parameter in model.named_parameters()}
    if average:
        result |= {f"average {name}": whole(tensor) for name, tensor in average.weights.items()}
    return result


def reference(run: RunConfig) -> RunConfig:
    """The same on one device. A gradient at a fixed point is found for each part of a batch, so these must be equal."""
    parts = 2 if run.train.gradient != "unroll" else 1
    return dataclasses.replace(run, train=dataclasses.replace(run.train, accumulation=parts * run.train.accumulation))


def on_two(run: RunConfig, strategy: Any) -> RunConfig:
    return dataclasses.replace(run, train=dataclasses.replace(run.train, devices=2, strategy=strategy))


def launched(run: RunConfig) -> Any:
    fabric = make_fabric(run)
    fabric.launch()
    return fabric


RUN = tiny(
    steps=12, save_every=6, eval_every=4, log_every=1, optim={"optimizer": "muon", "ema_decay": 0.9},
    schedule=ScheduleConfig(kind="random", min_loops=2, max_loops=4, num_grad_loops=2), accumulation=2,
    model={"prelude_layers": 1, "coda_layers": 1, "tie_embeddings": True, "vocab_size": 40, "output_size": 40},
)  # fmt: skip
GENERATING = dataclasses.replace(
    case(
        task=EditDistanceChainConfig(length=4), steps=4, eval_every=2, log_every=1, eval_examples=20,
        model={"causal": True, "prelude_layers": 1, "coda_layers": 1},
    ), recipe="generating",
)  # fmt: skip
DIVERGING = tiny(optim={"learning_rate": 1e30, "warmup_steps": 1, "clip_norm": None}, model={"prelude_layers": 1})
CONTINUED = [
    ("one", "ddp"), ("one", "fsdp"), ("ddp", "fsdp"), ("fsdp", "ddp"), ("ddp", "ddp"), ("fsdp", "fsdp"),
]  # fmt: skip
"""The strategies before and after the step at which a run is cut."""


def cut(whole_run: Path, folder: Path) -> None:
    """A copy of a run folder, as if the training had ended after the first checkpoint."""
    shutil.copytree(whole_run, folder)
    (folder / "summary.json").unlink()
    shutil.rmtree(folder / "checkpoints/step_000012")


def train_runs(out: Path, rank: int) -> None:
    for strategy in ("ddp", "fsdp"):
        train(on_two(RUN, strategy), out / strategy)
        train(on_two(GENERATING, strategy), out / f"generating {strategy}")
        try:
            train(on_two(DIVERGING, strategy), out / f"diverging {strategy}")
        except (NonFiniteError, OtherError):  # a command would end here
            torch.distributed.destroy_process_group()
    for before, after in CONTINUED:
        folder = out / f"{before} {after}"
        with together() as processes:
            assert processes is not None
            with processes.first():
                if rank == 0:
                    cut(out / before, folder)
        train(on_two(RUN, after), folder, resume=True)


EVALUATION: Any = {"loops": (1, 3, 4), "examples": 300, "exit_rule": "change:0.1", "split": "validation"}


def main(out: Path, rank: int) -> None:
    torch.set_num_threads(1)
    train_runs(out, rank)
    evaluate_run(out / "fsdp", **EVALUATION)
    with together() as processes:
        assert processes is not None
        processes.connect(torch.device("cpu"))
        compute(out, rank)


def compute(out: Path, rank: int) -> None:
    one = OneDevice(torch.device("cpu"), bf16=False)
    results = {f"{name} one": run_case(reference(CASES[name]), one) for name in list(CASES)[rank::2]}
    for strategy in ("ddp", "fsdp"):
        for name, run in CASES.items():
            run = on_two(run, strategy)
            results[f"{name} {strategy}"] = run_case(run, launched(run))
    torch.save(results, out / f"{rank}.pt")
    counts = [
        (strategy, setting, [count(run_of(strategy, loops, devices=2, **setting)) for loops in LOOPS])
        for strategy in ("ddp", "fsdp")
        for setting in ({}, {"window": 1}, {"recompute": "loop", "accumulation": 2})
    ]
    numbers = [(strategy, setting, [(c.calls, c.bytes) for c in found]) for strategy, setting, found in counts]
    (out / f"{rank}.json").write_text(json.dumps(numbers))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(os.environ["RANK"]))
