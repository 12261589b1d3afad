"""Recipes for language modelling: the paper's WikiText-103 runs, baselines of equal cost, and runs for a CPU.

The user gives the text with --task.train-files, --task.validation-files and --task.test-files, or with --task.dataset.
"""

import dataclasses
from typing import Literal

from looped.config import ModelConfig, OptimConfig, RunConfig, TrainConfig
from looped.costs.baselines import match
from looped.recipes.reasoning import Variant
from looped.tasks.text import TextConfig

GPT2_VOCABULARY, PADDED_VOCABULARY = 50_257, 50_304


def language(variant: Variant) -> RunConfig:
    """Effective depth 6 at width 128, for about ten minutes on a CPU and any text of a few megabytes.

    A byte-pair encoding of only 4,096 tokens is trained on the text. With a larger vocabulary, most weights would be
    embeddings of rare words. All variants get the same windows in the same order, and their blocks are the same.
    """
    model = ModelConfig(
        causal=True,
        d_model=128,
        num_heads=4,
        core_layers=6 if variant == "standard" else 1,
        num_loops=1 if variant == "standard" else 6,
        modulation="scale_gate" if variant == "timestep" else "none",
        gate_offset=1 if variant == "timestep" else 0,
        tie_embeddings=True,
    )
    return RunConfig(
        note="Sized for ten minutes on a CPU. Give the text with --task.train-files. No published counterpart.",
        model=model,
        task=TextConfig(tokenizer="bpe", bpe_size=4096, context=128, document="paragraph"),
        optim=OptimConfig(learning_rate=2e-3, betas=(0.9, 0.95), weight_decay=0.1, warmup_steps=100),
        train=TrainConfig(steps=1000, batch_size=16, eval_every=250, eval_examples=64, save_every=1000, log_every=50),
    )


def wikitext(variant: Variant, published: bool, released: bool = False) -> RunConfig:
    """WikiText-103 with GPT-2's tokens (Xu & Sato 2025, Table 4): one layer looped 24 times, against 12 layers.

    Published: the public code's looped baseline takes attention values from the raw state and has no norm before its
    feed-forward layer. Norms inside the looped layers have no gain. The vocabulary is padded. An end-of-text token
    follows every line. Corrected: one block for all variants, pre-RMSNorm with gain, the exact vocabulary, and an
    end-of-text token only after each file. `released` is the only standard model with public settings: 6 layers of
    width 512.
    """
    model = ModelConfig(
        vocab_size=PADDED_VOCABULARY if published else GPT2_VOCABULARY,
        output_size=PADDED_VOCABULARY if published else GPT2_VOCABULARY,
        max_seq_len=1024,
        causal=True,
        d_model=512 if released else 768,
        num_heads=8 if released else 12,
        core_layers=(6 if released else 12) if variant == "standard" else 1,
        num_loops=1 if variant == "standard" else 24,
        modulation="scale_gate" if variant == "timestep" else "none",
        tie_embeddings=True,
    )
    if published and variant == "standard":
        model = dataclasses.replace(model, norm="layer")
    elif published:
        model = dataclasses.replace(model, norm_gain=False, initialisation_depth=12)
        if variant == "looped":
            model = dataclasses.replace(model, values="state", feedforward_norm=False)
    return RunConfig(
        note="Give WikiText-103 with --task.train-files, --task.validation-files and --task.test-files, and GPT-2's "
        "tokenizer with --task.tokenizer. The public code validated every 100 steps; here every 1,000. "
        + ("With the public code's quirks." if published else "Without its quirks."),
        model=model,
        task=TextConfig(tokenizer="gpt2", context=1024, version="published" if published else "corrected"),
        optim=OptimConfig(
            learning_rate=2e-4, betas=(0.9, 0.95), weight_decay=1e-4, warmup_steps=2000, final_fraction=0.3
        ),
        train=TrainConfig(
            steps=100_000,
            batch_size=48,
            seed=1337,
            precision="bf16",
            eval_every=1000,
            eval_examples=200 * 48 if published else 480,
            save_every=1000,
        ),
    )


def handicapped() -> RunConfig:
    """`wikitext-looped` with the attention values and the missing norm of the published baseline, all else equal.

    It measures how much these two handicaps cost the published baseline.
    """
    run = wikitext("looped", published=False)
    return dataclasses.replace(run, model=dataclasses.replace(run.model, values="state", feedforward_norm=False))


def matched(looped: RunConfig, by: Literal["parameters", "flops"]) -> RunConfig:
    """A standard transformer with the same cost as the looped run (see `looped.costs.baselines`).

    Args:
        looped: a run with all sizes set, including those that depend on the task (vocabulary and context).
        by: the cost that is matched, parameters or FLOPs.
    """
    found = match(looped.model, by)
    note = f"Standard, {found.ratio:.3f} times the {by} of {looped.recipe}. "
    return dataclasses.replace(looped, model=found.config, note=note + looped.note)
