"""ALBERT (Lan et al., 2020): all layers share all weights, or only those of attention, or only the others."""

from functools import partial
from typing import Literal

from looped.config import ModelConfig, OptimConfig, RunConfig, TrainConfig
from looped.recipes.work import Claim, Published, Row, Work
from looped.tasks.p_hop import PHopConfig

Shared = Literal["all", "attention", "feedforward", "none"]
SHARED: tuple[Shared, ...] = ("none", "attention", "feedforward", "all")


def small(shared: Shared) -> RunConfig:
    """2-hop induction on 16 letters with 4 layers, as in `takase-cycle-4`."""
    model = ModelConfig(d_model=48, num_heads=3, core_layers=4, causal=True, positions="rotary")
    if shared != "none":
        model = ModelConfig(
            d_model=48, num_heads=3, num_loops=4, core_tied=shared, causal=True, positions="rotary",
        )  # fmt: skip
    return RunConfig(
        note="A task of ours, because the published model learns from masked text. The embedding is not factorised.",
        model=model,
        task=PHopConfig(hops=2, length=16, loss="dense"),
        optim=OptimConfig(optimizer="muon", learning_rate=1e-2),
        train=TrainConfig(steps=400, batch_size=32, eval_every=100, eval_examples=512, workers=0, precision="fp32"),
    )


RECIPES = {f"albert-{shared}": partial(small, shared) for shared in SHARED}
TASK = "2-hop induction, 16 letters, 4 layers"
WORK = Work(
    title="ALBERT: A Lite BERT for Self-supervised Learning of Language Representations",
    source="Lan et al. (2020)",
    rows=tuple(
        Row(task=TASK, model=f"shared: {shared}", words=(f"albert-{shared}",), loops=(1 if shared == "none" else 4,))
        for shared in SHARED
    ),
    claims=(
        Claim(
            task=TASK,
            says="Sharing attention costs less than sharing the feed-forward layers.",
            first=("albert-feedforward",),
            second=("albert-attention",),
        ),
        Claim(task=TASK, says="Not sharing beats sharing all.", first=("albert-all",), second=("albert-none",)),
    ),
    differs=(
        "The task is p-hop induction; the published models learn from masked text and are then fine-tuned.",
        "The embedding is not factorised, and there is no run of the published size.",
    ),
    published=(
        Published(
            caption="Mean development score of the base model, embeddings of width 128 (Lan et al. 2020; from memory, "
            "unchecked)",
            columns=("shared", "parameters", "score"),
            rows=(
                ("none", "89M", "81.6"), ("attention", "64M", "81.7"), ("feedforward", "38M", "80.2"),
                ("all", "12M", "80.1"),
            ),
        ),
    ),
)  # fmt: skip
