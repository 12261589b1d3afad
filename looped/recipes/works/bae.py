"""Bae et al. (2025), Relaxed Recursive Transformers: a standard model as a loop with low-rank changes for each loop."""

from functools import partial

from looped.config import ModelConfig, OptimConfig, RunConfig, TrainConfig
from looped.recipes.work import Claim, Published, Row, Work
from looped.tasks.p_hop import PHopConfig

TASK = "2-hop induction, 16 letters, trained from random weights"


def small(layers: int, loops: int, rank: int = 0, steps: int = 400, rate: float = 1e-2) -> RunConfig:
    """2-hop induction on 16 letters with 6 layers: their own, or 3 layers looped twice with changes of a rank."""
    return RunConfig(
        note="A task of ours. Published: Gemma 2B and others, uptrained on 15 or 60 billion tokens of text.",
        model=ModelConfig(
            d_model=48, num_heads=3, core_layers=layers, num_loops=loops, lora_rank=rank, causal=True,
            positions="rotary",
        ),
        task=PHopConfig(hops=2, length=16, loss="dense"),
        optim=OptimConfig(optimizer="muon", learning_rate=rate, warmup_steps=min(100, steps // 5)),
        train=TrainConfig(steps=steps, batch_size=32, eval_every=min(100, steps), eval_examples=512, workers=0,
                          precision="fp32"),
    )  # fmt: skip


RECIPES = {
    "bae-standard": partial(small, 6, 1),
    "bae-tied": partial(small, 3, 2),
    "bae-rank-4": partial(small, 3, 2, 4),
    "bae-rank-8": partial(small, 3, 2, 8),
    # For `looped train bae-uptrain --from RUN --model.lora-rank R`, with a RUN of `looped loopify`.
    "bae-uptrain": partial(small, 3, 2, steps=60, rate=5e-3),
}
WORK = Work(
    title="Relaxed Recursive Transformers: Effective Parameter Sharing with Layer-wise LoRA",
    source="Bae et al. (2025)",
    rows=(
        Row(task=TASK, model="6 x 1, not shared", words=("bae-standard",), loops=(1,)),
        Row(task=TASK, model="3 x 2, tied", words=("bae-tied",), loops=(2,)),
        Row(task=TASK, model="3 x 2, rank 4", words=("bae-rank-4",), loops=(2,)),
        Row(task=TASK, model="3 x 2, rank 8", words=("bae-rank-8",), loops=(2,)),
    ),
    claims=(
        Claim(task=TASK, says="Changes of rank 8 help a tied model.", first=("bae-tied",), second=("bae-rank-8",)),
        Claim(task=TASK, says="Six layers of their own beat three tied ones.", first=("bae-tied",),
              second=("bae-standard",)),
    ),
    differs=(
        "The models of this table begin with random weights. The published ones are converted from a trained model, as "
        "`looped loopify` does; `benchmarks/conversion.py` compares ranks and initial weights.",
        "No run has the published sizes: Gemma 2B has multi-query attention, which is absent here. Distillation is "
        "absent too.",
        "The norms and biases of each loop are its own (our choice).",
    ),
    published=(
        Published(
            caption="What Bae et al. (2025) report, from a secondary text; no table was at hand",
            columns=("claim", "source"),
            rows=(
                ("A recursive Gemma of half the size gains up to 13.5 points over one trained alone.", "unchecked"),
                ("Ranks are 64 to 512; with rank 512 the model is nearly the original.", "unchecked"),
                ("Best initial weights: stepwise if tied, average with changes.", "from memory, unchecked"),
            ),
        ),
    ),
)  # fmt: skip
