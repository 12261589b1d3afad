"""A ball under one of five cups: follow it through a word of swaps. Accuracy by length, trained and constructed.

This follows one point through a product in the group S5. The circuit of `looped theory automaton` does it at every
length in ceil(log2 n) loops. This program trains small models of one layer with 1, 2, 4 and 8 loops.

    python examples/cups.py cups/
"""

import dataclasses
import itertools
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from looped import Batch, Task, complete, evaluate, load_run, recipe, train
from looped.tasks import TaskConfig, TaskSpec, frozen, register, split_of
from looped.tasks.base import Split
from looped.theory import automata

SWAPS = list(itertools.combinations(range(5), 2))
TABLE = np.array([[b if x == a else a if x == b else x for x in range(5)] for a, b in SWAPS])
CIRCUIT = automata.Automaton(tuple("12345"), tuple(f"{a + 1}{b + 1}" for a, b in SWAPS), TABLE)
LOOPS = (1, 2, 4, 8)  # of the trained models, which have one layer


@register("cups")
class Cups(Task):
    """Where the ball is after each swap. It starts under the first of five cups; the last place is scored."""

    @frozen
    class Config(TaskConfig):
        """The settings of cups."""

        length: int = 10
        """Swaps in a word of training."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.groups = tuple(map(str, range(4, config.length + 1, 2)))
        self.spec = TaskSpec(vocab_size=len(SWAPS), output_size=5, max_seq_len=config.length, causal=True)

    def sample(self, split: Split, size: int, rng: np.random.Generator, group: str | None = None) -> list[list[int]]:
        found: list[list[int]] = []
        while len(found) < size:
            words = rng.integers(len(SWAPS), size=(16 * size, int(group or self.config.length))).tolist()
            found += [word for word in words if split_of(bytes(word)) == split]
        return found[:size]

    def encode(self, problems: Sequence[list[int]]) -> Batch:
        words = np.array(problems)
        real = torch.ones(words.shape, dtype=torch.bool)
        return Batch(torch.from_numpy(words), torch.from_numpy(CIRCUIT.maps(words)[:, 1:, 0]), real, real)

    def score(self, batch: Batch, logits: Tensor) -> dict[str, Tensor]:
        return {"accuracy": (logits.argmax(-1) == batch.targets)[:, -1].float()}


def constructed(task: Task, length: int, loops: int) -> float:
    """The share of right last places by the circuit with some loops."""
    words = np.array(task.sample("test", 512, np.random.default_rng(0), str(length)))
    outputs = automata.doubling(CIRCUIT, length).run(CIRCUIT.tokens(words), loops=loops, dtype=np.int64)
    return float((outputs[:, -1, 0] == CIRCUIT.maps(words)[:, -1, 0]).mean())


def main(folder: Path, steps: int = 1000) -> dict[str, list[float]]:
    """Train all models, and write cups.json and cups.svg. Returns the accuracy of each by length."""
    task = Cups(Cups.Config())
    lengths = [int(group) for group in task.groups]
    accuracy: dict[str, list[float]] = {}
    for loops in LOOPS:
        run = recipe("cups")
        model = dataclasses.replace(run.model, num_loops=loops)
        training = dataclasses.replace(run.train, steps=steps, batch_size=64, compile=False, workers=0)
        optim = dataclasses.replace(run.optim, warmup_steps=steps // 10)
        run = complete(dataclasses.replace(run, model=model, train=training, optim=optim))
        train(run, folder / f"loops-{loops}")
        rows = evaluate(load_run(folder / f"loops-{loops}")[1], task, loops=[loops], examples=512)
        accuracy[f"trained, {loops} loops"] = [row["value"] for row in rows if row["metric"] == "accuracy"]
    for loops in (2, 3, 4):
        accuracy[f"circuit, {loops} loops"] = [constructed(task, n, loops) for n in lengths]
    for name, values in accuracy.items():
        print(f"{name:18}", *(f"{value:.3f}" for value in values))
    content = {"steps": steps, "lengths": lengths, "accuracy": accuracy}
    (folder / "cups.json").write_text(json.dumps(content, indent=1) + "\n")
    draw(lengths, accuracy, folder / "cups.svg")
    return accuracy


def draw(lengths: list[int], accuracy: dict[str, list[float]], path: Path) -> None:
    """Accuracy by the number of swaps. The dotted line is chance."""
    with matplotlib.rc_context({"svg.fonttype": "none"}):
        figure = Figure(figsize=(6, 3.6), layout="constrained")
        axes = figure.add_subplot(xlabel="swaps", ylabel="accuracy", ylim=(0, 1.03), xticks=lengths)
        axes.axhline(0.2, color="grey", ls=":", lw=1)
        for name, values in accuracy.items():
            axes.plot(lengths, values, "s--" if "circuit" in name else "o-", label=name)
        figure.legend(loc="outside right upper", frameon=False)
        figure.savefig(path, metadata={"Date": None})


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path("cups"))
