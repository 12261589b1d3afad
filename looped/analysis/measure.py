"""The measurements of `looped inspect` on a trained model, as plain numbers."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from looped.analysis.stability import alignment, disturbed_start, gaussian_start, jacobian_spectrum
from looped.analysis.states import (
    attention_maps,
    layer_modulation,
    layer_states,
    logit_lens,
    motion,
    principal_components,
    states,
)
from looped.evaluation.scores import LOGITS, PART, check_examples, parts
from looped.intervals import interval
from looped.models.looped_model import Loop
from looped.models.transformer import LoopedTransformer
from looped.tasks.base import Batch, Split, Task

MOST_EXAMPLES = 100_000  # all of them are in memory
FEW = 8  # examples whose Jacobians and principal components are computed
PATHS = 6  # positions whose path is drawn
SHOWN = 4  # loops, and heads or layers, in the figure of attention maps
SHOWN_POSITIONS = 96  # positions in that figure
NOISE = (0.01, 0.1, 1.0)  # relative to the embedded input
QUANTILES = (0.1, 0.5, 0.9)


@dataclass(frozen=True)
class Sample:
    """A model and the examples on which it is measured."""

    model: LoopedTransformer
    task: Task
    split: Split
    group: str | None
    batch: Batch
    loops: int
    seed: int

    @property
    def size(self) -> int:
        """Examples for which the states and loop_logits of all loops fit into memory."""
        config = self.model.config
        width = max(config.output_size or 1, config.d_model)
        return max(1, min(PART, LOGITS // (self.batch.inputs.shape[1] * width * (self.loops + 1))))

    @property
    def some_loops(self) -> list[int]:
        """Loop numbers for slow measurements: all, or about 16 if there are many, with the last one of training."""
        counts = range(1, self.loops + 1) if self.loops <= 16 else np.geomspace(1, self.loops, 16).round().astype(int)
        return sorted({*map(int, counts), min(self.model.config.num_loops, self.loops)})

    def first(self, count: int) -> tuple[Batch, Loop]:
        """The first examples, at most `count`, and the loop on them."""
        part = next(parts(self.batch, min(count, self.size), self.device))
        return part, self.loop(part)

    def loop(self, part: Batch) -> Loop:
        attention_mask = None if bool(part.attention_mask.all()) else part.attention_mask
        return self.model.loop(part.inputs, attention_mask=attention_mask, num_loops=self.loops)

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    def generator(self) -> torch.Generator:
        return torch.Generator().manual_seed(self.seed)


def take_sample(
    model: LoopedTransformer,
    task: Task,
    *,
    loops: int | None,
    examples: int,
    group: str | None,
    split: Split = "test",
    seed: int = 0,
) -> Sample:
    """Draw the examples for an inspection.

    Args:
        loops: how many loops to run. None is twice the trained number, at least 8. None is the trained number if
            other loop counts are other computations, as when the modulation depends on t / num_loops.
        examples: how many examples to use; fewer if the task has fewer.
        group: None is the training distribution.

    Raises:
        ValueError: the model cannot run so many loops, the group is unknown or empty, or `examples` is out of range.
    """
    config = model.config
    if loops is None:
        loops = (
            config.num_loops if model.uses_fraction else min(max(2 * config.num_loops, 8), config.most_loops or 10**9)
        )
    if loops < 1 or (config.most_loops and loops > config.most_loops):
        limit = f"1 to {config.most_loops}, for which the model has weights" if config.most_loops else "at least 1"
        raise ValueError(f"loops={loops}: expected {limit}")
    if not 1 <= examples <= MOST_EXAMPLES:
        raise ValueError(f"examples={examples}: expected at least 1, at most {MOST_EXAMPLES}")
    if group is not None and group not in task.groups:
        raise ValueError(f"group={group!r}: expected one of {', '.join(task.groups)}")
    available = task.available(split, group)
    size = examples if available is None else min(examples, available)
    check_examples(task, split, size, group)
    return Sample(model, task, split, group, task.batch(split, 0, size, seed=seed, group=group), loops, seed)


@torch.no_grad()
def answers(sample: Sample) -> dict[str, Any]:
    """Score, answers and movement of the state by loop, over all examples."""
    classes = not sample.batch.targets.is_floating_point()
    scores: dict[str, list[Tensor]] = {}
    lens: dict[str, list[Tensor]] = {}
    moved: dict[str, list[Tensor]] = {}
    for part in parts(sample.batch, sample.size, sample.device):
        loop = sample.loop(part)
        loop_states = states(loop, sample.loops)
        loop_logits = torch.stack([loop.decode(state) for state in loop_states[1:]]).float()
        measured = logit_lens(loop_logits, part.targets)._asdict() if classes else {"prediction": loop_logits[..., 0]}
        for name, values in measured.items():
            lens.setdefault(name, []).append(values[:, part.mask].double())
        for name, values in motion(loop_states, part.attention_mask)._asdict().items():
            moved.setdefault(name, []).append(values)
        each = [sample.task.score(part, logits) for logits in loop_logits]
        for name in each[0]:
            scores.setdefault(name, []).append(torch.stack([scored[name] for scored in each]).cpu())
    by_position = {name: torch.cat(values, 1) for name, values in lens.items()}
    if classes:
        by_loop = {name: values.mean(1).tolist() for name, values in by_position.items()}
    else:
        predictions = by_position["prediction"]
        by_loop = {"distance": [distance(values, predictions[-1]) for values in predictions]}
    return {
        "score": _score(sample, {name: torch.cat(values, 1) for name, values in scores.items()}),
        "answers": by_loop,
        "motion": {name: band(torch.cat(values, 1)) for name, values in moved.items()},
    }


def _score(sample: Sample, scores: dict[str, Tensor]) -> dict[str, list[float | None]]:
    """The main score of one pass by loop, with 95% intervals over examples, from scores (loops, examples).

    `beyond` is the change of the underlying score from the last loop of training to the last loop, with its interval
    over examples.
    """
    task, most = sample.task, math.inf if sample.task.lower_is_better else 1.0
    metric = task.pass_metric

    def reported(score: str, mean: float) -> dict[str, float]:
        return task.reported(score, mean, sample.split, sample.group)

    score = next(name for name in scores if metric in reported(name, 0.0))
    values, weights = scores[score], task.weights(sample.batch)
    rows = [[reported(score, end)[metric] for end in interval(row, most, weights)] for row in values]
    change = values[-1] - values[min(sample.model.config.num_loops, sample.loops) - 1]
    mean, _, high = interval(change - change.min(), math.inf, weights)  # an interval begins at 0
    beyond = [2 * mean - high + change.min().item(), high + change.min().item()]
    by_loop = dict(zip(("value", "low", "high"), zip(*rows, strict=True), strict=True))
    return {name: list(map(finite, row)) for name, row in {**by_loop, "beyond": beyond}.items()}


@torch.no_grad()
def layers(sample: Sample) -> dict[str, Any]:
    """The answers after each core layer in the last loop of training; None with one layer, or without classes."""
    if len(sample.model.core) < 2 or sample.batch.targets.is_floating_point():
        return {"layers": None}
    loops = min(sample.model.config.num_loops, sample.loops)
    lens: dict[str, list[Tensor]] = {}
    for part in parts(sample.batch, sample.size, sample.device):
        mask = None if bool(part.attention_mask.all()) else part.attention_mask
        found = layer_states(sample.model, part.inputs, attention_mask=mask, num_loops=loops)
        decode = sample.model.loop(part.inputs, attention_mask=mask, num_loops=loops).decode
        last = decode(found[-1]).float()
        # Two logits at a time, because a large vocabulary times all layers could be larger than the memory.
        each = [logit_lens(torch.stack([decode(state).float(), last]), part.targets)._asdict() for state in found]
        for name in each[0]:
            values = torch.stack([of_layer[name][0] for of_layer in each])
            lens.setdefault(name, []).append(values[:, part.mask].double())
    return {"layers": {name: torch.cat(values, 1).mean(1).tolist() for name, values in lens.items()}}


def jacobians(sample: Sample) -> dict[str, Any]:
    """Spectral radius and norm of the Jacobian of some loops, over the first examples."""
    part, loop = sample.first(FEW)
    loop_states = states(loop, sample.loops)
    generator = sample.generator()
    found = [
        jacobian_spectrum(lambda h, t=n - 1: loop.step(h, t), loop_states[n - 1], part.attention_mask, generator)
        for n in sample.some_loops
    ]
    spectra = {name: band(torch.stack([getattr(s, name) for s in found])) for name in ("radius", "norm")}
    return {"jacobian": {"loop": sample.some_loops, "examples": len(part.inputs), **spectra}}


@torch.no_grad()
def other_starts(sample: Sample) -> dict[str, Any]:
    """The effect of another initial state, by loop.

    With input injection the initial state is free, and two replacements are tried: a Gaussian state, and the last state
    of another example. Without input injection the initial state is the input, which is disturbed by noise.
    """
    part, loop = sample.first(PART)
    usual = states(loop, sample.loops)
    generator, injected = sample.generator(), sample.model.config.input_injection != "none"
    if injected:
        starts = {"a Gaussian state": gaussian_start(usual[-1], generator)}
        if len(part.inputs) > 1:
            starts["the last state of another example"] = usual[-1].roll(1, 0)
    else:
        starts = {f"noise of {size:g}": disturbed_start(loop.initial, size, generator) for size in NOISE}
    rows = []
    for name, start in starts.items():
        other = states(loop, sample.loops, start)
        found: dict[str, Any] = {
            key: band(values[1:]) for key, values in alignment(usual, other, part.attention_mask)._asdict().items()
        }
        pairs = [
            (loop.decode(a)[part.mask], loop.decode(b)[part.mask]) for a, b in zip(usual[1:], other[1:], strict=True)
        ]
        if part.targets.is_floating_point():
            found["answers"] = [distance(b[:, 0], a[:, 0]) for a, b in pairs]
        else:
            found["answers"] = [(a.argmax(-1) == b.argmax(-1)).double().mean().item() for a, b in pairs]
        rows.append({"start": name, **found})
    # The similarity of the last states of different inputs: an alignment has a meaning only if it is higher.
    unrelated = alignment(usual[-1:], usual[-1:].roll(1, 1), part.attention_mask).cosine
    found = {"free": injected, "examples": len(part.inputs), "unrelated": band(unrelated)["middle"][0], "rows": rows}
    return {"starts": found}


def components(sample: Sample) -> dict[str, Any]:
    """Paths of some positions in the plane of the first two principal components."""
    part, loop = sample.first(FEW)
    found = principal_components(states(loop, sample.loops), part.attention_mask)
    # Several answer positions of one example; the last answer position of several examples if each has few.
    places = part.mask[0].nonzero()[:, 0].tolist()
    if len(places) >= PATHS:
        chosen = [(0, places[round(i)]) for i in np.linspace(0, len(places) - 1, PATHS)]
    else:
        chosen = [(i, int(row.nonzero()[-1])) for i, row in enumerate(part.mask[:PATHS]) if row.any()]
    paths = [{"example": i + 1, "position": s + 1, "points": _rounded(found.coordinates[:, i, s])} for i, s in chosen]
    return {"components": {"explained": found.explained.tolist(), "examples": len(part.inputs), "paths": paths}}


def attention(sample: Sample) -> dict[str, Any]:
    """Attention maps of the first example, the effective number of keys, and the change between loops.

    None if the model has graph heads alone, whose weights are the graph.
    """
    if not sample.model.config.num_heads:
        return {"attention": None}
    part, _ = sample.first(1)
    model, trained = sample.model, min(sample.model.config.num_loops, sample.loops)
    real = part.attention_mask[0]
    maps = attention_maps(
        model, part.inputs, attention_mask=part.attention_mask, num_loops=sample.loops, keep=sample.some_loops
    )[:, :, 0][..., real, :][..., real]  # fmt: skip
    several = maps.shape[1] > 1
    rows = maps.mean(2) if several else maps[:, 0]
    drawn = np.unique(np.linspace(0, rows.shape[1] - 1, min(SHOWN, rows.shape[1])).round().astype(int)).tolist()
    shown = sorted({1, max(1, trained // 2), trained, sample.loops})
    cut = rows[[sample.some_loops.index(n) for n in shown if n in sample.some_loops]][:, drawn]
    found: dict[str, Any] = {
        "loop": sample.some_loops,
        "kind": model.config.attention,
        "rows": [f"{'layer' if several else 'head'} {i + 1}" for i in drawn],
        "shown": [n for n in shown if n in sample.some_loops],
        "maps": _rounded(cut[..., :SHOWN_POSITIONS, :SHOWN_POSITIONS]),
        "positions": int(real.sum()),
    }
    if model.config.attention != "linear":  # scores of linear attention are not a distribution
        entropy = -torch.special.xlogy(maps, maps).sum(-1)
        found["keys"] = entropy.exp().mean((2, 3)).T.tolist()
    return {"attention": found}


def modulation(sample: Sample) -> dict[str, Any]:
    """Quantiles and root mean square over channels of each layer's modulation, by loop; None without modulation."""
    found = layer_modulation(sample.model, sample.loops)
    if found is None:
        return {"modulation": None}
    return {
        "modulation": {
            name: [{**band(layer), "size": layer.square().mean(-1).sqrt().tolist()} for layer in values.unbind(1)]
            for name, values in found.items()
        }
    }


MEASURES: dict[str, Callable[[Sample], dict[str, Any]]] = {
    "loop_logits and states of all loops": answers,
    "logits after each layer": layers,
    "Jacobians by power iteration": jacobians,
    "other initial states": other_starts,
    "principal components": components,
    "attention maps": attention,
    "modulation": modulation,
}


def distance(a: Tensor, b: Tensor) -> float | None:
    """Root mean square of a - b, divided by that of b."""
    return finite(((a - b).square().mean().sqrt() / b.square().mean().sqrt()).item())


def finite(values: Any) -> Any:
    """Plain values, with None for every number that is not finite, because JSON has only finite numbers."""
    if isinstance(values, dict):
        return {key: finite(value) for key, value in values.items()}
    if isinstance(values, list | tuple):
        return [finite(value) for value in values]
    return None if isinstance(values, float) and not math.isfinite(values) else values


def band(values: Tensor) -> dict[str, list[float | None]]:
    """The 10%, 50% and 90% quantiles of each row; None for values that are not finite."""
    rows = [row.quantile(torch.tensor(QUANTILES, dtype=torch.double)).tolist() for row in values.double().cpu()]
    return {name: [finite(row[i]) for row in rows] for i, name in enumerate(("low", "middle", "high"))}


def _rounded(values: Tensor) -> Any:
    return values.double().cpu().mul(1000).round().div(1000).tolist()
