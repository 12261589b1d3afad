"""Takase & Kiyono (2021): which layer uses which weights, if M sets of weights make N layers."""

import dataclasses
from functools import partial
from typing import Literal

from looped.config import ModelConfig, OptimConfig, RunConfig, TrainConfig
from looped.recipes.language import wikitext
from looped.recipes.work import Claim, Published, Row, Work
from looped.tasks.p_hop import PHopConfig

Order = Literal["cycle", "sequence", "reverse"]
ORDERS: tuple[Order, ...] = ("sequence", "cycle", "reverse")


def small(order: Order, loops: int) -> RunConfig:
    """2-hop induction on 16 letters with 2 layers of weights: all orders have equal weights, steps and examples."""
    return RunConfig(
        note="A task of ours, because the published ones are translation and WikiText-103.",
        model=ModelConfig(
            d_model=48, num_heads=3, core_layers=2, num_loops=loops, layer_order=order, causal=True, positions="rotary"
        ),
        task=PHopConfig(hops=2, length=16, loss="dense"),
        optim=OptimConfig(optimizer="muon", learning_rate=1e-2),
        train=TrainConfig(steps=400, batch_size=32, eval_every=100, eval_examples=512, workers=0, precision="fp32"),
    )


def published(order: Order, loops: int) -> RunConfig:
    """Their language model on WikiText-103, as far as the record says: 6 layers of weights, 50,000 updates."""
    run, note = wikitext("standard", published=False), "Give WikiText-103 as for `wikitext-standard`. "
    model = dataclasses.replace(
        run.model, d_model=1024, num_heads=8, core_layers=6, num_loops=loops, layer_order=order, norm="layer",
        bias=True, activation="relu", positions="sinusoidal", max_seq_len=512,
    )  # fmt: skip
    return dataclasses.replace(
        run,
        note=note + "Published: adaptive inputs over words, dropout and Admin initialisation, which are absent here; "
        "width, heads, context and batch are our choice. The learning rate falls linearly, not with its inverse root.",
        model=model,
        task=dataclasses.replace(run.task, context=512),
        optim=OptimConfig(learning_rate=2e-3, betas=(0.9, 0.98), warmup_steps=8000, schedule="linear"),
        train=dataclasses.replace(run.train, steps=50_000, batch_size=64, seed=0),
    )


RECIPES = {f"takase-{order}-{2 * loops}": partial(small, order, loops) for order in ORDERS for loops in (2, 4)} | {
    f"takase-{order}-published": partial(published, order, 2) for order in ORDERS
}
TASK = "2-hop induction, 16 letters, M=2"
PERPLEXITY = {"sequence": "19.69", "cycle": "19.69", "reverse": "20.24"}
WORK = Work(
    title="Lessons on Parameter Sharing across Layers in Transformers",
    source="Takase & Kiyono (2021)",
    rows=tuple(
        Row(
            task=TASK,
            model=f"{order}, N={2 * loops}",
            words=(f"takase-{order}-{2 * loops}",),
            loops=(loops,),
            published=(f"takase-{order}-published",) if loops == 2 else None,
        )
        for loops in (2, 4)
        for order in ORDERS
    ),
    claims=tuple(
        Claim(
            task=TASK,
            says=f"{order} scores higher than sequence, N={2 * loops}.",
            first=(f"takase-sequence-{2 * loops}",),
            second=(f"takase-{order}-{2 * loops}",),
        )
        for loops in (2, 4)
        for order in ("cycle", "reverse")
    ),
    differs=(
        "The task is p-hop induction instead of translation or WikiText-103, and models have 2 layers of weights.",
        "At this size no order is expected to win. A claim holds if the paired difference over seeds excludes zero.",
    ),
    published=(
        Published(
            caption="WMT'16 En-De, BLEU, mean of newstest 2010-2016 over 3 seeds (Takase & Kiyono 2021, read in a "
            "secondary text)",
            columns=("model", "M", "N", "parameters", "BLEU"),
            rows=(
                ("vanilla", "6", "6", "61M", "26.48"),
                ("universal, wide", "1", "6 / 12", "63M", "26.90 / 26.77"),
                ("sequence / cycle / reverse", "6", "12", "61M", "27.13 / 27.04 / 27.08"),
                ("sequence / cycle / reverse", "6", "18", "61M", "27.02 / 27.25 / 27.31"),
            ),
        ),
        Published(
            caption="WikiText-103, test perplexity, 121M parameters (Takase & Kiyono 2021, read in a secondary text)",
            columns=("model", "M", "N", "perplexity"),
            rows=(
                ("vanilla", "6", "6", "21.13"),
                ("universal", "1", "6", "23.84"),
                *((order, "6", "12", PERPLEXITY[order]) for order in ORDERS),
            ),
        ),
    ),
)
