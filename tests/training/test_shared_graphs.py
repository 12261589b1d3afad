"""Graphs that a task gives for all problems: the same numbers as matrices in the call, through all commands."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from training_cases import assert_same_run

from benchmarks.training_step import peak_bytes
from looped.cli import main
from looped.config import ModelConfig, OptimConfig, RunConfig, ScheduleConfig, TrainConfig, check_fits
from looped.models.exit_rules import StateChange
from looped.models.graphs import share_graphs
from looped.models.transformer import LoopedTransformer
from looped.nn.graphs import SharedGraph
from looped.runs import evaluate_run, solve_file
from looped.tasks.edit_distance import EditDistance, EditDistanceConfig
from looped.tasks.sudoku import Sudoku, SudokuConfig
from looped.training import load_run, train
from looped.training.planning import plan
from looped.training.short_steps import Steps

TASK = SudokuConfig(box=2, pool=150, tokens="candidates")
UNITS = ("row", "column", "box", "cell")
SIZES: dict[str, Any] = {
    "d_model": 8, "num_heads": 0, "d_head": 4, "graph_heads": UNITS, "d_ff": 16, "num_loops": 5, "positions": "none",
    "input_injection": "add", "loop_norm": True, "initialisation": "pytorch",
}  # fmt: skip


def run(**changes: Any) -> RunConfig:
    return RunConfig(
        model=ModelConfig.for_task(Sudoku(TASK), **SIZES),
        task=TASK,
        schedule=ScheduleConfig(kind="random", min_loops=2, max_loops=5, num_grad_loops=2),
        optim=OptimConfig(optimizer="muon", learning_rate=5e-3, warmup_steps=2, ema_decay=0.9),
        train=TrainConfig(**{
            "steps": 12, "batch_size": 8, "loss": "window", "loss_window": 2, "log_every": 4, "eval_every": 6,
            "eval_examples": 16, "save_every": 6, "device": "cpu", "precision": "fp32", "compile": None, "workers": 0,
            **changes,
        }),
    )  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("graphs") / "run"
    train(run(), path)
    return path


def matrix_of(kind: str, seq: int, rng: np.random.Generator) -> torch.Tensor:
    """groups: equal groups in random order. uneven: groups of other sizes. random: any numbers."""
    if kind == "random":
        return torch.from_numpy(rng.normal(size=(seq, seq)))
    labels = np.arange(seq) % 3 if kind == "groups" else np.minimum(np.arange(seq), 2)
    labels = torch.from_numpy(rng.permutation(labels))
    return (labels[:, None] == labels).double()


@pytest.mark.parametrize("kind", ["groups", "uneven", "random"])
def test_a_shared_graph_is_a_matrix_product(kind: str):
    rng = np.random.default_rng(0)
    for seq in (6, 9, 12):
        matrix = matrix_of(kind, seq, rng)
        graph = SharedGraph(matrix)
        assert graph.grouped == (kind == "groups")
        values = torch.from_numpy(rng.normal(size=(2, seq, 3))).requires_grad_()
        torch.testing.assert_close(graph(values), matrix @ values)
        assert torch.autograd.gradcheck(graph, (values,))
        assert torch.autograd.gradgradcheck(graph, (values,))


@pytest.mark.parametrize("tokens", ["cells", "candidates"])
@pytest.mark.parametrize("heads", [0, 2])
def test_shared_graphs_equal_graphs_of_the_call(tokens: Any, heads: int):
    """Outputs and gradients in float64, with early exits too."""
    task = Sudoku(SudokuConfig(box=2, pool=60, tokens=tokens))
    config = ModelConfig.for_task(task, **{**SIZES, "num_heads": heads, "graph_heads": tuple(task.graphs)})
    model, inputs = LoopedTransformer(config).double(), task.batch("train", 0, 4, seed=0).inputs
    given = {name: graph.double().expand(4, -1, -1) for name, graph in task.graphs.items()}
    expected = model(inputs, graphs=given, loop_logits="all").loop_logits
    weights = list(model.parameters())
    wanted = torch.autograd.grad(expected.square().sum(), weights)
    exits = model(inputs, graphs=given, exit_rule=StateChange(threshold=0.5))
    share_graphs(model, task.graphs)
    assert len(weights) == len(list(model.parameters()))
    found = model(inputs, loop_logits="all").loop_logits
    torch.testing.assert_close(found, expected)
    for gradient, other in zip(torch.autograd.grad(found.square().sum(), weights), wanted, strict=True):
        torch.testing.assert_close(gradient, other)
    early = model(inputs, exit_rule=StateChange(threshold=0.5))
    torch.testing.assert_close(early.logits, exits.logits)
    assert torch.equal(early.loops_taken, exits.loops_taken)


def test_the_model_of_candidates_knows_all_symmetries():
    """A symmetry of the board permutes its output: the graphs are all that it knows of the board."""
    task = Sudoku(TASK)
    model = LoopedTransformer(ModelConfig.for_task(task, **SIZES)).double()
    share_graphs(model, task.graphs)
    inputs = task.batch("train", 0, 3, seed=0).inputs
    places = torch.arange(64).view(2, 2, 2, 2, 4)  # band, row, stack, column, digit
    for moved in (places.flip(0), places.flip(1), places.flip(2), places.flip(3), places[..., [2, 0, 3, 1]]):
        order = moved.flatten()
        torch.testing.assert_close(model(inputs[:, order]).logits, model(inputs).logits[:, order])


def test_a_resumed_run_is_the_same(folder: Path, tmp_path: Path):
    again = tmp_path / "again"
    shutil.copytree(folder, again)
    shutil.rmtree(again / "checkpoints" / "step_000012")
    (again / "summary.json").unlink()
    assert train(run(), again, resume=True)["steps"] == 12
    assert_same_run(folder, again, 12)


def test_commands_use_the_graphs(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    rows = evaluate_run(folder, loops=[5, 9], examples=16)
    assert {row["num_loops"] for row in rows} == {5, 9}
    _, model, _ = load_run(folder)
    task = Sudoku(TASK)
    problem = task.sample("test", 1, np.random.default_rng(0))[0]
    (tmp_path / "board.txt").write_text("".join(map(str, problem.given.tolist())) + "\n")
    [answer], _ = solve_file(folder, str(tmp_path / "board.txt"), num_loops=5)
    given = {name: graph.expand(1, -1, -1) for name, graph in task.graphs.items()}
    logits = model(task.encode([problem]).inputs, graphs=given, num_loops=5).logits[0].detach()
    expected = task.answer(problem, logits)
    assert answer["answer"] == expected["answer"]
    assert answer["confidence"] == pytest.approx(expected["confidence"], abs=1e-5)
    assert main(["calibrate", str(folder), "--examples", "4"]) == 0
    assert main(["inspect", str(folder), "--examples", "1", "--loops", "2", "--out", str(tmp_path / "inspect")]) == 0
    assert json.loads((tmp_path / "inspect" / "inspect.json").read_text())["attention"] is None


def test_wrong_graphs_are_refused():
    task = Sudoku(TASK)
    config = ModelConfig.for_task(task, **{**SIZES, "graph_heads": ("row", "diagonal")})
    with pytest.raises(ValueError, match=r"model.graph_heads=.*expected among row, column, box, cell"):
        check_fits(config, task)
    strings = EditDistance(EditDistanceConfig())
    with pytest.raises(ValueError, match=r"graph_heads=.*expected none for task edit_distance"):
        check_fits(ModelConfig.for_task(strings, graph_heads=("row",)), strings)
    model = LoopedTransformer(config)
    with pytest.raises(ValueError, match=r"expected also \['diagonal'\]"):
        share_graphs(model, task.graphs)
    square, wide = torch.ones(8, 8), torch.ones(8, 9)
    for wrong in (wide, square[0], torch.ones(9, 9)):
        with pytest.raises(ValueError, match="graphs: 'row': has shape"):
            share_graphs(model, {"diagonal": square, "row": wrong})
    share_graphs(model, {"diagonal": square, "row": square})
    with pytest.raises(ValueError, match="expected 8 positions and no cache"):
        model(torch.zeros(1, 9, dtype=torch.long))
    for wrong in ({"graph_heads": ()}, {"d_head": None}, {"num_heads": -1}):
        with pytest.raises(ValueError, match=r"num_heads=.*expected at least 1, or 0 beside graph_heads and d_head"):
            ModelConfig(**{**SIZES, **wrong})


def test_a_plan_of_graph_heads_predicts_the_memory_of_a_step():
    found = plan(run(batch_size=64)).choices[0]
    assert found.measured
    batch = Sudoku(TASK).batch("train", 0, 64, seed=0)

    def step() -> None:
        steps = Steps(run(batch_size=64))
        for _ in range(2):
            steps.seconds(batch, (5, 2))

    real = peak_bytes(step)
    assert 0.9 * real < found.tensors < 1.1 * real
