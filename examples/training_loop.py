"""Your own training loop: 4x4 Sudoku, a DataLoader, random loop counts and two optimizers.

Every step runs 4 to 8 loops, and only the last 4 carry gradient (truncated backpropagation). The number of the step
decides its batch, so two runs see the same boards.

    python examples/training_loop.py
"""

import torch
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from looped import TASKS, Batch, LoopedTransformer, ModelConfig, Task, evaluate


class Batches(Dataset[Batch]):
    """The training batches of a task, by step."""

    def __init__(self, task: Task, steps: int, size: int) -> None:
        self.task, self.steps, self.size = task, steps, size

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, step: int) -> Batch:
        return self.task.batch("train", step, self.size, seed=0)


def make_optimizers(model: LoopedTransformer) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the layers, AdamW for everything else."""
    matrices = [p for p in model.core.parameters() if p.ndim == 2]
    others = [p for p in model.parameters() if all(p is not m for m in matrices)]
    muon = torch.optim.Muon(matrices, lr=3e-3, adjust_lr_fn="match_rms_adamw")
    return [muon, torch.optim.AdamW(others, lr=3e-3)]


def train(steps: int) -> tuple[LoopedTransformer, Task]:
    sudoku = TASKS["sudoku"]
    task = sudoku(sudoku.Config(box=2, pool=2000))
    config = ModelConfig.for_task(task, d_model=64, num_heads=4, num_loops=8, input_injection="add")
    model = LoopedTransformer(config, seed=0)
    optimizers = make_optimizers(model)
    draw = torch.Generator().manual_seed(0)
    for step, batch in enumerate(DataLoader(Batches(task, steps, size=64), batch_size=None), start=1):
        num_loops = int(torch.randint(4, 9, (), generator=draw))
        output = model(batch.inputs, attention_mask=batch.attention_mask, num_loops=num_loops, num_grad_loops=4)
        loss = F.cross_entropy(output.logits[batch.mask], batch.targets[batch.mask])  # mask: the blank cells
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        if step % 50 == 0:
            print(f"step {step:4}  {num_loops} loops  loss {loss.item():.3f}")
    return model.eval(), task


def main(steps: int = 300) -> float:
    """Train for half a minute; returns the share of unseen boards that 8 loops solve, over all difficulties."""
    model, task = train(steps)
    rows = [row for row in evaluate(model, task, loops=[8], examples=256) if row["metric"] == task.metric]
    for row in rows:
        interval = f"[{row['low']:.1%}, {row['high']:.1%}]"
        print(f"{row['group']:10} 8 loops solve {row['value']:.1%} of {row['n']} unseen boards {interval}")
    return sum(row["value"] * row["n"] for row in rows) / sum(row["n"] for row in rows)


if __name__ == "__main__":
    main()
