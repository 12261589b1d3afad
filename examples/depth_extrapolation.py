"""More loops than in training: scores by loop count as a pandas frame, and a plot.

python examples/depth_extrapolation.py
"""

import sys
from pathlib import Path

import matplotlib
import pandas as pd

from looped import evaluate

sys.path.insert(0, str(Path(__file__).parent))
from training_loop import train


def main(steps: int = 300, out: Path = Path("depth_extrapolation.png")) -> pd.DataFrame:
    """Train on 4x4 Sudoku with up to 8 loops, and evaluate with up to 32.

    Returns a frame with one row for each loop count and one column for each metric.
    """
    model, task = train(steps)
    rows = pd.DataFrame(evaluate(model, task, loops=[1, 2, 4, 6, 8, 12, 16, 24, 32], examples=256))
    frame = rows.pivot_table(index="num_loops", columns="metric", values="value")
    print(frame.round(3))
    matplotlib.use("Agg")
    axes = frame.plot(marker="o", xlabel="loops", ylabel="share", title="4x4 Sudoku, unseen boards")
    axes.axvspan(4, 8, color="grey", alpha=0.2)  # the loop counts of training
    axes.figure.savefig(out)
    print(out)
    return frame


if __name__ == "__main__":
    main()
