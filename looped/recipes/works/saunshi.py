"""Latent thoughts: a block of k layers looped L times against k and against kL layers (Saunshi et al., 2025)."""

import dataclasses
from functools import partial
from typing import Any

from looped.config import ModelConfig, OptimConfig, RunConfig, TrainConfig
from looped.recipes.work import Claim, Published, Row, Words, Work
from looped.tasks import TaskConfig
from looped.tasks.i_gsm import IGSMConfig
from looped.tasks.n_ary_addition import NAryAdditionConfig
from looped.tasks.p_hop import PHopConfig
from looped.tasks.text import TextConfig

SILENT = (
    "The publication is silent on the block, the warm-up and the tokens: those here are choices. It used Adafactor, "
    "which this library does not have, and here it is AdamW."
)
OWN_CHOICE = {
    "n_ary_addition": " It reports the best of 3 seeds.",
    "p_hop": " It describes the sampler in words only; words with repeats fit its score of one layer.",
    "i_gsm": " Its problems came from the sampler of Ye et al. (2024); that here is simpler, a choice too.",
}


def small(
    task: TaskConfig,
    layers: int,
    loops: int,
    steps: int,
    batch_size: int,
    regularisers: tuple[tuple[str, float], ...] = (),
) -> RunConfig:
    """A run of seconds on a CPU. The vanilla loop has no injection and no timestep, and the loss is on its last loop.

    Muon at this learning rate needs far fewer steps than AdamW (docs/log.md).
    """
    return RunConfig(
        note="Sized for seconds on a CPU. Not published: Muon, this width, and for p-hop the loss at every letter that "
        "has an answer.",
        model=ModelConfig(
            d_model=64, num_heads=4, core_layers=layers, num_loops=loops, causal=True, positions="rotary"
        ),
        task=task,
        optim=OptimConfig(optimizer="muon", learning_rate=1e-2),
        train=TrainConfig(
            steps=steps, batch_size=batch_size, eval_every=steps // 10, eval_examples=512, regularisers=regularisers
        ),
    )  # fmt: skip


def published(task: TaskConfig, layers: int, loops: int) -> RunConfig:
    """Saunshi et al. (2025), Section 2: d=128, 8 heads, rotary positions, 200,000 steps of 256 new examples.

    n-ary addition has d=256, a learning rate of 5e-3 and batches of 1,024.
    """
    addition = task.name == "n_ary_addition"
    return RunConfig(
        note=SILENT + OWN_CHOICE.get(task.name, ""),
        model=ModelConfig(
            d_model=256 if addition else 128, num_heads=8, core_layers=layers, num_loops=loops, causal=True,
            positions="rotary",
        ),
        task=task,
        optim=OptimConfig(learning_rate=5e-3 if addition else 1e-3, warmup_steps=2000),
        train=TrainConfig(steps=200_000, batch_size=1024 if addition else 256, eval_every=5000, save_every=5000),
    )  # fmt: skip


def language(layers: tuple[int, int, int], loops: int, paper: bool, period: int | None = None) -> RunConfig:
    """Language modelling with layers before, inside and after the loop (middle looping), or with the regulariser.

    Section 3 of Saunshi et al. (2025): 24 effective layers, d=2,048, 250 billion tokens of the Pile. `period` is k of
    the regulariser, whose published weight is 10.
    """
    prelude, core, coda = layers
    sizes: dict[str, Any] = (
        {"d_model": 2048, "num_heads": 32, "d_ff": 5120} if paper else {"d_model": 128, "num_heads": 4}
    )
    model = ModelConfig(
        causal=True, positions="rotary", prelude_layers=prelude, core_layers=core, coda_layers=coda, num_loops=loops,
        tie_embeddings=True, **sizes,
    )  # fmt: skip
    regularisers = ((f"cosine:{period}", 10.0),) if period else ()
    if paper:
        return RunConfig(
            note="Give the Pile with --task.train-files or --task.dataset, and a tokenizer. " + SILENT,
            model=model,
            task=TextConfig(tokenizer="gpt2", context=1280),
            optim=OptimConfig(learning_rate=1e-2, warmup_steps=4000),
            train=TrainConfig(
                steps=400_000, batch_size=512, eval_every=5000, save_every=5000, regularisers=regularisers
            ),
        )
    return RunConfig(
        note="Sized for minutes on a CPU. Give the text with --task.train-files.",
        model=model,
        task=TextConfig(tokenizer="bpe", bpe_size=4096, context=128, document="paragraph"),
        optim=OptimConfig(learning_rate=2e-3, betas=(0.9, 0.95), weight_decay=0.1),
        train=TrainConfig(
            steps=1000, batch_size=16, eval_every=250, eval_examples=64, save_every=1000, regularisers=regularisers
        ),
    )


HOPS = PHopConfig(hops=2, length=24, loss="dense")
ADDITION = NAryAdditionConfig(operands=(2, 4), eval_operands=(2, 3, 4), digits=2)
GRAPH = IGSMConfig(levels=2, max_entities=2, min_parameters=2, max_parameters=4, min_operations=1, max_operations=2)
RECIPES = {
    "saunshi-p-hop": partial(small, HOPS, 1, 3, 750, 32),
    "saunshi-p-hop-repeats": partial(small, dataclasses.replace(HOPS, version="repeats"), 1, 3, 750, 32),
    "saunshi-p-hop-cosine-1": partial(small, HOPS, 3, 1, 750, 32, (("cosine:1", 1.0),)),
    "saunshi-p-hop-cosine-10": partial(small, HOPS, 3, 1, 750, 32, (("cosine:1", 10.0),)),
    "saunshi-p-hop-published": partial(published, PHopConfig(version="repeats"), 1, 6),
    "saunshi-addition": partial(small, ADDITION, 2, 3, 1200, 64),
    "saunshi-addition-published": partial(published, NAryAdditionConfig(), 2, 6),
    "saunshi-i-gsm": partial(small, GRAPH, 1, 3, 1500, 64),
    "saunshi-i-gsm-published": partial(published, IGSMConfig(version="published"), 1, 8),
    "saunshi-language-middle": partial(language, (1, 1, 1), 4, False),
    "saunshi-language-middle-published": partial(language, (4, 4, 4), 4, True),
    "saunshi-language-cosine": partial(language, (0, 6, 0), 1, False, 2),
    "saunshi-language-cosine-published": partial(language, (0, 24, 0), 1, True, 4),
}


def _triple(
    task: str,
    name: str,
    sizes: tuple[int, int],
    published: tuple[int, int] | None = None,
    paper: tuple[str, str, str] | None = None,
    groups: tuple[str, ...] = (),
) -> tuple[list[Row], Claim]:
    """The rows (k x 1), (k x L) and (kL x 1), and the claim that the second beats the first.

    Args:
        sizes: k and L.
        published: the published ones.
        paper: the published scores of the three models.
    """
    old = _models(f"{name}-published", *published) if published else [None] * 3
    (one, looped, deep), (k, loops) = _models(name, *sizes), sizes
    names = f"({k} x 1)", f"({k} x {loops})", f"({k * loops} x 1)"
    rows = [
        Row(task=task, model=model, words=words, groups=groups, paper=score, published=published_words)
        for model, words, score, published_words in zip(
            names, (one, looped, deep), paper or [None] * 3, old, strict=True
        )
    ]
    claim = Claim(
        task=task, says=f"{names[1]} beats {names[0]}, which has as many parameters.", first=one, second=looped,
        goal=deep, groups=groups,
    )  # fmt: skip
    return rows, claim


def _models(recipe: str, k: int, loops: int) -> list[Words]:
    sizes = (k, 1), (k, loops), (k * loops, 1)
    return [(recipe, "--model.core-layers", str(layers), "--model.num-loops", str(n)) for layers, n in sizes]


HOP_TASK = "p-hop, p=2, n=24"
TRIPLES = [
    _triple(HOP_TASK, "saunshi-p-hop", (1, 3), (1, 6), ("0.489 (p=16)", "0.999 (p=16)", "0.999 (p=16)")),
    _triple("p-hop, p=2, n=24, with repeats", "saunshi-p-hop-repeats", (1, 3)),
    _triple(
        "addition of 2 or 4 numbers of 2 digits", "saunshi-addition", (2, 3), (2, 6),
        ("0.858 (n=8)", "1.000 (n=8)", "1.000 (n=8)"), ("2", "4"),
    ),
    _triple("addition of 3 numbers, a number that training does not have", "saunshi-addition", (2, 3), groups=("3",)),
    _triple("i-GSM with 2 to 4 parameters", "saunshi-i-gsm", (1, 3), (1, 8), ("0.245", "0.732", "0.732")),
]  # fmt: skip
COSINE = [
    Row(task=HOP_TASK, model=f"(3 x 1), cosine:1 with weight {weight}", words=(f"saunshi-p-hop-cosine-{weight}",))
    for weight in (1, 10)
]
WORK = Work(
    title="Reasoning with latent thoughts",
    source="Saunshi, Dikkala, Li, Kumar & Reddi (ICLR 2025), Sections 2 to 4",
    rows=(*(row for rows, _ in TRIPLES for row in rows), *COSINE),
    claims=tuple(claim for _, claim in TRIPLES),
    differs=(
        "(k x L) is a block of k layers looped L times. The published p-hop has p=16 or 32, n=256 and 200,000 steps of "
        "256, with the loss at the last letter; here p=2, n=24 and 750 steps of 32, with the loss at every letter that "
        "has an answer, and Muon.",
        "The published addition has n in 2, 4, 8, 16, 32, with 3 digits, d=256 and 200,000 steps of 1,024. Here "
        "n is 2 or 4, with 2 digits, d=64 and 1,200 steps of 64. An answer counts if every character and the end are "
        "right, each given the right ones before it, which is the same as greedy decoding of the right answer.",
        "The published i-GSM has 4 levels of entities, d=128 and 200,000 steps of 256. Here it has 2 levels, 2 to 4 "
        "parameters of which the query needs 1 or 2, d=64 and 1,500 steps of 64. The most frequent number is 19% of "
        "the answers.",
        "The score of a guess from the last letter is the column majority baseline of the scores.",
        "The published words are likely drawn with repeats: 25% of them are trivial. The words here have none, except "
        "in the rows that say so.",
        "The published sign of the cosine regulariser would push layers apart. Here it is the opposite one.",
    ),
    published=(
        Published(
            caption="p-hop, accuracy in % (chance 25), Saunshi et al. (2025).",
            columns=("model", "p=16", "p=32"),
            rows=(
                ("(6 x 1)", "99.9", "99.6"),
                ("(1 x 1) / (1 x 6)", "48.9 / 99.9", "49.0 / 99.5"),
                ("(2 x 1) / (2 x 3)", "68.8 / 99.9", "59.4 / 99.8"),
                ("(3 x 1) / (3 x 2)", "97.2 / 99.9", "73.0 / 99.5"),
            ),
        ),
        Published(
            caption="n-ary addition of 3-digit operands, accuracy in %, best of 3 seeds, Saunshi et al. (2025).",
            columns=("model", "n=8", "n=16", "n=24", "n=32"),
            rows=(
                ("(12 x 1)", "100.0", "100.0", "100.0", "100.0"),
                ("(1 x 1) / (1 x 12)", "0.1 / 99.9", "0.1 / 100.0", "0.1 / 99.9", "0.0 / 99.6"),
                ("(2 x 1) / (2 x 6)", "85.8 / 100.0", "71.5 / 99.8", "49.3 / 99.7", "38.8 / 99.5"),
                ("(3 x 1) / (3 x 4)", "97.2 / 100.0", "78.5 / 99.1", "69.2 / 97.0", "60.7 / 96.6"),
            ),
        ),
        Published(
            caption="i-GSM, accuracy in % (chance 14), Saunshi et al. (2025).",
            columns=("(8x1)", "(1x1)", "(1x2)", "(1x4)", "(1x8)", "(2x1)", "(2x2)", "(2x4)", "(4x1)", "(4x2)"),
            rows=(("73.2", "24.5", "52.3", "69.9", "73.2", "54.0", "66.9", "73.6", "71.3", "71.6"),),
        ),
        Published(
            caption="The Pile, 24 effective layers of width 2,048: perplexity, and accuracy in % of closed-book and "
            "open-book questions, math word problems, all 15 tasks, and reasoning primitives. Saunshi et al. (2025).",
            columns=("model", "perplexity", "closed", "open", "math", "all 15", "primitives"),
            rows=(
                ("(24 x 1)", "7.40", "11.2", "33.9", "29.3", "26.0", "47.5"),
                ("(12 x 1)", "8.16", "8.2", "26.9", "26.7", "21.8", "35.7"),
                ("(12 x 2)", "7.90", "9.3", "30.8", "34.3", "26.5", "51.2"),
                ("middle (4, 4 x 4, 4)", "7.81", "11.0", "32.3", "28.3", "25.0", "56.5"),
                ("(8 x 1)", "8.75", "6.3", "22.7", "17.1", "16.1", "33.0"),
                ("(8 x 3)", "8.19", "8.5", "30.8", "28.4", "23.9", "55.3"),
                ("(6 x 1)", "9.25", "4.0", "19.3", "17.7", "14.6", "24.1"),
                ("(6 x 4)", "8.42", "8.2", "28.7", "29.8", "23.7", "56.1"),
                ("(4 x 1)", "10.12", "1.8", "13.8", "9.7", "9.0", "19.4"),
                ("(4 x 6)", "8.79", "6.7", "26.2", "24.8", "20.4", "56.9"),
                ("(24 x 1), cosine:4, weight 1", "7.41", "11.2", "34.8", "31.6", "27.2", "42.5"),
                ("(24 x 1), cosine:4, weight 10", "7.38", "12.5", "36.2", "36.4", "30.0", "57.2"),
                ("(24 x 1), cosine:6, weight 10", "7.40", "12.0", "35.8", "31.0", "27.5", "55.8"),
                ("(24 x 1), cosine:8, weight 10", "7.43", "11.3", "34.4", "32.8", "27.6", "56.3"),
                ("(24 x 1), cosine:12, weight 10", "7.51", "10.1", "34.1", "32.3", "27.0", "50.7"),
            ),
        ),
    ),
)
