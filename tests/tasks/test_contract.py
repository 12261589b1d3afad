"""The promises of every task (see looped/tasks/base.py)."""

import dataclasses
import json
import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch
from own_tasks import Collapse, Successor, Sums

from looped.tasks import TASKS, Batch, registry
from looped.tasks.arithmetic import ArithmeticConfig
from looped.tasks.base import SPLITS
from looped.tasks.chomsky import ChomskyConfig
from looped.tasks.countdown import CountdownConfig
from looped.tasks.edit_distance import EditDistanceConfig
from looped.tasks.edit_distance_chain import EditDistanceChainConfig
from looped.tasks.equations import EquationsConfig
from looped.tasks.i_gsm import IGSMConfig
from looped.tasks.in_context import InContextConfig
from looped.tasks.increasing_subsequence import IncreasingSubsequenceConfig
from looped.tasks.lcs import LCSConfig
from looped.tasks.maze import MazeConfig
from looped.tasks.n_ary_addition import NAryAdditionConfig
from looped.tasks.n_rasp_l import NRaspLConfig
from looped.tasks.n_rasp_l.config import PROBLEMS
from looped.tasks.p_hop import PHopConfig
from looped.tasks.sudoku import SudokuConfig
from looped.tasks.tables import TablesConfig
from looped.tasks.text import TextConfig

CONFIGS = {
    "edit_distance": EditDistanceConfig(length=8, eval_lengths=(12,)),
    "edit_distance, published": EditDistanceConfig(length=8, version="published"),
    "lcs": LCSConfig(length=8),
    "lcs, published": LCSConfig(length=8, version="published"),
    "sudoku": SudokuConfig(box=2, pool=300),
    "countdown": CountdownConfig(),
    "countdown, 3 numbers": CountdownConfig(numbers=3),
    "in_context": InContextConfig(dim=4, points=7),
    "in_context, curriculum": InContextConfig(
        function="sparse_linear", dim=6, points=9, start_dim=2, dim_every=1, start_points=3, points_every=2
    ),
    "tables": TablesConfig(points=9),
    "maze": MazeConfig(side=5),
    "p_hop": PHopConfig(hops=2, length=24),
    "p_hop, dense": PHopConfig(hops=2, length=24, loss="dense"),
    **{f"n_rasp_l, {problem}": NRaspLConfig(problem=problem, eval_lengths=(24,)) for problem in PROBLEMS},
    "p_hop, repeats": PHopConfig(hops=2, length=24, version="repeats"),
    "n_ary_addition": NAryAdditionConfig(operands=(2, 4), eval_operands=(3,)),
    "i_gsm": IGSMConfig(),
    "i_gsm, published": IGSMConfig(version="published"),
    "chomsky, regular": ChomskyConfig(problem="modular_arithmetic"),
    "chomsky, several outputs": ChomskyConfig(problem="binary_addition", eval_lengths=(20,)),
    "arithmetic": ArithmeticConfig(length=4, modulus=5, min_length=2, eval_lengths=(6,)),
    "arithmetic, direct": ArithmeticConfig(length=3, answer="direct"),
    "arithmetic, rounds": ArithmeticConfig(length=4, min_length=2, answer="rounds"),
    "equations": EquationsConfig(length=2, eval_lengths=(3,)),
    "increasing_subsequence": IncreasingSubsequenceConfig(length=12),
    "increasing_subsequence, rounds": IncreasingSubsequenceConfig(length=24, min_length=11, answer="rounds"),
    "edit_distance_chain": EditDistanceChainConfig(length=6),
    "edit_distance_chain, rounds": EditDistanceChainConfig(length=6, eval_lengths=(9,), answer="rounds"),
    "own sequence task": Collapse.Config(eval_lengths=(9,)),
    "own task of classes": Successor.Config(),
    "own task of numbers": Sums.Config(),
    "text": TextConfig(train_files=("written by the fixture",), context=48),
}


@pytest.fixture(scope="module", params=CONFIGS)
def task(request, tmp_path_factory):
    config = CONFIGS[request.param]
    if isinstance(config, TextConfig):
        folder, files = tmp_path_factory.mktemp("text"), {}
        for split in SPLITS:  # lines short enough for every window to name its split
            path = folder / f"{split}.txt"
            path.write_text("".join(f"{split} {n}, {n * n % 97} men and a boat\n" for n in range(300)))
            files[f"{split}_files"] = (str(path),)
        config = dataclasses.replace(config, **files, cache=str(folder / "prepared"))
    return TASKS[config.name](config)


def equal(a: Batch, b: Batch) -> bool:
    return all(x is y is None or torch.equal(x, y) for x, y in zip(a, b, strict=True))  # pyright: ignore


def perfect(task, batch: Batch) -> torch.Tensor:
    """Outputs that are right everywhere; their negative is right nowhere."""
    if batch.targets.is_floating_point():
        return batch.targets[..., None]
    return 20 * torch.nn.functional.one_hot(batch.targets, task.spec.output_size).float()


def test_every_task_is_tried():
    assert {config.name for config in CONFIGS.values()} >= set(registry._folders())


def test_the_examples_of_all_tasks_need_no_heavy_library(tmp_path):
    code = (
        "import sys; from pathlib import Path; from looped.tasks import TASKS\n"
        "for name, kind in TASKS.items():\n"
        f"    task = kind(kind.example_config(Path({str(tmp_path)!r})))\n"
        "    print(name, task.describe(task.sample('train', 1, task.rng('train', 0, 0))[0]))\n"
        "print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert all(f"{name} " in done.stdout for name in registry._folders())
    loaded = set(done.stdout.splitlines()[-1].split())
    assert "numpy" in loaded
    assert "torch" not in loaded
    assert not loaded & {"sklearn", "scipy", "tokenizers", "datasets", "transformers", "pandas", "matplotlib"}


def test_the_batch_of_a_step_is_a_pure_function(task):
    batch = task.batch("train", 3, 16, seed=1)
    other = [
        task.batch("train", 4, 16, seed=1),
        task.batch("train", 3, 16, seed=2),
        task.batch("validation", 3, 16, seed=1),
    ]
    assert not any(equal(batch, b) for b in other)
    assert equal(batch, task.batch("train", 3, 16, seed=1))
    copy = pickle.loads(pickle.dumps(task))
    assert equal(batch, copy.batch("train", 3, 16, seed=1))


def test_splits_are_disjoint(task):
    drawn = {}
    for split in SPLITS:
        inputs = [row for step in range(3) for row in task.batch(split, step, 100, seed=0).inputs]
        drawn[split] = {row.numpy().tobytes() for row in inputs}
        assert len(drawn[split]) > 15
    assert not drawn["train"] & drawn["validation"]
    assert not drawn["train"] & drawn["test"]
    assert not drawn["validation"] & drawn["test"]


def test_batches_fit_the_interface(task):
    spec = task.spec
    for group in (None, *task.groups):
        batch = task.batch("test", 0, 8, seed=0, group=group)
        assert batch.targets.shape == batch.mask.shape == batch.attention_mask.shape == batch.inputs.shape[:2]
        assert len(batch.inputs) == 8
        assert batch.inputs.shape[1] <= spec.max_seq_len
        assert (batch.mask.dtype, batch.attention_mask.dtype) == (torch.bool, torch.bool)
        assert batch.mask.any(1).all()
        assert not (batch.mask & ~batch.attention_mask).any()
        if spec.inputs == "vectors":
            assert (batch.inputs.dtype, batch.targets.dtype) == (torch.float32, torch.float32)
            assert batch.inputs.shape[2] == spec.input_dim
            assert batch.inputs.isfinite().all()
            continue
        assert (batch.inputs.dtype, batch.targets.dtype) == (torch.int64, torch.int64)
        assert 0 <= batch.inputs.min() <= batch.inputs.max() < spec.vocab_size
        assert 0 <= batch.targets.min() <= batch.targets.max() < spec.output_size


def test_scores(task):
    batch = task.batch("test", 0, 8, seed=0)
    right = task.score(batch, perfect(task, batch))
    wrong = task.score(batch, -perfect(task, batch))
    reported = [task.reported(name, values.mean().item(), "test") for name, values in right.items()]
    assert any(task.pass_metric in names for names in reported)
    for name, values in right.items():
        assert values.shape == (8,)
        assert values.dtype == torch.float32
        if task.lower_is_better:
            assert (values < 1e-4).all(), name
            assert (wrong[name] > 0).all(), name
        else:
            assert (values == 1).all(), name
            assert (wrong[task.pass_metric] == 0).all()
    if task.generation is not None:
        written = [row[mask].tolist() for row, mask in zip(batch.targets, batch.mask, strict=True)]
        assert all(len(text) <= task.generation.max_new_tokens for text in written)
        assert all(text[-1] == task.generation.end not in text[:-1] for text in written)
        assert (task.score_generated(batch, written)[task.metric] == 1).all()
        assert (task.score_generated(batch, [text[:-1] for text in written])[task.metric] == 0).all()
        problem = task.sample("test", 1, np.random.default_rng(0))[0]
        (own,) = [row[mask].tolist() for row, mask in zip(*task.encode([problem])[1:3], strict=True)]
        said = task.generated_answer(problem, own)
        assert said["answer"] == task.to_text(problem)["expected"]
    assert task.weights(batch).shape == (8,)


def test_a_person_can_look_at_it(task):
    problems = task.sample("test", 2, np.random.default_rng(0))
    logits = perfect(task, task.encode(problems[:1]))[0]
    said = task.answer(problems[0], logits)
    assert set(said) == {"answer", "valid", "confidence"}
    assert said["valid"] is not False
    assert said["confidence"] is None or said["confidence"] > 0.99
    assert task.describe(problems[0], logits) != task.describe(problems[0])
    visualisation = json.loads(json.dumps(task.visualise(problems[0], torch.stack([0 * logits, logits]))))
    assert visualisation["kind"] in ("board", "distribution", "slots", "points")
    assert [loop["loop"] for loop in visualisation["loops"]] == [1, 2]
