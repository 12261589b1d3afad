"""Yu et al. (2025), RELAY: loop t of a looped model is trained to write step t of the chain of thought."""

from functools import partial
from typing import Literal

from looped.config import ModelConfig, OptimConfig, RunConfig, TrainConfig
from looped.recipes.work import Claim, Row, Work
from looped.tasks import TaskConfig
from looped.tasks.arithmetic import ArithmeticConfig
from looped.tasks.edit_distance_chain import EditDistanceChainConfig
from looped.tasks.increasing_subsequence import IncreasingSubsequenceConfig

Loss = Literal["steps", "task"]
Problem = Literal["arithmetic", "edit-distance", "increasing-subsequence"]
EPOCH = 1_000_000 // 512


def small(loss: Loss) -> RunConfig:
    """Expressions of 1 to 3 operators modulo 5, tested at 4 and 5: three layers, looped once for each operator."""
    return RunConfig(
        note="Sized for a minute on a CPU: arithmetic alone, 3 operators modulo 5 instead of 15 modulo 11, d=64, Muon. "
        "Each question has one chain. The answer is read at a first token, because the publication names no place. The "
        "weight of the steps is 1, which it does not name either.",
        model=ModelConfig(d_model=64, num_heads=4, core_layers=3, num_loops=3, positions="rotary"),
        task=ArithmeticConfig(
            length=3, min_length=1, eval_lengths=(4, 5), modulus=5, order="first", answer="rounds"
        ),
        optim=OptimConfig(optimizer="muon", learning_rate=3e-3),
        train=TrainConfig(steps=1500, batch_size=64, loss=loss, eval_every=500, eval_examples=512),
    )  # fmt: skip


def published(problem: Problem, loss: Loss) -> RunConfig:
    """The published sizes, for one problem at a time: 3 layers, looped once for each round."""
    data: dict[str, TaskConfig] = {
        "arithmetic": ArithmeticConfig(length=15, min_length=1, eval_lengths=(20, 25), answer="rounds"),
        "edit-distance": EditDistanceChainConfig(length=30, min_length=4, eval_lengths=(35, 40), answer="rounds"),
        "increasing-subsequence": IncreasingSubsequenceConfig(
            length=100, min_length=11, eval_lengths=(110, 120), numbers=250, answer="rounds"
        ),
    }
    steps = 500 * EPOCH
    return RunConfig(
        note="The publication trains the three problems jointly, on a million fixed examples of each for 500 epochs, "
        "with dropout 0.1, which this library lacks. The weight of the steps is 1, which it does not name.",
        model=ModelConfig(core_layers=3, num_loops=10, positions="rotary"),
        task=data[problem],
        optim=OptimConfig(
            learning_rate=5e-4 if loss == "steps" else 1e-3, schedule="linear", warmup_steps=steps // 100
        ),
        train=TrainConfig(steps=steps, batch_size=512, loss=loss, eval_every=10 * EPOCH, save_every=EPOCH),
    )  # fmt: skip


LOSSES: dict[str, Loss] = {"aligned": "steps", "answer-only": "task"}
PROBLEMS: tuple[Problem, ...] = ("arithmetic", "edit-distance", "increasing-subsequence")
RECIPES = {f"relay-{name}": partial(small, loss) for name, loss in LOSSES.items()} | {
    f"relay-{problem}-published-{name}": partial(published, problem, loss)
    for problem in PROBLEMS
    for name, loss in LOSSES.items()
}

IN, BEYOND = "Arithmetic, 3 operators as in training", "Arithmetic, 4 and 5 operators"
GROUPS = {IN: ("3",), BEYOND: ("4", "5")}
MODELS = {"aligned": "targets for each loop", "answer-only": "target after the last loop only"}

WORK = Work(
    title="Loop-aligned reasoning",
    source="Yu, He, Li, Zhou, Zhang, Xu & He, Enhancing Auto-regressive Chain-of-Thought through Loop-Aligned "
    "Reasoning (2025)",
    rows=tuple(
        Row(
            task=task,
            model=model,
            words=(f"relay-{name}",),
            loops=(3,),
            groups=GROUPS[task],
            published=(f"relay-arithmetic-published-{name}",),
        )
        for task in GROUPS
        for name, model in MODELS.items()
    ),
    claims=tuple(
        Claim(
            task=task, says=f"Targets for each loop help {where}.",
            first=("relay-answer-only",), second=("relay-aligned",), groups=GROUPS[task],
        )
        for task, where in ((IN, "at the largest size of training"), (BEYOND, "on larger problems than in training"))
    ),
    differs=(
        "Only the first stage: the looped model. The publication then trains a causal model on the chains that it "
        "writes for longer problems.",
        "One problem at a time, one output for words and answers, and the answer at a first token of its own.",
        "The published results are curves: near 100% at the lengths of training, and beyond them the aligned model is "
        "above the other.",
    ),
)  # fmt: skip
