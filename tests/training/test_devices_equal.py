"""Two devices compute what one does, with either strategy: weights in float64, 20 steps, two processes in all."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import device_cases
import pytest
import torch
from device_cases import CASES, CONTINUED, DIVERGING, EVALUATION, GENERATING, RUN, cut
from safetensors import safe_open
from training_cases import assert_same_run, metrics, tiny

from looped.costs.memory import weights_memory
from looped.models.transformer import LoopedTransformer
from looped.run_folder import read_config
from looped.runs import evaluate_run
from looped.training import NonFiniteError, checkpoint, train
from looped.training.devices import find_compiler


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The runs of two processes and of one."""
    folder = tmp_path_factory.mktemp("devices")
    train(RUN, folder / "one")
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": "2"}
    shared["PYTHONPATH"] = str(Path(__file__).parents[2])  # has benchmarks
    command = [sys.executable, device_cases.__file__, str(folder)]
    processes = [
        subprocess.Popen(command, env=os.environ | shared | {"RANK": rank, "LOCAL_RANK": rank}) for rank in "01"
    ]
    assert [process.wait(600) for process in processes] == [0, 0]
    return folder


@pytest.fixture(scope="module")
def results(folder):
    """The results of both processes, by case and strategy."""
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
@pytest.mark.parametrize("name", CASES)
def test_two_devices_compute_what_one_does(results, name, strategy):
    if CASES[name].train.compile is not False and find_compiler() is None:
        pytest.skip("no compiler here")
    (one,) = [computed[f"{name} one"] for computed in results if f"{name} one" in computed]
    two, other = (computed[f"{name} {strategy}"] for computed in results)
    assert one["values"].shape[0] == 20
    assert len({*one["values"][:, 0].tolist()}) == 20
    assert two.keys() == one.keys() == other.keys()
    for key, tensor in one.items():
        atol = 1e-6 * float(tensor.abs().max())
        torch.testing.assert_close(two[key], tensor, rtol=1e-6, atol=0 if key == "values" else atol, msg=key)
        torch.testing.assert_close(other[key], two[key], rtol=0, atol=0)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"batch_size": 6, "devices": 2, "accumulation": 2}, "batch_size=6: expected a multiple of 4 "),
        ({"strategy": "fsdp"}, "strategy='fsdp': has no effect when devices=1"),
        ({"segments": 3, "devices": 2}, "train.devices=2: expected 1 with train.segments=3"),
        (
            {"loss": "halting", "devices": 2, "strategy": "fsdp", "model": {"halting": "act", "lora_rank": 2}},
            "train.strategy='fsdp': expected 'ddp' with model.halting='act' and own weights in each loop",
        ),
    ],
)
def test_what_cannot_work_is_refused(settings, says):
    with pytest.raises(ValueError, match=re.escape(says)):
        tiny(**settings)


def test_sharded_weights_need_less_memory():
    model = {"d_model": 64, "prelude_layers": 3, "coda_layers": 3, "num_loops": 8}
    one, ddp, fsdp = (
        weights_memory(tiny(model=model, devices=devices, strategy=strategy))
        for devices, strategy in ((1, "ddp"), (8, "ddp"), (8, "fsdp"))
    )
    layer = LoopedTransformer(tiny(model=model).model).core[0]
    core = 4 * sum(p.numel() for p in layer.parameters() if p.ndim == 2)
    assert ddp == one > 4 * 7 * core
    assert 2 * core + ddp / 8 < fsdp < 2 * core + ddp / 4


def test_communication_does_not_grow_with_the_loops(folder):
    """One prelude and one coda layer are gathered forward and backward for each part; all else is gathered once."""
    for strategy, setting, found in json.loads((folder / "0.json").read_text()):
        first = found[0]
        for calls, sizes in found[1:]:
            if "window" not in setting:
                assert [calls, sizes] == first
            # The window of the first case is all loops. Later the prelude and the embedding have no gradient.
            assert calls.get("all_gather", 0) == first[0].get("all_gather", 0)
            assert sizes.get("reduce_scatter", 0) <= first[1].get("reduce_scatter", 0)
        gathers = 1 + 4 * setting.get("accumulation", 1) if strategy == "fsdp" else 0
        assert first[0].get("all_gather", 0) == gathers
        assert first[0].get("reduce_scatter", 0) == (3 if strategy == "fsdp" else 0)


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_checkpoints_are_the_same_files(folder, strategy):
    for name in ("model", "average", "optimizer"):
        files = [folder / run / f"checkpoints/step_000012/{name}.safetensors" for run in ("one", strategy)]
        assert header(files[0]) == header(files[1])  # names, types, shapes, places, shared weights
        with safe_open(files[0], "pt") as one, safe_open(files[1], "pt") as two:
            for key in one.keys():  # noqa: SIM118
                scale = float(one.get_tensor(key).abs().max())
                torch.testing.assert_close(two.get_tensor(key), one.get_tensor(key), rtol=0, atol=1e-2 * scale)
    assert metrics_agree(folder / "one", folder / strategy)


def header(file: Path) -> dict[str, Any]:
    content = file.read_bytes()
    return json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])


def metrics_agree(one: Path, other: Path) -> bool:
    """Whether all numbers in metrics.jsonl are equal but for rounding."""
    pairs = list(zip(metrics(one), metrics(other), strict=True))
    assert {row["kind"] for row, _ in pairs} == {"train", "validation"}
    for row, there in pairs:
        assert row.keys() == there.keys()
        for name, value in row.items():
            assert there[name] == (value if isinstance(value, str) else pytest.approx(value, rel=1e-4))
    return True


@pytest.mark.parametrize(("before", "after"), [*CONTINUED, ("ddp", "one"), ("fsdp", "one")])
def test_a_run_continues_on_other_devices(folder, before, after):
    continued = folder / f"{before} {after}"
    if after == "one":
        cut(folder / before, continued)
        train(RUN, continued, resume=True)
    assert metrics_agree(folder / before, continued)
    assert read_config(continued) == read_config(folder / after)
    if before == after:
        assert_same_run(folder / before, continued, 12)


def test_two_devices_share_an_evaluation(folder, tmp_path):
    """Three parts of up to 128 examples; each has the same size on one device, so all bits are equal."""
    shared = (folder / "fsdp/eval.jsonl").read_bytes()
    alone = shutil.copytree(folder / "fsdp", tmp_path / "alone")
    (alone / "eval.jsonl").unlink()
    assert len(evaluate_run(alone, **EVALUATION)) == shared.count(b"\n") == 4
    assert (alone / "eval.jsonl").read_bytes() == shared
    assert (alone / "answers_by_loop.json").read_bytes() == (folder / "fsdp/answers_by_loop.json").read_bytes()


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_answers_of_different_lengths_are_validated(folder, strategy):
    """Each device writes its own texts, with as many forward passes as these need."""
    one = folder / f"generating one {strategy}"
    train(GENERATING, one)
    assert metrics_agree(one, folder / f"generating {strategy}")


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_all_devices_stop_at_a_step_that_is_not_finite(folder, strategy, tmp_path):
    with pytest.raises(NonFiniteError, match=r"^step 3: "):
        train(DIVERGING, tmp_path / "one")
    assert checkpoint.saved_steps(tmp_path / "one") == checkpoint.saved_steps(folder / f"diverging {strategy}") == [2]
