"""Deep equilibrium models (Bai, Kolter & Koltun, 2019): gradients at the fixed point of a loop."""

from functools import partial

from looped.config import ModelConfig, OptimConfig, RunConfig, ScheduleConfig, TrainConfig
from looped.tasks.sudoku import SudokuConfig

GRADIENTS: dict[str, dict] = {
    "unroll": {},
    "last-4": {},
    "one-step": {"gradient": "neumann", "gradient_terms": 1},
    "neumann-4": {"gradient": "neumann", "gradient_terms": 4},
    "phantom-4": {"gradient": "phantom", "gradient_terms": 4, "gradient_damping": 0.5},
    "implicit": {"gradient": "implicit"},
}


def sudoku(name: str) -> RunConfig:
    """4x4 Sudoku with one layer looped 16 times. All arms have equal weights, data and steps."""
    return RunConfig(
        note="Sized for a minute on a CPU; the publication trains language models. The solver is plain iteration.",
        model=ModelConfig(
            d_model=64, num_heads=4, num_loops=16, input_injection="add", loop_norm=True, initialisation="pytorch",
        ),
        task=SudokuConfig(box=2, pool=20_000),
        schedule=ScheduleConfig(num_grad_loops=4 if name == "last-4" else None),
        optim=OptimConfig(optimizer="muon", learning_rate=5e-3, warmup_steps=20),
        train=TrainConfig(steps=400, batch_size=64, eval_every=100, precision="fp32", **GRADIENTS[name]),
    )  # fmt: skip


RECIPES = {f"deq-{name}": partial(sudoku, name) for name in GRADIENTS}
