"""`looped loopify`."""

import dataclasses
import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tyro.conf import Positional

from looped.commands.arguments import command
from looped.commands.output import say
from looped.config import RunConfig, ScheduleConfig
from looped.run_folder import CHECKPOINTS
from looped.strict import check

if TYPE_CHECKING:
    from looped.models.transformer import LoopedTransformer


def loopify(
    source: Positional[str],
    out: Path,
    loops: int = 2,
    core: str | None = None,
    init: Literal["repeat", "average", "stepwise", "lower"] = "repeat",
    lora_rank: int = 0,
    modulation: Literal["none", "scale_gate", "adaln_zero", "table", "rezero"] = "none",
    injection: Literal["none", "add", "concat"] = "none",
    text: tuple[str, ...] = (),
) -> None:
    """Turn a standard model into a looped one: looped loopify MODEL --core 13-16 --loops 2 --out RUN.

    The new run folder has no steps of training, and another training can start from it. Scores before and after are
    printed, because most ways to share layers destroy a model until it is trained.

    Args:
        source: a run folder, or a pretrained model as for `looped open`.
        out: the new run folder.
        loops: number of loops.
        core: first and last layer of the core, counted from 0, such as 13-16. By default the middle eighth with
            init=repeat, else all layers but the first and the last.
        init: repeat applies the core's layers `loops` times in place; one loop is then the source. The others replace
            N layers by N / loops (Bae et al., 2025). average: the mean of the layers that one layer stands for;
            stepwise: layers at equal distances, with the first and the last; lower: the first layers.
        lora_rank: rank of the changes of each matrix in each loop; 0 shares all weights, d_model loses nothing.
        modulation: vectors for each loop, which begin without effect.
        injection: how the input enters each loop. concat begins without effect; add changes all loops but the first.
        text: files of text for a model that is no run, for its perplexity and the training after it.
    """
    from looped.models.loopify import loopify as looped_model
    from looped.models.loopify import middle
    from looped.tasks import TASKS
    from looped.training.constructed import validated, write_run

    config, model, name = _source(source, text)
    layers = len(model.prelude) + len(model.core) + len(model.coda)
    chosen = middle(layers, init) if core is None else _layers(core)
    made = looped_model(
        model, loops, init=init, core=chosen, lora_rank=lora_rank, modulation=modulation, injection=injection
    )
    words = f"layers {chosen.start}-{chosen.stop - 1} of {layers}, {loops} loops, init={init}"
    words += f", changes of rank {lora_rank} in each loop" if lora_rank else ""
    before = dataclasses.replace(
        config,
        note=f"Not trained: `looped loopify` made it of {name}; {words}.",
        train=dataclasses.replace(
            config.train, steps=0, device="cpu", devices=1, precision="fp32", accumulation=1, recompute="none"
        ),
        schedule=ScheduleConfig(),
        start=None,
        optim=dataclasses.replace(config.optim, ema_decay=None),
    )
    copies = getattr(config.task, "tokenizer", "bytes") not in ("bytes", "bpe")
    best = write_run(dataclasses.replace(before, model=made.config), made, out, take_tokenizer=copies)["best"]
    say(f"{out}: {words}")
    if best is None:
        say("without --text: no perplexity is measured, and training needs a text")
        return
    task = TASKS[config.task.name](config.task)
    scores, examples = validated(before, model, task)
    say(
        f"{task.metric} {scores[task.metric]:.4f} before, {best['value']:.4f} after, without training, on "
        f"{int(examples.mask.sum()):,} scored tokens of {len(examples.inputs)} validation examples"
    )
    say(f"continue with: {shlex.join(['looped', 'train', '--from', str(out)])} --train.steps STEPS")


def _source(source: str, text: tuple[str, ...]) -> tuple[RunConfig, "LoopedTransformer", str]:
    """The settings, the model and a name of a run folder or of a model that others trained."""
    if (Path(source) / CHECKPOINTS).is_dir():
        from looped.training.checkpoint import load_run

        check(not text, "text", " ".join(text), "none for a run, whose task names its data")
        config, model, step = load_run(Path(source))
        return config, model, f"{source}, step {step}"
    from looped.commands.open import settings
    from looped.pretrained import open_model

    opened = open_model(source)
    return settings(source, opened, text=text), opened.model, source


def _layers(core: str) -> range:
    """The layers of a word such as 13-16."""
    if not (found := re.fullmatch(r"(\d+)(?:-(\d+))?", core)):
        raise ValueError(f"--core {core}: expected the first and the last layer, such as 13-16, or one layer")
    return range(int(found[1]), int(found[2] or found[1]) + 1)


main = command(loopify)
