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
    """Edit distance of 4 to 6 letters, tested at 7 to 9: two layers, looped once for each row of the table."""
    return RunConfig(
        note="Sized for a minute on a CPU: edit distance alone, 4 to 6 letters instead of up to 30, d=64, Muon. The "
        "answer is read at a first token, because the publication names no place. The weight of the steps is 1, which "
        "it does not name either.",
        model=ModelConfig(d_model=64, num_heads=4, core_layers=2, num_loops=6, positions="rotary"),
        task=EditDistanceChainConfig(
            length=6, min_length=4, eval_lengths=(7, 8, 9), min_letters=3, max_letters=3, letter_pool=3, answer="rounds"
        ),
        optim=OptimConfig(optimizer="muon", learning_rate=3e-3),
        train=TrainConfig(steps=2000, batch_size=64, loss=loss, eval_every=500, eval_examples=512),
    )


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

IN, BEYOND = "Edit distance, lengths of training", "Edit distance, longer strings"
GROUPS = {IN: ("6",), BEYOND: ("7", "8", "9")}
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
            groups=GROUPS[task],
            published=(f"relay-edit-distance-published-{name}",),
        )
        for task in GROUPS
        for name, model in MODELS.items()
    ),
    claims=(
        Claim(
            task=BEYOND, says="Targets for each loop help on longer strings than in training.",
            first=("relay-answer-only",), second=("relay-aligned",), groups=GROUPS[BEYOND],
        ),
    ),
    differs=(
        "Only the first stage: the looped model. The publication then trains a causal model on the chains that it "
        "writes for longer problems.",
        "One problem at a time, one output for words and answers, and the answer at a first token of its own.",
        "The published results are curves: near 100% at the lengths of training, and beyond them the aligned model is "
        "above the other.",
    ),
)  # fmt: skip
