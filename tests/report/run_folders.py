"""Run folders with made-up numbers, shaped like those that training and evaluation leave."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from looped.config import RunConfig
from looped.strict import from_dict, to_dict

LOOPS = (1, 2, 4, 8, 16)
RATES = (1e-3, 2e-3)
# Test accuracy after each of LOOPS, by seed at the better learning rate.
SCORES = {
    "demo_standard": (
        1,
        ((0.30, 0.22, 0.12, 0.10, 0.08), (0.31, 0.21, 0.13, 0.09, 0.08), (0.29, 0.23, 0.11, 0.1, 0.09)),
    ),
    "demo_looped_4": (
        4,
        ((0.09, 0.30, 0.83, 0.78, 0.60), (0.10, 0.33, 0.80, 0.70, 0.51), (0.12, 0.28, 0.84, 0.8, 0.63)),
    ),
    "demo_tmlt_4": (4, ((0.05, 0.21, 0.93, 0.82, 0.41), (0.06, 0.20, 0.92, 0.85, 0.45), (0.05, 0.22, 0.95, 0.8, 0.38))),
    "demo_looped_8": (
        8,
        ((0.06, 0.15, 0.52, 0.89, 0.84), (0.08, 0.16, 0.48, 0.93, 0.86), (0.07, 0.2, 0.55, 0.86, 0.8)),
    ),
}
SOLUTION = [(3 * (row % 3) + row // 3 + column) % 9 + 1 for row in range(9) for column in range(9)]


def write_json(path: Path, data: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data))


def write_lines(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def eval_rows(
    scores: dict[str, Sequence[float]], loops: Sequence[int], trained: int, metric: str = "accuracy", n: int = 1000
) -> list[dict[str, Any]]:
    """Rows of eval.jsonl: `scores` holds one score per number of loops for each group."""
    return [
        {"group": group, "num_loops": count, "metric": metric, "value": value, "low": max(0.0, value - 0.02),
         "high": min(1.0, value + 0.02), "n": n, "split": "test", "trained_loops": trained, "step": 3000,
         "flops_per_example": 1_200_000 * count}
        for group, values in scores.items()
        for count, value in zip(loops, values, strict=True)
    ]  # fmt: skip


def write_run(
    folder: Path, *, recipe: str, task: dict[str, Any], trained: int, rows: list[dict[str, Any]], validation: float,
    learning_rate: float = 1e-3, seed: int = 0, metric: str = "accuracy", finished: bool = True,
    modulation: Any = "none", note: str = "", examples: Sequence[dict[str, Any]] = (), seconds: float = 95.0,
    lower_is_better: bool = False,
) -> Path:  # fmt: skip
    """One run folder of 3,000 steps that ends with the given best validation score."""
    config = from_dict(RunConfig, {
        "recipe": recipe, "note": note, "task": task,
        "model": {"d_model": 64, "num_loops": trained, "modulation": modulation},
        "optim": {"learning_rate": learning_rate}, "train": {"seed": seed},
    })  # fmt: skip
    write_json(folder / "config.json", {"looped": "0.1.0", "run": to_dict(config)})
    write_json(folder / "environment.json", {
        "command": f"looped train {recipe} --optim.learning-rate {learning_rate} --train.seed {seed}",
        "date": "2026-01-02 03:04:05", "machine": "x86_64, 2 cores", "python": "3.11.2", "torch": "2.13.0",
        "looped": "0.1.0", "threads": 1, "precision": "bf16", "device": "cpu",
    })  # fmt: skip
    rng = np.random.default_rng([seed, trained, round(learning_rate * 1e4)])
    lines: list[dict[str, Any]] = []
    for step in range(100, 3001 if finished else 1301, 100):
        rise = 1 / (1 + np.exp(-(step - 1200) / 300))
        loss = 2.6 * (1 - validation * rise) + 0.05 * rng.random()
        lines.append({"kind": "train", "step": step, "loss": loss, "accuracy": 0.5, "learning_rate": learning_rate,
                      "grad_norm": 0.3, "num_loops": trained, "num_grad_loops": trained, "examples_per_s": 4000.0,
                      "tokens_per_s": 64000.0, "matmul_share": 0.2,
                      "peak_memory": 5e8, "data_wait": 0.01, "seconds": step / 30})  # fmt: skip
        if step % 500 == 0:
            score = validation if step == 3000 else max(0.0, validation * rise - 0.03 * rng.random())
            lines.append({"kind": "validation", "step": step, "seconds": step / 30, "num_loops": trained,
                          "scores": {metric: score}})  # fmt: skip
    write_lines(folder / "metrics.jsonl", lines)
    if finished:
        best = {"step": 3000, "metric": metric, "value": validation}
        write_json(folder / "summary.json", {
            "recipe": recipe, "metric": metric, "lower_is_better": lower_is_better, "steps": 3000,
            "examples": 384_000, "seconds": seconds,
            "finished": "steps", "parameters": 52_300 + 35_000 * (modulation != "none"),
            "non_embedding_parameters": 49_000, "effective_depth": trained,
            "flops_per_example": 1_200_000 * trained, "best": best,
        })  # fmt: skip
        write_lines(folder / "eval.jsonl", rows)
    if examples:
        write_json(folder / "answers_by_loop.json", {"trained_loops": trained, "examples": list(examples)})
    return folder


def distribution_picture(answer: int, seed: int) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    labels = [str(answer + offset) for offset in range(-4, 5)]
    frames = []
    for loop in range(1, 9):
        logits = rng.normal(size=9) + np.eye(9)[4] * (loop - 1) * 1.1
        frames.append({"loop": loop, "probabilities": list(zip(labels, softmax(logits), strict=True))})
    return {
        "kind": "distribution",
        "title": "Edit distance",
        "input": "abcabb , bcaab",
        "answer": str(answer),
        "loops": frames,
    }


def softmax(logits: np.ndarray) -> list[float]:
    return (np.exp(logits) / np.exp(logits).sum()).tolist()


def board_picture(seed: int, box: int = 3, solved: bool = True) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    side = box * box
    solution = SOLUTION if box == 3 else [1, 2, 3, 4, 3, 4, 1, 2, 2, 1, 4, 3, 4, 3, 2, 1]
    given = [digit if rng.random() < 0.35 else 0 for digit in solution]
    ease = rng.random(side * side)
    frames = []
    for loop in range(1, 13):
        right = ease < loop / (12 if solved else 16)
        wrong = rng.integers(1, side + 1, side * side)
        confidence = np.where(right, 0.6 + 0.4 * rng.random(side * side), 0.75 * rng.random(side * side))
        cells = [int(s if r else w) for s, r, w in zip(solution, right, wrong, strict=True)]
        frames.append({"loop": loop, "cells": cells, "confidence": confidence.tolist()})
    return {
        "kind": "board",
        "side": side,
        "box": box,
        "given": given,
        "solution": solution,
        "rating": "1.2",
        "loops": frames,
    }


def slots_picture() -> dict[str, Any]:
    answer = ["9", "+", "6", "=", "15", ";", "15", "*", "5", "=", "75", ";", "75", "-", "4", "=", "71"]
    rng = np.random.default_rng(5)
    frames = []
    for loop in range(1, 7):
        right = rng.random(len(answer)) < loop / 6
        slots = [slot if ok else str(rng.integers(1, 99)) for slot, ok in zip(answer, right, strict=True)]
        frames.append(
            {"loop": loop, "slots": slots, "confidence": np.where(right, 0.9, 0.7 * rng.random(len(answer))).tolist()}
        )
    return {"kind": "slots", "title": "Countdown", "input": "4 5 6 9 → 71", "answer": answer, "loops": frames}


EDIT = {"name": "edit_distance", "length": 6, "min_letters": 3, "max_letters": 3}


def write_all(root: Path) -> Path:
    """4 variants x 2 learning rates x 3 seeds, one of them unfinished; one Sudoku run; one countdown run."""
    for recipe, (trained, by_seed) in SCORES.items():
        for seed, scores in enumerate(by_seed):
            for rate in RATES:
                better = rate == RATES[1]
                values = scores if better else [max(0.0, score - 0.05) for score in scores]
                at_trained = values[LOOPS.index(trained)]
                groups = {"length 6": values, "length 8": [value * 0.6 for value in values]}
                write_run(
                    root / "strings" / f"{recipe}-lr{rate:g}-seed{seed}", recipe=recipe, task=EDIT, trained=trained,
                    rows=eval_rows(groups, LOOPS, trained), validation=at_trained, learning_rate=rate, seed=seed,
                    modulation="scale_gate" if "tmlt" in recipe else "none",
                    note="One layer, d=64: a small relative of the published experiment." if "tmlt" in recipe else "",
                    examples=[distribution_picture(answer, seed + answer) for answer in (7, 9)],
                )  # fmt: skip
    write_run(
        root / "strings" / "demo_tmlt_4-lr0.004-seed0", recipe="demo_tmlt_4", task=EDIT, trained=4, rows=[],
        validation=0.9, learning_rate=4e-3, finished=False, modulation="scale_gate",
    )  # fmt: skip
    sudoku = eval_rows({"rating 0-1": (0.1, 0.6, 0.93), "rating 1-2": (0.0, 0.3, 0.71), "rating 2+": (0, 0.05, 0.22)},
                       (4, 8, 16), 16, "board_accuracy", 400)  # fmt: skip
    cells = eval_rows({"rating 0-1": (0.6, 0.9, 0.98), "rating 1-2": (0.5, 0.8, 0.93), "rating 2+": (0.4, 0.6, 0.7)},
                      (4, 8, 16), 16, "cell_accuracy", 400)  # fmt: skip
    write_run(
        root / "sudoku", recipe="sudoku", task={"name": "sudoku"}, trained=16, rows=sudoku + cells, validation=0.66,
        metric="board_accuracy", examples=[board_picture(3), board_picture(4, solved=False)], seconds=3605,
    )  # fmt: skip
    write_run(
        root / "countdown", recipe="countdown", task={"name": "countdown"}, trained=6, metric="exact",
        rows=eval_rows({"seen targets": (0.2, 0.5), "held-out targets": (0.1, 0.4)}, (3, 6), 6, "exact"),
        validation=0.5, examples=[slots_picture()],
    )  # fmt: skip
    return root
