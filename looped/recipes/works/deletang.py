"""Neural networks and the Chomsky hierarchy (Delétang et al., ICLR 2023), with a looped transformer."""

import dataclasses
from functools import partial
from typing import Literal

from looped.config import ModelConfig, OptimConfig, RunConfig, TrainConfig
from looped.recipes.work import Claim, Published, Row, Words, Work
from looped.tasks.chomsky import ChomskyConfig

LENGTHS = (20, 24, 28, 32, 36, 40)


def small(variant: Literal["looped", "fixed", "layers"]) -> RunConfig:
    """A causal model without positions on lengths 1 to 16, which grow: one layer looped T(n) or 16 times, or 5 layers.

    Muon learns these problems in far fewer steps than AdamW. A looped layer reads its input again in each loop.
    """
    loop = ModelConfig(num_loops=16, input_injection="add", loop_norm=True, initialisation_depth=1)
    return RunConfig(
        note="A small version: lengths 1 to 16, tested at 20 to 40, in a minute (published: 1 to 40, tested at 41 to "
        "500, in a million steps). One causal model without positions (published: the best of five kinds).",
        model=dataclasses.replace(
            ModelConfig(core_layers=5) if variant == "layers" else loop,
            d_model=64, causal=True, positions="none", norm="layer", bias=True, activation="gelu_tanh",
        ),
        task=ChomskyConfig(length=16, eval_lengths=LENGTHS, start_length=1, length_every=80),
        optim=OptimConfig(optimizer="muon", learning_rate=3e-3, betas=(0.9, 0.999)),
        train=TrainConfig(
            steps=2500, batch_size=32, loss="task" if variant == "looped" else "last", precision="fp32", workers=0,
            log_every=500, eval_every=2500, eval_examples=256, save_every=2500,
        ),
    )  # fmt: skip


def published() -> RunConfig:
    """The published transformer: five layers with the norm after each sublayer, on lengths 1 to 40."""
    return RunConfig(
        note="Without the published dropout of 0.1, and embeddings are not multiplied by sqrt(d_model). The paper "
        "reports the best of three learning rates (1e-4, 5e-4, 1e-3), five kinds of positions and ten seeds.",
        model=ModelConfig(
            d_model=64, num_heads=8, core_layers=5, norm="layer", norm_place="after", bias=True, activation="relu",
            positions="sinusoidal", initialisation="pytorch",
        ),
        task=ChomskyConfig(length=40, eval_lengths=tuple(range(41, 501))),
        optim=OptimConfig(betas=(0.9, 0.999), weight_decay=0.0, warmup_steps=0, schedule="constant"),
        train=TrainConfig(steps=1_000_000, batch_size=128, eval_every=50_000, save_every=50_000),
    )  # fmt: skip


RECIPES = {
    "deletang-looped": partial(small, "looped"),
    "deletang-fixed": partial(small, "fixed"),
    "deletang-layers": partial(small, "layers"),
    "deletang-published": published,
}
MODELS = {"looped": "1 layer, T(n) loops", "fixed": "1 layer, 16 loops", "layers": "5 layers"}
# Score in percent of the best run: RNN, Stack-RNN, Tape-RNN, transformer, LSTM.
SCORES = {
    "even_pairs": ("regular", 100.0, 100.0, 100.0, 96.4, 100.0),
    "modular_arithmetic": ("regular", 100.0, 100.0, 100.0, 24.2, 100.0),
    "parity_check": ("regular", 100.0, 100.0, 100.0, 52.0, 100.0),
    "cycle_navigation": ("regular", 100.0, 100.0, 100.0, 61.9, 100.0),
    "stack_manipulation": ("context-free", 56.0, 100.0, 100.0, 57.5, 59.1),
    "reverse_string": ("context-free", 62.0, 100.0, 100.0, 62.3, 60.9),
    "modular_arithmetic_brackets": ("context-free", 41.3, 96.1, 95.4, 32.5, 59.2),
    "solve_equation": ("context-free", 51.0, 56.2, 64.4, 25.7, 67.8),
    "duplicate_string": ("context-sensitive", 50.3, 52.8, 100.0, 52.8, 57.6),
    "missing_duplicate_string": ("context-sensitive", 52.3, 55.2, 100.0, 56.4, 54.3),
    "odds_first": ("context-sensitive", 51.0, 51.9, 100.0, 52.8, 55.6),
    "binary_addition": ("context-sensitive", 50.3, 52.7, 100.0, 54.3, 55.5),
    "binary_multiplication": ("context-sensitive", 50.0, 52.7, 58.5, 52.2, 53.1),
    "compute_sqrt": ("context-sensitive", 54.3, 56.5, 57.8, 52.4, 57.5),
    "bucket_sort": ("context-sensitive", 27.9, 78.1, 70.7, 91.9, 99.3),
}
TRIED = ("parity_check", "cycle_navigation", "reverse_string")  # also with a fixed number of loops
GROUPS = tuple(map(str, LENGTHS))


def _title(problem: str) -> str:
    return f"{problem.replace('_', ' ').capitalize()} ({SCORES[problem][0]})"


def _words(variant: str, problem: str) -> Words:
    return f"deletang-{variant}", "--task.problem", problem


def _row(problem: str, variant: str) -> Row:
    transformer = variant == "layers"
    return Row(
        task=_title(problem),
        model=MODELS[variant],
        words=_words(variant, problem),
        loops=(16 if variant == "fixed" else 1,),
        groups=GROUPS,
        paper=f"{SCORES[problem][4] / 100:.3f} (lengths 41 to 500)" if transformer else None,
        published=_words("published", problem) if transformer else None,
    )


WORK = Work(
    title="Length generalisation on the Chomsky hierarchy",
    source="Delétang, Ruoss, Grau-Moya, Genewein, Wenliang, Catt, Cundy, Hutter, Legg, Veness & Ortega, Neural "
    "Networks and the Chomsky Hierarchy (ICLR 2023)",
    rows=tuple(
        _row(problem, variant) for problem in SCORES for variant in MODELS if problem in TRIED or variant != "fixed"
    ),
    claims=tuple(
        Claim(
            task=_title(problem),
            says=f"T(n) loops beat {MODELS[other]} at unseen lengths.",
            first=_words(other, problem),
            second=_words("looped", problem),
            groups=GROUPS,
        )
        for problem in SCORES
        for other in ("fixed", "layers")
        if problem in TRIED or other != "fixed"
    ),
    differs=(
        "The paper has no looped transformer. Its transformer is an encoder with five layers; see the recipes for what "
        "differs.",
        "Scores are the mean token accuracy at lengths that were not trained, here 20, 24, ..., 40 after 1 to 16. The "
        "paper's are over 41 to 500 after 1 to 40, of the best run. They are quoted from memory and unchecked.",
        "T(n) is the length n, the product of both lengths for multiplication, and the squared number of bits of a "
        "root. The paper gives none; this is a choice.",
    ),
    examples=128,
    published=(
        Published(
            caption="Score of the paper's best run at lengths 41 to 500, in percent (from memory, unchecked). 90 "
            "or more counts as solved.",
            columns=("problem", "RNN", "Stack-RNN", "Tape-RNN", "transformer", "LSTM"),
            rows=tuple((_title(problem), *map(str, scores)) for problem, (_, *scores) in SCORES.items()),
        ),
    ),
)
