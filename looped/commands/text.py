"""Commands for language models."""

import sys
from pathlib import Path
from typing import Literal

import torch
import tyro

from looped.models.generation import generate as continuation
from looped.tasks.text import Text
from looped.training.checkpoint import load_run
from looped.training.run_folder import read_config


def generate(
    run: tyro.conf.Positional[Path],
    *,
    prompt: str,
    tokens: int = 100,
    temperature: float = 1.0,
    top_k: int | None = None,
    seed: int = 0,
    num_loops: int | None = None,
    checkpoint: Literal["best", "last"] = "best",
) -> None:
    """Let a trained language model continue a text: looped generate runs/mine --prompt "Once upon a time".

    Args:
        run: the run folder, of a recipe on text.
        prompt: the beginning of a document.
        tokens: to write, at most; an end of text ends it.
        temperature: below 1 keeps closer to the most probable; 0 always takes that.
        top_k: choose among so many of the most probable tokens; none is all.
        seed: another one, another text.
        num_loops: none is as trained.
        checkpoint: the best by validation, or the last.
    """
    config = read_config(run)
    if config.task.name != "text":
        raise ValueError(f"{run}: trained on {config.task.name}; expected a run on text")
    if num_loops is not None and num_loops < 1:
        raise ValueError(f"num_loops={num_loops}: expected at least 1")
    config, model, _ = load_run(run, checkpoint)
    assert config.task.name == "text"
    task = Text(config.task)
    tokenizer, end = task.tokenizer, task.tokenizer.end
    stream = continuation(
        model,
        torch.from_numpy(task.prompt(prompt)),
        count=tokens,
        generator=torch.Generator().manual_seed(seed),
        temperature=temperature,
        top_k=top_k,
        vocab_size=tokenizer.vocab_size,
        num_loops=num_loops,
    )
    ids, written = [], prompt
    for token in stream:
        if token == end:
            break
        if not ids:
            print(prompt, end="")
        ids.append(token)
        text = prompt + tokenizer.decode(ids)
        if not text.endswith("\ufffd"):  # the rest of a character may follow
            print(text[len(written) :], end="", flush=True)
            written = text
    print((prompt + tokenizer.decode(ids))[len(written) :] if ids else prompt)
    sys.stdout.flush()
