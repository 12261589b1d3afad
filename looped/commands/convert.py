"""`looped convert`."""

import dataclasses
import shlex
from pathlib import Path
from typing import Literal

from tyro.conf import Positional

from looped.commands.arguments import command
from looped.commands.output import say
from looped.config import ScheduleConfig


def convert(
    run: Positional[Path],
    out: Path,
    loops: int,
    lora_rank: int = 0,
    init: Literal["average", "stepwise", "lower"] = "average",
) -> None:
    """Turn a trained standard model into a looped one: looped convert runs/mine --loops 3 --out runs/looped.

    Its N layers become N / loops layers, each used `loops` times (Bae et al., 2025). The new run folder has no steps of
    training, and the option `--from` of `looped train` continues from it.

    Args:
        run: a run folder whose model applies its core once.
        out: the new run folder.
        loops: number of loops, a divisor of the number of layers.
        lora_rank: rank of the changes of each matrix in each loop; 0 shares all weights, d_model loses nothing.
        init: the shared weights. average: the mean of the layers that one layer stands for; stepwise: layers at equal
            distances, with the first and the last; lower: the first layers.
    """
    from looped.models.loopify import loopify
    from looped.training.checkpoint import load_run
    from looped.training.constructed import write_run

    config, model, step = load_run(run)
    made = loopify(model, loops, init=init, lora_rank=lora_rank)
    rank = f", changes of rank {lora_rank} in each loop" if lora_rank else ""
    note = f"Not trained: `looped convert` made it of {run}, step {step}; init={init}{rank}."
    train = dataclasses.replace(
        config.train, steps=0, device="cpu", devices=1, precision="fp32", accumulation=1, recompute="none"
    )
    new = dataclasses.replace(
        config, note=note, model=made.config, train=train, schedule=ScheduleConfig(), start=None,
        optim=dataclasses.replace(config.optim, ema_decay=None),
    )  # fmt: skip
    summary = write_run(new, made, out)
    say(f"{out}: {made.config.core_layers} layers, {loops} loops, {summary['best']['metric']} "
        f"{summary['best']['value']:.4f} on validation examples, without training")  # fmt: skip
    sizes = {"core_layers": made.config.core_layers, "num_loops": loops, "lora_rank": lora_rank}
    words = [word for name, value in sizes.items() for word in (f"--model.{name.replace('_', '-')}", str(value))]
    say(f"continue with: {shlex.join(['looped', 'train', config.recipe, '--from', str(out), *words])}")


main = command(convert)
