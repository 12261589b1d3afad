"""Feng et al. (2023): direct answers and chains of thought, and the looped models that their tables do not have."""

from functools import partial
from typing import Literal

from looped.config import ModelConfig, OptimConfig, RunConfig, TrainConfig
from looped.recipes.work import Claim, Published, Row, Work
from looped.tasks import TaskConfig
from looped.tasks.arithmetic import ArithmeticConfig
from looped.tasks.edit_distance_chain import EditDistanceChainConfig
from looped.tasks.equations import EquationsConfig
from looped.tasks.increasing_subsequence import IncreasingSubsequenceConfig

Answer = Literal["direct", "chain"]
Problem = Literal["arithmetic", "equations", "increasing-subsequence", "edit-distance"]
EPOCH = 1_000_000 // 512  # steps of the public code for one pass over its million examples


def small(problem: Literal["arithmetic", "equations"], answer: Answer, layers: int, loops: int) -> RunConfig:
    """Expressions of at most 3 operators, or 2 equations, modulo 5: a minute on one thread of a CPU."""
    data = {
        "arithmetic": ArithmeticConfig(length=3, min_length=1, modulus=5, answer=answer),
        "equations": EquationsConfig(length=2, modulus=5, answer=answer),
    }
    return RunConfig(
        note="Sized for a minute on a CPU: numbers modulo 5 instead of 11, d=64 instead of 256, Muon, and rotary "
        "positions.",
        model=ModelConfig(
            d_model=64, num_heads=4, core_layers=layers, num_loops=loops, causal=True, positions="rotary"
        ),
        task=data[problem],
        optim=OptimConfig(optimizer="muon", learning_rate=3e-3),
        train=TrainConfig(steps=1200, batch_size=64, eval_every=400, eval_examples=512),
    )  # fmt: skip


def published(problem: Problem, answer: Answer) -> RunConfig:
    """The public code's model and schedule: 3 causal layers, for direct answers also 4 and 5 (--model.core-layers)."""
    data: dict[str, TaskConfig] = {
        "arithmetic": ArithmeticConfig(min_length=1, answer=answer),
        "equations": EquationsConfig(answer=answer),
        "increasing-subsequence": IncreasingSubsequenceConfig(answer=answer),
        "edit-distance": EditDistanceChainConfig(answer=answer, version="published"),
    }
    return RunConfig(
        note="The public code used one million fixed examples 100 times, and dropout 0.1, which this library lacks. "
        "Here every batch is new, and no question occurs in two splits.",
        model=ModelConfig(
            core_layers=3, causal=True, positions="sinusoidal", embedding_norm=True, norm="layer", final_norm="layer",
            activation="gelu_tanh", bias=True, initialisation="pytorch",
        ),
        task=data[problem],
        optim=OptimConfig(
            learning_rate=1e-4, betas=(0.9, 0.999), decay="all_but_bias", schedule="linear", warmup_steps=5 * EPOCH,
            update_every=EPOCH, clip_norm=None,
        ),
        train=TrainConfig(
            steps=100 * EPOCH, batch_size=512, eval_every=10 * EPOCH, save_every=EPOCH, precision="fp32"
        ),
    )  # fmt: skip


ARMS: dict[str, tuple[Answer, int, int]] = {
    "direct": ("direct", 3, 1),
    "looped": ("direct", 1, 8),
    "chain": ("chain", 3, 1),
    "chain-looped": ("chain", 1, 3),
}
SMALL: tuple[Literal["arithmetic", "equations"], ...] = ("arithmetic", "equations")
ALL: tuple[Problem, ...] = (*SMALL, "increasing-subsequence", "edit-distance")
RECIPES = {f"feng-{problem}-{arm}": partial(small, problem, *ARMS[arm]) for problem in SMALL for arm in ARMS} | {
    f"feng-{problem}-published-{answer}": partial(published, problem, answer)
    for problem in ALL
    for answer in ("direct", "chain")
}

MODELS = {
    "direct": "direct, 3 layers",
    "looped": "direct, 1 layer looped 8 times",
    "chain": "chain, 3 layers",
    "chain-looped": "chain, 1 layer looped 3 times",
}
LOOPS = {1: (1,), 3: (1, 2, 3, 4, 6), 8: (1, 2, 4, 6, 8, 12, 16)}
PAPER = {  # depth 3 of the smallest published size: 4 operators modulo 11, 3 variables modulo 11
    ("arithmetic", "direct"): "0.729",
    ("arithmetic", "chain"): "1.000",
    ("equations", "direct"): "0.022",
    ("equations", "chain"): "1.000",
}
HEADINGS = {
    "arithmetic": "Arithmetic, at most 3 operators modulo 5",
    "equations": "Linear equations, 2 variables modulo 5",
}


def _row(problem: str, arm: str) -> Row:
    has_paper = (problem, arm) in PAPER
    return Row(
        task=HEADINGS[problem],
        model=MODELS[arm],
        words=(f"feng-{problem}-{arm}",),
        loops=LOOPS[ARMS[arm][2]],
        paper=PAPER.get((problem, arm)),
        published=(f"feng-{problem}-published-{arm}",) if has_paper else None,
    )


def _claims(problem: str) -> list[Claim]:
    sentences = {
        ("direct", "chain"): "A chain of thought beats a direct answer, both with 3 layers.",
        ("direct", "looped"): "For direct answers, one layer looped 8 times beats 3 layers.",
        ("looped", "chain"): "A chain of thought with 3 layers beats a direct answer with 8 loops.",
        ("looped", "chain-looped"): "A chain written by one layer looped 3 times beats a direct answer with 8 loops.",
    }
    return [
        Claim(
            task=HEADINGS[problem], says=says, first=(f"feng-{problem}-{first}",), second=(f"feng-{problem}-{second}",)
        )
        for (first, second), says in sentences.items()
    ]


# Problem, sizes, and accuracy in % at each size: direct with 3, 4 and 5 layers, chain with 3 layers.
LOGS = (
    ("arithmetic", "4 / 5 / 6 operators", "72.9 / 37.4 / 25.4", "91.4 / 32.2 / 25.2", "96.8 / 69.9 / 49.1", "100"),
    ("equations", "3 / 4 / 5 variables", "2.2 / 0.0 / 0.0", "3.6 / 0.0 / 0.0", "3.8 / 0.0 / 0.0", "100"),
    (
        "increasing subsequence", "50 / 80 / 100 numbers", "64.4 / 30.0 / 22.6", "90.8 / 63.0 / 33.5",
        "95.9 / 75.2 / 55.1", "99.5 / 99.8 / 100.0",
    ),
    ("edit distance", "12 / 16 / 20 letters", "75.1 / 54.7 / 42.5", "87.2 / 72.0 / 57.9", "93.4 / 79.9 / 63.9", "100"),
)  # fmt: skip

WORK = Work(
    title="Chain of thought",
    source="Feng, Zhang, Gu, Ye, He & Wang, Towards Revealing the Mystery behind Chain of Thought (NeurIPS 2023)",
    rows=tuple(_row("arithmetic", arm) for arm in ARMS),
    claims=tuple(_claims("arithmetic")),
    differs=(
        "Accuracy is that of the generated final answer. The paper scores chains of subsequences and edit distance in "
        "one pass with the right words up to each position (teacher_forced here, a lower bound).",
        "The loss of direct arithmetic also counts the end of the answer, which generation needs.",
        "The paper's numbers in the tables are of 3 layers, 4 operators or 3 variables modulo 11. The paper has no "
        "looped models.",
    ),
    published=(
        Published(
            caption="Published accuracy in %, the mean of 4 seeds, from the logs of the public code "
            "(github.com/guyuntian/CoT_benchmark).",
            columns=("problem", "sizes", "direct, 3 layers", "direct, 4 layers", "direct, 5 layers", "chain, 3 layers"),
            rows=LOGS,
        ),
    ),
)  # fmt: skip
