"""Errors by number of points in context, of a model and of textbook methods on the same prompts."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from looped.intervals import interval
from looped.lazy import torch
from looped.tasks.base import Batch, Predict, Split
from looped.tasks.in_context.prompts import PromptTask

PROMPTS = 256
SLOW, SLOW_PROMPTS = "boosted trees", 32  # 60 ms for each prompt and number of points, half a minute in all

Fit = Callable[[Float[np.ndarray, "points dim"], Float[np.ndarray, " points"]], Any]


def baselines() -> dict[str, Fit]:
    """Fitted regressors of scikit-learn, by name. Linear ones have no intercept, like the functions of the task.

    They are those of Garg et al. 2022 (least squares, lasso, 3 nearest neighbours, trees), ridge regression for noisy
    values, and "zero", which always predicts 0. Classes are -1 and 1, decided by the sign of the prediction.
    """
    from sklearn.dummy import DummyRegressor  # takes a second, which other commands should not spend
    from sklearn.ensemble import GradientBoostingRegressor
    from sklearn.linear_model import Lasso, LinearRegression, Ridge
    from sklearn.neighbors import KNeighborsRegressor
    from sklearn.tree import DecisionTreeRegressor

    return {
        "zero": DummyRegressor(strategy="constant", constant=0.0).fit,
        "least squares": LinearRegression(fit_intercept=False).fit,
        "ridge": Ridge(alpha=1.0, fit_intercept=False).fit,
        "lasso": Lasso(alpha=0.1, fit_intercept=False).fit,
        "nearest neighbours": lambda x, y: KNeighborsRegressor(min(3, len(x))).fit(x, y),
        "decision tree": DecisionTreeRegressor(random_state=0).fit,
        SLOW: GradientBoostingRegressor(random_state=0).fit,
    }


def context_counts(points: int) -> list[int]:
    """The numbers of context points for the baselines: 1, 2, 5, 10, 20, ..., and the last."""
    return sorted({n for n in (1, 2, 5, *range(10, points, 10), points - 1) if n < points})


def errors_by_context(
    task: PromptTask, predict: Predict, *, loops: Sequence[int], split: Split, group: str, seed: int
) -> Iterator[dict[str, Any]]:
    """Rows of in_context.jsonl: score by number of context points and method, with 95% intervals over prompts.

    Args:
        predict: the model's logits for a batch after some loop counts.
        loops: loop counts of the model, ascending.
    """
    batch = task.batch(split, 0, PROMPTS, seed=seed, group=group)

    def row(method: str, num_loops: int | None, points: int, wrong: torch.Tensor) -> dict[str, Any]:
        score = 1 - wrong if task.classes else wrong
        value, low, high = interval(score, 1.0 if task.classes else math.inf)
        return {
            "group": group, "method": method, "num_loops": num_loops, "points": points, "metric": task.metric,
            "value": value, "low": low, "high": high, "n": len(wrong), "split": split,
        }  # fmt: skip

    for count, logits in zip(loops, predict(batch, loops), strict=True):
        wrong = task.errors(batch, logits)
        for points in range(task.points):
            yield row("model", count, points, wrong[:, points])
    for method, fit in baselines().items():
        prompts = SLOW_PROMPTS if method == SLOW else PROMPTS
        first = batch.map(lambda tensor, prompts=prompts: tensor[:prompts])
        for points in context_counts(task.points):
            logits = torch.zeros(*first.targets.shape, 1)
            logits[:, 2 * points, 0] = predictions(fit, first, points)
            yield row(method, None, points, task.errors(first, logits)[:, points])


def predictions(fit: Fit, batch: Batch, points: int) -> Float[torch.Tensor, " batch"]:
    """The prediction of a method at the next point, after fitting to the first `points` points of each prompt."""
    x, y = batch.inputs[:, ::2].double().numpy(), batch.targets[:, ::2].double().numpy()
    found = []
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Objective did not converge")  # lasso with as many points as coordinates
        for points_of, values in zip(x, y, strict=True):
            fitted = fit(points_of[:points], values[:points])
            found.append(float(fitted.predict(points_of[points : points + 1])[0]))
    return torch.tensor(found)
