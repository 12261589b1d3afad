"""Edit distance and LCS as weights (docs/constructions.md): the wavefront of a pair, and the checks."""

from __future__ import annotations

import itertools
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tyro.conf import Positional

from looped.commands.output import Table, print_table
from looped.commands.theory.results import write_result
from looped.lazy import torch
from looped.strict import at_least, check
from looped.tasks import TASKS
from looped.tasks.base import Task
from looped.theory import edit_distance as theory
from looped.theory.circuit import Program

if TYPE_CHECKING:
    from looped.models.transformer import LoopedTransformer

COSTS = ((1, 1), (2, 3), (1, 2), (3, 4))
LONGEST = 60  # letters that a table on the screen holds
MOST = 100_000  # pairs, and examples


def wavefront(
    first: Positional[str], second: Positional[str], gap: int = 2, replace: int = 3, out: Path | None = None
) -> None:
    """Watch one looped layer fill the table of edit distance: the cells that the model's states hold after each loop.

    Args:
        first: a string of the letters a-z.
        second: another one.
        gap: cost of an inserted or deleted letter.
        replace: cost of a replaced letter.
        out: folder for wavefront.json and wavefront.svg.
    """
    from looped.theory.weights import write

    for name, text in (("first", first), ("second", second)):
        fits = re.fullmatch("[a-z]+", text) is not None and len(text) <= LONGEST
        check(fits, name, text, f"1 to {LONGEST} of the letters a-z")
    loops = theory.loops_for(len(first + second))
    program = theory.edit_distance(gap * len(first + second) + 1, loops, gap=gap, replace=replace)
    tokens, (end,) = theory.encode([(first, second)])
    with torch.no_grad():
        output = write(program, tokens.shape[1])(torch.from_numpy(tokens), loop_states=True)
    cells = list(theory.cells(output.loop_states[:, 0].numpy(), first, second))
    values = {(i, j): (value, loop) for loop, i, j, value in cells}
    answer = int(output.logits[0, end].argmax())
    table = Table("", *" " + second, title="value of D, and the loop after which it is in the state")
    for i, letter in enumerate(" " + first):
        table.add_row(letter, *(f"{values[i, j][0]:g}\nloop {values[i, j][1]}" for j in range(len(second) + 1)))
    print_table(table)
    print(f"answer {answer} after {loops} loops of one layer with {program.circuit.cost().non_zeros} nonzero weights")
    if out:
        from looped.report import wavefront_figures

        facts = {"first": first, "second": second, "gap": gap, "replace": replace, "loops": loops, "answer": answer}
        write_result(out, "wavefront.json", {**facts, "cells": cells})
        last = len(first + second) + 1
        shown = [round(2 + share * (last - 2)) for share in np.linspace(0, 1, 6)]
        write_result(out, "wavefront.svg", wavefront_figures.wavefront(first, second, cells, sorted({*shown})))


def strings(pairs: int = 1800, examples: int = 1024, seed: int = 0, out: Path | None = None) -> None:
    """Check edit distance and LCS as weights: in whole numbers, in the model, by loop, with softmax, by format.

    Args:
        pairs: random pairs for each cost, in whole numbers, with up to 30 loops more than needed.
        examples: test examples of the tasks at lengths 10 and 20; a quarter of them at lengths 60 and 100.
        seed: seed of the random pairs.
        out: folder for strings.json.
    """
    for name, value in (("pairs", pairs), ("examples", examples)):
        check(1 <= value <= MOST, name, value, f"1 to {MOST:,}")
    at_least(0, seed=seed)
    facts: dict[str, Any] = {"pairs": pairs, "examples": examples, "seed": seed}
    facts["sizes"] = [_size(gap, replace) for gap, replace in COSTS] + [_size(2, 3, plateau=True)]
    _print("sizes of the layer that is looped", facts["sizes"])
    facts["whole"] = [_whole(gap, replace, pairs, seed) for gap, replace in COSTS]
    facts["whole"].append(_whole(0, 0, pairs, seed))
    _print("random pairs in whole numbers, compared with rapidfuzz after each of 0 to 30 further loops", facts["whole"])
    sizes = (("edit_distance", (10, 20, 60, 100)), ("lcs", (20, 100)))
    facts["model"] = [
        _scored(task, n, dtype, examples if n < 60 else -(-examples // 4))
        for task, lengths in sizes
        for n, dtype in itertools.product(lengths, ("float64", "float32"))
    ]
    _print("the library's model on the test split of its own tasks", facts["model"])
    facts["by_loop"] = _by_loop(20, examples)
    _print("edit distance at length 20, by loop", [row for row in facts["by_loop"] if row["loops"] >= 20])
    facts["softmax"] = [
        _scored("edit_distance", n, dtype, number, temperature, plateau)
        for n, number, plateau in ((20, 256, False), (20, 256, True), (40, 128, True), (100, 64, True))
        for temperature, dtype in itertools.product((8, 10, 12, 16, 24, 48), ("float64", "float32"))
    ]
    _print("softmax by inverse temperature, with ramps and plateaus", facts["softmax"])
    facts["bfloat16"] = [_scored("edit_distance", n, "bfloat16", examples) for n in (4, 5, 6, 8, 10, 20)]
    _print("bfloat16, which holds every whole number up to 256", facts["bfloat16"])
    if out:
        write_result(out, "strings.json", facts)


def _size(gap: int, replace: int, *, plateau: bool = False) -> dict[str, Any]:
    program = theory.edit_distance(2, 1, gap=gap, replace=replace, plateau=plateau)
    prelude = sum(layer.non_zeros() for layer in program.prelude)
    cost = program.circuit.cost()._asdict()
    return {"gap": gap, "replace": replace, "plateau": plateau, **cost, "prelude_non_zeros": prelude}


def _whole(gap: int, replace: int, count: int, seed: int) -> dict[str, Any]:
    """Random pairs of 1 to 40 letters, 30% near-copies, in int64; gap=0 is LCS."""
    from rapidfuzz.distance import LCSseq, Levenshtein

    rng, further = np.random.default_rng([seed, gap, replace]), 30
    pairs = sorted((_pair(rng) for _ in range(count)), key=lambda pair: len(pair[0] + pair[1]))
    build: Callable[..., Program] = theory.lcs if gap == 0 else theory.edit_distance
    costs = {} if gap == 0 else {"gap": gap, "replace": replace}
    answers = (max(gap, 1) * 80) + 1
    wrong = early = 0
    for start in range(0, count, 60):
        part = pairs[start : start + 60]
        if gap == 0:
            expected = np.array([LCSseq.similarity(*pair) for pair in part])
        else:
            expected = np.array([Levenshtein.distance(*pair, weights=(gap, gap, replace)) for pair in part])
        needed = np.array([theory.loops_for(len(first + second)) for first, second in part])
        tokens, ends = theory.encode(part)
        program = build(answers, int(needed.max()) + further, **costs)
        right = np.stack([
            program.output(state[np.arange(len(part)), ends][:, None]).argmax(-1)[:, 0] == expected
            for state in program.states(tokens, dtype="int64")
        ])  # fmt: skip
        loops = np.arange(1, len(right) + 1)[:, None]
        wrong += int((~right & (loops >= needed) & (loops <= needed + further)).any(axis=0).sum())
        early += int((~right & (loops == needed - 1)).any(axis=0).sum())
    names = {"gap": gap, "replace": replace} if gap else {"gap": "LCS", "replace": "LCS"}
    return {**names, "pairs": count, "wrong": wrong, "wrong_with_one_loop_less": early}


def _pair(rng: np.random.Generator) -> tuple[str, str]:
    letters = [*"abcdefghijklmnopqrstuvwxyz"[: rng.integers(1, 27)]]
    first, second = (rng.choice(letters, rng.integers(1, 41)).tolist() for _ in range(2))
    if rng.random() < 0.3:
        second = [letter for letter in first if rng.random() < 0.8] or first
    return "".join(first), "".join(second)


def _task(name: str, length: int) -> Task:
    return TASKS[name](TASKS[name].Config(length=length))  # pyright: ignore[reportCallIssue]


def _model(task: Task, length: int, temperature: float | None, plateau: bool) -> LoopedTransformer:
    from looped.theory.weights import write

    build = theory.lcs if task.name == "lcs" else theory.edit_distance
    assert task.spec.output_size is not None
    assert task.spec.max_seq_len is not None
    program = build(task.spec.output_size, theory.loops_for(2 * length + 2), plateau=plateau)
    return write(program, task.spec.max_seq_len, inverse_temperature=temperature)


def _scored(
    name: str, length: int, dtype: str, examples: int, temperature: float | None = None, plateau: bool = False
) -> dict[str, Any]:
    from looped.evaluation.scores import evaluate

    task = _task(name, length)
    model = _model(task, length, temperature, plateau).to(getattr(torch, dtype))
    began = time.process_time()
    (row,) = evaluate(model, task, loops=[model.num_loops], examples=examples)
    softmax = {} if temperature is None else {"inverse_temperature": temperature, "plateaus": plateau}
    right = {"examples": row["n"], "right": round(row["value"] * row["n"]), "accuracy": row["value"]}
    facts = {"task": name, "length": length, "dtype": dtype, "loops": model.num_loops}
    return facts | softmax | right | {"cpu_seconds": round(time.process_time() - began, 2)}


def _by_loop(length: int, examples: int) -> list[dict[str, Any]]:
    from looped.evaluation.scores import evaluate

    task = _task("edit_distance", length)
    model = _model(task, length, None, False)
    rows = evaluate(model, task, loops=range(1, model.num_loops + 11), examples=examples)
    return [{"loops": row["num_loops"], "accuracy": row["value"]} for row in rows]


def _print(title: str, rows: Sequence[dict[str, Any]]) -> None:
    table = Table(*rows[0], title=title)
    for row in rows:
        table.add_row(*(f"{value:.4g}" if isinstance(value, float) else str(value) for value in row.values()))
    print_table(table)
