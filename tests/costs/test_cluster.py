"""The formulas of a training on many GPUs, each against a measured small case."""

import json
import os
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from model_cases import TINY
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter
from torch.utils.flop_counter import FlopCounterMode

import looped.nn.attention
from looped.config import ModelConfig, OptimConfig, RunConfig, ScheduleConfig, TrainConfig
from looped.costs.activations import activations, layer_activations
from looped.costs.cluster import (
    TRAFFIC,
    communication,
    exposed,
    groups,
    memory,
    setting,
    step_work,
    update_bytes,
)
from looped.costs.count import embedding_parameters, parameters, training_flops
from looped.costs.gpus import GPUS
from looped.costs.scale import counts
from looped.models import LoopedTransformer
from looped.strict import to_dict
from looped.tasks.base import Batch
from looped.tasks.edit_distance import EditDistanceConfig
from looped.training.planning import simulated_peak
from looped.training.step import ModelWithLoss

pytestmark = pytest.mark.usefixtures("one_thread")
H100 = GPUS["h100"]
SCRIPT = Path(__file__).with_name("two_devices.py")


def run_of(model: ModelConfig, *, window: int | None = None, optim: Any = None, **train: Any) -> RunConfig:
    options: dict[str, Any] = {"batch_size": 16, "device": "cpu", "precision": "bf16", "compile": False, "steps": 10}
    return RunConfig(
        model=model,
        task=EditDistanceConfig(),
        schedule=ScheduleConfig(num_grad_loops=window),
        optim=OptimConfig(warmup_steps=0, **(optim or {})),
        train=TrainConfig(**{**options, **train}),
    )


def batch_of(rows: int, seq: int, symbols: int) -> Batch:
    inputs = torch.randint(symbols, (rows, seq), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(inputs, dtype=torch.bool)
    return Batch(inputs, inputs, mask, mask)


# FLOPs


@pytest.mark.parametrize("recompute", ["none", "loop", "nested"])
@pytest.mark.parametrize("window", [None, 3])
@pytest.mark.parametrize("loss", ["last", "all"])
def test_the_work_of_a_step_has_the_operations_of_a_real_one(recompute, window, loss):
    if window and loss == "all":
        return
    config = replace(TINY, num_loops=9, prelude_layers=2, coda_layers=1, core_layers=2, input_injection="add")
    run = run_of(config, window=window, loss=loss, recompute=recompute)
    scored = ModelWithLoss(LoopedTransformer(config), run.train)
    batch, seq = batch_of(2, 6, 7), 6
    with FlopCounterMode(display=False) as counter:
        total, _ = scored(batch, False, 9, window or 9)
        total.backward()
    work = step_work(run, 2, seq)
    counted = counter.get_total_flops()
    # A repeated loop stops before its last product, because nothing needs that again. The formula has all products.
    assert counted <= work.products + work.attention < 1.04 * counted
    if recompute == "none":
        needed = 2 * training_flops(config, seq, 9, window or 9, 9 if loss == "all" else 1)
        assert work.products + work.attention == needed == counted
    assert 0 < work.attention < work.products


# Memory

WIDE: dict[str, Any] = {
    "vocab_size": 2000, "output_size": 2000, "max_seq_len": 64, "d_model": 128, "num_heads": 4, "num_loops": 4,
    "causal": True,
}  # fmt: skip
KEPT = {
    "plain": {},
    "swiglu": {"activation": "swiglu", "num_kv_heads": 2, "positions": "rotary"},
    "relu, LayerNorm, bias": {"activation": "relu", "norm": "layer", "bias": True},
    "scales and gates": {"modulation": "scale_gate"},
    "shifts": {"modulation": "adaln_zero", "norm_gain": False},
    "rezero": {"modulation": "rezero", "norm": "none"},
    "norms of queries and keys": {"qk_norm": "head", "positions": "rotary"},
    "two norms": {"norm_place": "before_branch", "gated_attention": True},
    "more layers": {"prelude_layers": 2, "coda_layers": 1, "core_layers": 2},
    "injection": {"input_injection": "concat", "tie_embeddings": True},
    "linear": {"attention": "linear"},
    "few symbols": {"vocab_size": 20, "output_size": 20},
    "many symbols": {"vocab_size": 20_000, "output_size": 20_000},
    "all loops": {"loss": "all"},
    "window": {"num_loops": 8, "window": 3},
    "parts": {"accumulation": 4},
    "loop": {"recompute": "loop"},
    "loop, few symbols": {"num_loops": 9, "recompute": "loop", "vocab_size": 20, "output_size": 20},
    "nested": {"num_loops": 9, "recompute": "nested", "vocab_size": 20, "output_size": 20},
}


@pytest.mark.filterwarnings("ignore:Mismatch dtype")  # a norm of queries in bf16 is computed in 32 bits
@pytest.mark.parametrize("name", KEPT)
def test_memory_is_that_of_a_simulated_step(name, monkeypatch):
    """Within 10%, with the fused attention of a GPU."""
    monkeypatch.setattr(looped.nn.attention, "_fused_is_faster", lambda q, mask: True)
    options: dict[str, Any] = dict(KEPT[name])
    train = {key: options.pop(key) for key in ("loss", "window", "accumulation", "recompute") if key in options}
    run = run_of(ModelConfig(**{**WIDE, **options}), **train)
    batch, loops = batch_of(16, 64, 20), run.most_loops
    peak = simulated_peak(run, batch, (loops, run.schedule.num_grad_loops or loops))
    found = memory(run, "ddp", 1, 64)
    assert found.activations == 16 // run.train.accumulation * activations(run, 64, run.train.recompute)
    assert found.total == pytest.approx(peak, rel=0.1)
    assert found.activations > 0.2 * peak, "else only the weights would be compared"


def test_averages_and_muon_are_counted():
    config = replace(TINY, prelude_layers=1)
    plain = memory(run_of(config), "ddp", 1, 6)
    assert plain.moments == 2 * plain.weights == 8 * parameters(config)
    assert memory(run_of(config, optim={"ema_decay": 0.9}), "ddp", 1, 6).averages == plain.weights
    muon = memory(run_of(config, optim={"optimizer": "muon"}), "ddp", 1, 6).moments
    assert muon == 8 * embedding_parameters(config) + 4 * (parameters(config) - embedding_parameters(config))


# Two processes

SIZES: dict[str, Any] = {
    "vocab_size": 100, "output_size": 100, "max_seq_len": 16, "d_model": 32, "num_heads": 2, "causal": True,
}  # fmt: skip
TWO = {
    "ddp": ({"num_loops": 3, "prelude_layers": 1, "core_layers": 2, "coda_layers": 1}, {}),
    "ddp, parts": ({"num_loops": 2, "prelude_layers": 2}, {"accumulation": 2}),
    "fsdp, core alone": ({"num_loops": 1}, {}),
    "fsdp, more loops": ({"num_loops": 4}, {}),
    "fsdp, more layers": ({"num_loops": 3, "prelude_layers": 2, "core_layers": 2, "coda_layers": 1}, {}),
    "fsdp, parts": ({"num_loops": 3, "prelude_layers": 1, "core_layers": 2}, {"accumulation": 4}),
    "fsdp, window": ({"num_loops": 4, "input_injection": "add", "prelude_layers": 1}, {"window": 2}),
    "fsdp, loop": ({"num_loops": 4, "prelude_layers": 1}, {"recompute": "loop"}),
    "fsdp, coda in each loop": ({"num_loops": 3, "coda_layers": 1, "tie_embeddings": True}, {"loss": "all"}),
}


def of_two(name: str) -> RunConfig:
    model, train = TWO[name]
    strategy = name.partition(",")[0]
    return run_of(ModelConfig(**SIZES, **model), **train, devices=2, strategy=strategy, batch_size=8)


@pytest.fixture(scope="module")
def two_processes() -> dict[str, dict[str, Any]]:
    """The bytes that each of two processes holds and sends in a step."""
    runs = json.dumps([to_dict(of_two(name)) for name in TWO])
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1]), "WORLD_SIZE": "2"}
    processes = [
        subprocess.Popen(
            [sys.executable, SCRIPT, runs], env=os.environ | place | {"RANK": rank, "LOCAL_RANK": rank},
            stdout=subprocess.PIPE, text=True,
        )
        for rank in "01"
    ]  # fmt: skip
    first, _ = (process.communicate(timeout=300)[0] for process in processes)
    assert [process.returncode for process in processes] == [0, 0]
    return dict(zip(TWO, json.loads(first.splitlines()[-1]), strict=True))


@pytest.mark.parametrize("name", TWO)
def test_two_processes_hold_and_send_what_the_formulas_say(name, two_processes):
    run, measured = of_two(name), two_processes[name]
    strategy, everything = run.train.strategy, 4 * parameters(run.model)
    found = memory(run, strategy, 2, 16)
    assert measured["weights"] == measured["gradients"] == found.weights
    assert found.weights == (everything if strategy == "ddp" else everything // 2)
    assert measured["moments"] == found.moments
    talk = communication(run, strategy, H100, 2, 16)
    assert half(measured["collectives"]) == talk.sent
    if run.train.loss == "last":
        assert half(measured["by_loop"]) == talk.sent_by_loop
    assert (talk.sent_by_loop > talk.sent) == (strategy == "fsdp")


def half(collectives: dict[str, int]) -> float:
    """The bytes that each of two processes sends: half of a gathered or reduced tensor, and both in an all-reduce."""
    sent = {"allreduce_": 1.0, "_allgather_base_": 0.5, "_reduce_scatter_base_": 0.5}
    return sum(share * collectives.get(name, 0) for name, share in sent.items())


def test_the_gradient_of_a_core_is_complete_in_the_backward_pass_of_the_first_loop(two_processes):
    """DDP with a bucket for each weight: before that, only output and coda are reduced."""
    run, order = of_two("ddp"), two_processes["ddp"]["order"]
    upper, lower = ([n for n, event in enumerate(order) if event == f"core {layer}"] for layer in (1, 0))
    assert len(upper) == len(lower) == run.model.num_loops == 3

    def reduced(begin: int, end: int | None) -> int:
        return sum(event for event in order[begin:end] if isinstance(event, int))

    found = groups(run)
    assert reduced(0, lower[-2]) == 4 * (found.output + found.layer + run.model.d_model), "with the final norm"
    assert reduced(lower[-2], upper[-1]) == reduced(upper[-1], lower[-1]) == 4 * found.layer
    assert reduced(lower[-1], None) == 4 * (found.layer + found.table)


# Time


def test_exposed_communication():
    assert exposed([], 3.0) == 0
    assert exposed([(1.0, 0.5)], 3.0) == 0
    assert exposed([(1.0, 5.0)], 3.0) == 3.0
    assert exposed([(1.0, 1.0), (1.5, 1.0), (3.0, 0.25)], 3.0) == 0.25  # each waits for the one before
    assert exposed([(0.0, 2.0), (1.0, 3.0)], 3.0) == 2.0


class Traffic(TorchDispatchMode):
    """Counts the bytes that operations other than matrix products and attention read and write."""

    bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output, name = func(*args, **(kwargs or {})), func._schema.name.removeprefix("aten::")
        if not (
            func.is_view or name in ("mm", "bmm", "addmm", "_unsafe_view", "detach", "empty_like") or "dot" in name
        ):
            tensors = [x for x in (*tree_iter((args, kwargs)), *tree_iter(output)) if isinstance(x, torch.Tensor)]
            self.bytes += sum(x.nbytes for x in tensors)
        return output


@pytest.mark.parametrize("options", [{"norm": "layer"}, {"activation": "swiglu"}, {"modulation": "scale_gate"}])
def test_traffic_is_at_most_that_of_separate_operations(options, monkeypatch):
    """Separate operations move 1 to 2.5 times the bytes. Compiled ones are in results/scale."""
    monkeypatch.setattr(looped.nn.attention, "_fused_is_faster", lambda q, mask: True)

    def traffic(loops: int) -> int:
        config = ModelConfig(**{**WIDE, "num_loops": loops, **options})
        scored = ModelWithLoss(LoopedTransformer(config), TrainConfig())
        with Traffic() as counted, torch.autocast("cpu", torch.bfloat16):
            scored(batch_of(8, 64, 20), False, loops, loops)[0].backward()
        return counted.bytes

    predicted = sum(TRAFFIC) * 8 * 64 * layer_activations(ModelConfig(**{**WIDE, **options}))
    assert predicted < traffic(3) - traffic(2) < 2.5 * predicted


def test_a_step_is_as_long_as_its_parts():
    run = run_of(ModelConfig(**WIDE), batch_size=128)
    one, many = setting(run, "ddp", H100, 1), setting(run, "ddp", H100, 16)
    assert one.communication.seconds == one.communication.exposed == one.seconds["communication"] == 0
    assert one.step == pytest.approx(sum(one.seconds.values()))
    assert one.tokens == 128 * 64
    assert one.tokens_per_second == pytest.approx(one.tokens / one.step)
    assert many.seconds["products"] == pytest.approx(one.seconds["products"] / 16)
    assert many.seconds["update"] == one.seconds["update"] > setting(run, "fsdp", H100, 16).seconds["update"]
    assert one.mfu < many.useful / many.seconds["products"] / H100.flops == pytest.approx(0.8, rel=0.2)
    assert update_bytes(run, 1) == parameters(run.model) * (28 + 12 + 6)
    between, inside = (communication(run, "ddp", H100, n, 64) for n in (16, 8))
    assert between.seconds / between.sent == pytest.approx(inside.seconds / inside.sent * 450 / 400)


def test_the_reduction_of_a_core_overlaps_little():
    """The all-reduce of a core waits for all loops; that of as many separate layers does not."""
    looped = run_of(ModelConfig(**{**WIDE, "d_model": 2048, "num_heads": 16, "num_loops": 12, "max_seq_len": 1024}))
    layers = run_of(replace(looped.model, num_loops=1, coda_layers=11))
    one, other = (communication(run, "ddp", H100, 8, 1024) for run in (looped, layers))
    assert one.sent < other.sent
    assert one.overlapped < 0.1 < other.overlapped
    prelude = run_of(replace(looped.model, prelude_layers=4))
    assert communication(prelude, "ddp", H100, 8, 1024).overlapped > one.overlapped


# Choices

LARGE = {
    **WIDE, "d_model": 2048, "num_heads": 16, "vocab_size": 50_257, "output_size": 50_257, "max_seq_len": 2048,
    "core_layers": 12, "num_loops": 2,
}  # fmt: skip


def test_the_fastest_setting_that_fits_is_recommended():
    run = run_of(ModelConfig(**LARGE), batch_size=64)
    (few,) = counts(run, H100, [8])
    assert few.recommended is min(few.settings, key=lambda setting: setting.step)
    assert {setting.strategy for setting in few.settings} == {"ddp", "fsdp"}
    assert all(1.15 * setting.memory.total <= H100.memory for setting in few.settings)
    assert few.settings[0].recompute == "none"
    (alone,) = counts(run, H100, [1])
    assert {setting.strategy for setting in alone.settings} == {"ddp"}
    small = replace(H100, memory=20 * 10**9)
    (sharded,) = counts(run, small, [64])
    assert {setting.strategy for setting in sharded.settings} == {"fsdp"}, "DDP needs more for the weights alone"


def test_what_does_not_work_says_why():
    run = run_of(ModelConfig(**LARGE), batch_size=48)
    uneven, nothing = counts(run, replace(H100, memory=10**9), [64, 8])
    assert uneven.settings == nothing.settings == []
    assert uneven.reason == "the batch of 48 does not divide; 64 GPUs need at least --train.batch-size 64"
    assert nothing.reason.startswith("does not fit")
    assert uneven.recommended is None
    assert uneven.doubled == {}
    (found,) = counts(run, H100, [48])
    assert found.doubled["GPUs"] == "the batch of 48 is too small"
    assert found.doubled["loops"].startswith("MFU ")
