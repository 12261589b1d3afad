"""`looped open`."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from tyro.conf import Positional

from looped.commands.arguments import command
from looped.commands.output import say
from looped.config import OptimConfig, RunConfig, TrainConfig
from looped.strict import at_least, check
from looped.tasks import TASKS

if TYPE_CHECKING:
    from looped.pretrained import Opened

CONTEXT = 1024
EXAMPLES = 16


def open(
    source: Positional[str],
    out: Path,
    text: tuple[str, ...] = (),
    context: int | None = None,
    document: Literal["file", "paragraph", "line"] = "paragraph",
    examples: int = EXAMPLES,
) -> None:
    """Read a model that others trained into a run folder: looped open MODEL --out runs/mine.

    Families: Llama (also SmolLM2 and TinyLlama), Mistral, Qwen 2 and 3, OLMo 2, GPT-2; and the looped ones Ouro, Huginn
    and HRM-Text. Without a text, the run can generate; other commands need one.

    Args:
        source: a folder with config.json and model.safetensors, a .gguf file, or a name on the Hugging Face hub.
        out: the new run folder.
        text: files of text for perplexity and training; their documents are split into training, validation and test.
        context: tokens in a window of the text; the default is 1024, or the most that the model takes.
        document: the unit of the text that an end of text follows.
        examples: number of validation windows.
    """
    from looped.pretrained import open_model
    from looped.training.constructed import write_run

    at_least(1, context=context, examples=examples)
    opened = open_model(source)
    run = settings(source, opened, text=text, context=context, document=document, examples=examples)
    summary = write_run(run, opened.model, out, take_tokenizer=True)
    c, task = run.model, cast(Any, run.task)
    layers = c.prelude_layers + c.core_layers + c.latent_layers + c.coda_layers
    say(
        f"{out}: {opened.family}, {layers} layers of width {c.d_model}, {c.num_heads} heads ({c.kv_heads} of keys), "
        f"{c.num_loops} {'loop' if c.num_loops == 1 else 'loops'}, {c.vocab_size:,} tokens, at most {c.max_seq_len:,} "
        f"positions, {summary['parameters']:,} parameters"
    )
    if opened.note:
        say(f"note: {opened.note}")
    if not text:
        say("without --text: `looped generate` works; evaluate, calibrate, inspect and train need a text")
        return
    say(f"validation perplexity {summary['best']['value']:.4f} on {examples} windows of {task.context} tokens")
    say(f"continue with: {shlex.join(['looped', 'train', '--from', str(out)])} --train.steps STEPS")


def settings(
    source: str,
    opened: "Opened",
    *,
    text: tuple[str, ...],
    context: int | None = None,
    document: str = "paragraph",
    examples: int = EXAMPLES,
) -> RunConfig:
    """The settings of a run of 0 steps with an opened model, whose task names the tokenizer of its source.

    Raises:
        ValueError: the model does not continue texts, or there is no tokenizer for it.
    """
    from looped.pretrained.end_of_text import end_of_text

    model = opened.model.config
    if not model.causal:
        raise ValueError(f"{source}: family {opened.family}; expected a causal model, because {opened.note}")
    if opened.tokenizer is None:
        raise ValueError(f"{source}: no tokenizer that we can read; expected a tokenizer.json in its folder")
    longest = model.max_seq_len or CONTEXT
    check((context or 1) <= longest, "context", context, f"at most {longest}, the positions of the model")
    text_settings: Any = TASKS["text"].Config
    task = text_settings(
        train_files=text,
        tokenizer=str(opened.tokenizer),
        end_token=end_of_text(opened.tokenizer),
        context=context or min(CONTEXT, longest),
        document=document,
    )
    return RunConfig(
        recipe=opened.family,
        note=f"Not trained here: `looped open` read it from {source}.",
        model=model,
        task=task,
        optim=OptimConfig(learning_rate=1e-4, betas=(0.9, 0.95), weight_decay=0.1, warmup_steps=20),
        train=TrainConfig(
            steps=0,
            batch_size=8,
            loss="halting" if model.halting != "none" else "last",
            eval_examples=examples,
            device="cpu",
            precision="fp32",
        ),
    )


main = command(open)
