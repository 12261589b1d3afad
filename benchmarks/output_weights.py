"""The error of an int8 output matrix: `python -m benchmarks.output_weights RUN` compares it with the exact one.

A language model reads windows of its test text. Each position is one prediction, with both output matrices.
"""

import argparse
import json
from pathlib import Path

import torch
import torch.nn.functional as F

from looped.models.packed import packed
from looped.tasks.text import Text, TextConfig
from looped.training import load_run
from looped.training.logger import environment


@torch.no_grad()
def errors(folder: Path, windows: int) -> dict[str, float]:
    run, model, step = load_run(folder)
    assert isinstance(run.task, TextConfig)
    batch = Text(run.task).batch("test", 0, windows, seed=0)
    targets = batch.targets[batch.mask]
    exact, int8 = (packed(model, int8_head=int8)(batch.inputs).logits[batch.mask] for int8 in (False, True))
    error = int8 - exact
    logs, changed = exact.log_softmax(-1), int8.log_softmax(-1)
    top = exact.topk(2).values
    return {
        "step": step,
        "predictions": len(targets),
        "vocabulary": exact.shape[1],
        "perplexity, exact": F.nll_loss(logs, targets).exp().item(),
        "perplexity, int8": F.nll_loss(changed, targets).exp().item(),
        "equal most probable tokens": (exact.argmax(-1) == int8.argmax(-1)).double().mean().item(),
        "largest error of a logit": error.abs().max().item(),
        "mean error of a logit": error.abs().mean().item(),
        "standard deviation of logits": exact.std(-1).mean().item(),
        "mean distance of the two largest logits": (top[:, 0] - top[:, 1]).mean().item(),
        "mean KL divergence": F.kl_div(changed, logs, log_target=True, reduction="batchmean").item(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--windows", type=int, default=16)
    parser.add_argument("--out", type=Path, help="JSON file for the results")
    arguments = parser.parse_args()
    results = {
        **environment("fp32", torch.device("cpu")),
        "run": arguments.run.name,
        **errors(arguments.run, arguments.windows),
    }
    for name, value in results.items():
        print(f"{name:42} {value}")
    if arguments.out:
        arguments.out.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
