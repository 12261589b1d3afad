"""Deep equilibrium models (Bai, Kolter & Koltun, 2019): gradients at the fixed point of a loop."""

from functools import partial

from looped.config import ModelConfig, OptimConfig, RunConfig, ScheduleConfig, TrainConfig
from looped.recipes.work import Claim, Row, Work
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
            d_model=32, num_heads=2, num_loops=16, input_injection="add", loop_norm=True, initialisation="pytorch",
        ),
        task=SudokuConfig(box=2, pool=20_000),
        schedule=ScheduleConfig(num_grad_loops=4 if name == "last-4" else None),
        optim=OptimConfig(optimizer="muon", learning_rate=5e-3, warmup_steps=20),
        train=TrainConfig(steps=1200, batch_size=32, eval_every=300, precision="fp32", **GRADIENTS[name]),
    )  # fmt: skip


RECIPES = {f"deq-{name}": partial(sudoku, name) for name in GRADIENTS}
NAMES = {
    "unroll": "through all 16 loops",
    "last-4": "through the last 4 loops",
    "one-step": "one step at the last state",
    "neumann-4": "4 terms of the series",
    "phantom-4": "phantom, 4 damped loops",
    "implicit": "implicit, exact at a fixed point",
}
LOOPS = (1, 4, 8, 16, 32, 64, 128, 256)

WORK = Work(
    title="Gradients at a fixed point",
    source="Bai, Kolter & Koltun, Deep Equilibrium Models (NeurIPS 2019); Geng et al., On Training Implicit Models "
    "(NeurIPS 2021); Fung et al., Jacobian-Free Backpropagation (AAAI 2022)",
    rows=tuple(
        Row(task="4x4 Sudoku", model=f"gradient {NAMES[name]}", words=(f"deq-{name}",), loops=LOOPS)
        for name in GRADIENTS
    ),
    claims=tuple(
        Claim(
            task="4x4 Sudoku",
            says=f"The gradient {NAMES[second]} beats the one {NAMES[first]}.",
            first=(f"deq-{first}",),
            second=(f"deq-{second}",),
        )
        for first, second in (("one-step", "unroll"), ("unroll", "implicit"), ("last-4", "implicit"))
    ),
    differs=("The publications train language and image models; their numbers have no counterpart at this size.",),
)
