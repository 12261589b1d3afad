"""The settings with which a training fits on many GPUs, the fastest of them, and what larger sizes would break."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from looped.config import RunConfig
from looped.costs.cluster import Setting, Strategy, setting
from looped.costs.count import loops_with_gradient
from looped.costs.gpus import GPU

if TYPE_CHECKING:
    from looped.models.iteration import Recompute

LEVELS: tuple["Recompute", ...] = ("none", "loop", "nested")
STRATEGIES: tuple[Strategy, ...] = ("ddp", "fsdp")


@dataclass(frozen=True, kw_only=True)
class Count:
    """A training on this many GPUs."""

    gpus: int
    settings: list[Setting]
    """For each strategy, the fewest parts of a batch that fit, for more and more recomputation; [] if none fits."""
    recommended: Setting | None
    """The fastest that fits."""
    reason: str
    """Why there is none."""
    doubled: dict[str, str]
    """The effect of twice the GPUs, loops or width, in words."""


def counts(run: RunConfig, gpu: GPU, gpus: Sequence[int]) -> list[Count]:
    """Costs of a step on each of these numbers of GPUs.

    Raises:
        ValueError: the run cannot be divided among devices.
    """
    return [_count(run, gpu, number) for number in gpus]


def _count(run: RunConfig, gpu: GPU, gpus: int) -> Count:
    found = fitting(run, gpu, gpus)
    best = min(found, key=lambda setting: setting.step, default=None)
    doubled = {} if best is None else {
        "GPUs": _consequence(best, run, gpu, 2 * gpus),
        "loops": _consequence(best, _more_loops(run), gpu, gpus),
        "width": _consequence(best, _wider(run), gpu, gpus),
    }  # fmt: skip
    return Count(
        gpus=gpus, settings=found, recommended=best, reason="" if best else _reason(run, gpus), doubled=doubled
    )


def fitting(run: RunConfig, gpu: GPU, gpus: int) -> list[Setting]:
    """The settings that fit: see `Count.settings`."""
    if run.train.batch_size % gpus:
        return []
    share = run.train.batch_size // gpus
    one_way = run.model.halting == "act" or run.train.gradient != "unroll" or loops_with_gradient(run) == 1
    found: list[Setting] = []
    for strategy in STRATEGIES if gpus > 1 else STRATEGIES[:1]:
        for recompute in LEVELS[: 1 if one_way else None]:
            train = replace(run.train, devices=gpus, recompute=recompute, accumulation=1, strategy=strategy)
            tried = (replace(run, train=replace(train, accumulation=n)) for n in range(1, share + 1) if share % n == 0)
            fits = next((s for s in (setting(one, strategy, gpu, gpus) for one in tried) if s.fits), None)
            found += [fits] if fits else []
            if fits and fits.accumulation == 1:
                break  # to recompute more would only take longer
    return found


def _reason(run: RunConfig, gpus: int) -> str:
    size = run.train.batch_size
    if size % gpus == 0:
        return "does not fit: a smaller model, shorter sequences or more memory are needed"
    larger = -(-size // gpus) * gpus
    return f"the batch of {size} does not divide; {gpus} GPUs need at least --train.batch-size {larger}"


def _consequence(best: Setting, larger: RunConfig, gpu: GPU, gpus: int) -> str:
    if larger.train.batch_size % gpus:
        return f"the batch of {larger.train.batch_size} is too small"
    found = min(fitting(larger, gpu, gpus), key=lambda setting: setting.step, default=None)
    if found is None:
        return "does not fit"
    changed = [] if found.strategy == best.strategy else [found.strategy]
    changed += [] if found.recompute == best.recompute else [f"recompute={found.recompute}"]
    parts = "1 part" if found.accumulation == 1 else f"{found.accumulation} parts"
    changed += [] if found.accumulation == best.accumulation else [parts]
    words = f" with {', '.join(changed)}" if changed else ""
    waits = found.communication.exposed / found.step
    return f"MFU {found.mfu:.0%}{words}; communication {waits:.0%} of a step"


def _more_loops(run: RunConfig) -> RunConfig:
    model, schedule = run.model, run.schedule
    most = None if schedule.max_loops is None else 2 * schedule.max_loops
    rows = None if model.max_loops is None else 2 * model.max_loops
    return replace(
        run,
        model=replace(model, num_loops=2 * model.num_loops, max_loops=rows),
        schedule=replace(schedule, max_loops=most),
    )


def _wider(run: RunConfig) -> RunConfig:
    """Twice the width, and twice the heads if they follow from it."""
    model = run.model
    sizes = {"d_model": 2 * model.d_model, "d_ff": None if model.d_ff is None else 2 * model.d_ff}
    if model.d_head is None:
        keys = None if model.num_kv_heads is None else 2 * model.num_kv_heads
        sizes |= {"num_heads": 2 * model.num_heads, "num_kv_heads": keys}
    return replace(run, model=replace(model, **sizes))
