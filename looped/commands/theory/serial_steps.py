"""Loops as serial steps: automata and other problems, right with enough loops and at chance with fewer."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Int
from tyro.conf import Positional

from looped.commands.arguments import different
from looped.commands.output import Table, print_table, say
from looped.commands.theory.results import write_result
from looped.commands.theory.serial_problems import PROBLEMS, S5, patience
from looped.lazy import torch
from looped.reading import read_text
from looped.strict import check
from looped.theory import automata
from looped.theory.arithmetic import Array
from looped.theory.automata import Automaton
from looped.theory.circuit import Graphs, Program

if TYPE_CHECKING:
    from looped.models import LoopedTransformer

MOST_LENGTH = 2048
SERIAL_LENGTH = 128
"""The serial circuit is run on words of at most this length, because n loops over n^2 scores take long."""


TEMPERATURES = (4, 6, 8, 10, 12, 16)


def automaton(
    target: Positional[str] = "s5", length: int = 64, examples: int = 64, seed: int = 0, out: Path | None = None
) -> None:
    """Run a finite automaton on random words in ceil(log2 n) loops, and in n loops, and with fewer.

    Args:
        target: s5 (products of permutations of five points), parity, seven (the remainder of a binary number divided
            by 7), random (7 states, 3 letters), or a text file with a line "state letter next-state" for each
            transition. Its first line begins with the start state.
        length: letters of a word.
        examples: number of random words.
        seed: of the words.
        out: folder for automaton.json and prefixes.svg.
    """
    check(1 <= length <= MOST_LENGTH, "length", length, f"1 to {MOST_LENGTH}")
    check(seed >= 0, "seed", seed, "at least 0")
    machine = load_automaton(target)
    most = most_examples(len(machine.states), length)
    expected = f"1 to {most} for {len(machine.states)} states, {length} letters"
    check(1 <= examples <= most, "examples", examples, expected)
    words = np.random.default_rng(seed).integers(0, len(machine.letters), (examples, length))
    maps, tokens = machine.maps(words), machine.tokens(words)
    program = automata.doubling(machine, length)
    cost = program.circuit.cost()
    say(
        f"{target}: {len(machine.states)} states, {len(machine.letters)} letters; one layer of "
        f"{cost.registers} registers, one head of size {cost.head_size}, {cost.units} units, {cost.non_zeros} nonzero "
        "weights"
    )
    short = min(length, SERIAL_LENGTH)
    slow = automata.serial(machine, short)
    facts: dict[str, Any] = {
        "automaton": target, "states": len(machine.states), "letters": len(machine.letters), "length": length,
        "examples": examples, "loops": program.loops, "cost": cost._asdict(),
        "serial_cost": slow.circuit.cost()._asdict(), "chance": share_equal(maps[:, -1]) if examples > 1 else None,
    }  # fmt: skip
    begun = time.perf_counter()
    right = (outputs_by_loop(program, tokens, program.loops) == maps).all(axis=-1)
    facts["seconds_whole_numbers"] = time.perf_counter() - begun
    begun = time.perf_counter()
    facts["model_right"] = float((model_outputs(program, tokens) == maps).all(axis=-1).mean())
    facts["seconds_model"] = time.perf_counter() - begun
    serial_right = outputs_by_loop(slow, tokens[:, : short + 1], short)[..., 0] == maps[:, : short + 1, 0]
    facts["prefixes"] = right[:, :, 1:].mean(axis=(1, 2)).tolist()
    facts["last"] = right[:, :, -1].mean(axis=1).tolist()
    facts["serial_last"] = serial_right[:, :, -1].mean(axis=1).tolist()
    chance = "" if facts["chance"] is None else f"; chance (the answer of another word): {facts['chance']:.1%}"
    table = Table("loops", "letters in a window", "prefixes right", "last prefix right",
                  title=f"doubling: {examples} words of {length} letters{chance}")  # fmt: skip
    for loop, (share, end) in enumerate(zip(facts["prefixes"], facts["last"], strict=True), start=1):
        table.add_row(str(loop), str(min(2**loop, length)), f"{share:.1%}", f"{end:.1%}")
    print_table(table)
    say(
        f"model in float64: {facts['model_right']:.1%} of all prefixes right after {program.loops} loops, "
        f"{facts['seconds_model']:.2f} s (whole numbers: {facts['seconds_whole_numbers']:.2f} s)"
    )
    fewer = f"{facts['serial_last'][-2]:.1%}" if short > 1 else "-"
    say(
        f"serial, {slow.circuit.cost().units} units, {short} letters from the start state: last prefix right "
        f"{facts['serial_last'][-1]:.1%} after {short} loops, {fewer} with one loop fewer"
    )
    if out:
        from looped.report import serial_figures

        write_result(out, "automaton.json", facts)
        panels = {"doubling": right.mean(axis=1), "serial": serial_right.mean(axis=1)}
        write_result(out, "prefixes.svg", serial_figures.prefixes(panels))


def most_examples(states: int, length: int) -> int:
    """The most words in a run of about two minutes. A token costs about ten operations a score, and all weights."""
    operations = length * length.bit_length() * (10 * length + 4 * states**3)
    return min(1024, max(1, 10**11 // operations))


def load_automaton(target: str) -> Automaton:
    """A built-in automaton by name, or the one of a text file.

    Raises:
        ValueError: no such name or file, or a mistake in the file.
    """
    if target in automata.BUILT_IN:
        return automata.BUILT_IN[target]()
    if not Path(target).is_file():
        raise ValueError(f"automaton {target!r}: expected a text file or one of {', '.join(automata.BUILT_IN)}")
    return automata.parse(read_text(Path(target)), target)


def serial(
    sizes: tuple[int, ...] = (4, 8, 16, 32, 64), examples: int = 256, seed: int = 0, out: Path | None = None
) -> None:
    """Check the serial circuits on many words, and measure how many loops they need against the size.

    Args:
        sizes: sizes n of the examples for the figure.
        examples: number of random examples of each size.
        seed: of the examples.
        out: folder for serial.json, loops.svg.
    """
    check(len(sizes) > 0 and all(2 <= n <= 256 for n in sizes), "sizes", sizes, "numbers from 2 to 256")
    check(1 <= examples <= 4096, "examples", examples, "1 to 4096")
    check(seed >= 0, "seed", seed, "at least 0")
    different(sizes=sizes)
    checks = [*check_automata(seed), check_increasing(seed)]
    numbers = ("n", "examples", "loops", "wrong", "wrong_model")
    table = Table("circuit", "n", "examples", "loops", "wrong", "wrong, model", "last right, one loop fewer", "chance",
                  title="every prefix against the definition")  # fmt: skip
    for row in checks:
        shares = ("" if row[key] is None else f"{row[key]:.1%}" for key in ("last_with_one_fewer", "chance"))
        table.add_row(row["circuit"], *(str(row[key]) for key in numbers), *shares)
    print_table(table)
    rows = [row for name in PROBLEMS for n in sorted(sizes) for row in [measure(name, n, examples, seed)]]
    table = Table("problem", "loops", "n", "loops needed", "right with one loop fewer", "right with half the loops",
                  title=f"{examples} random examples of each size")  # fmt: skip
    for row in rows:
        by = row["right"]
        table.add_row(row["problem"], row["formula"], str(row["n"]), str(row["needed"]),
                      *(f"{by[k - 1]:.1%}" if k else "" for k in (row["loops"] - 1, row["loops"] // 2)))  # fmt: skip
    print_table(table)
    formats = check_formats(seed)
    names = [f"softmax * {key}" if key.isdigit() else key for key in list(formats[0])[1:]]
    table = Table("n", *names,
                  title="S5, doubling: prefixes right with softmax of multiplied scores, or in fewer bits")  # fmt: skip
    for row in formats:
        n, *shares = row.values()
        table.add_row(str(n), *(f"{share:.1%}" for share in shares))
    print_table(table)
    if out:
        from looped.report import serial_figures

        write_result(out, "serial.json", {"checks": checks, "rows": rows, "formats": formats})
        write_result(out, "loops.svg", serial_figures.loops(rows))


def measure(name: str, n: int, examples: int, seed: int) -> dict[str, Any]:
    """The share of right answers after 1, 2, ... loops, and the fewest loops from which on all are right."""
    problem = PROBLEMS[name]
    program = problem.program(n)
    drawn = problem.draw(np.random.default_rng([seed, n]), n, examples)
    outputs = outputs_by_loop(program, drawn.inputs, program.loops, drawn.graphs)
    right = [float((problem.read(o) == drawn.answers).reshape(examples, -1).all(axis=1).mean()) for o in outputs]
    wrong = [loop for loop, share in enumerate(right, start=1) if share < 1]
    return {
        "problem": name, "formula": problem.loops, "n": n, "loops": program.loops, "right": right,
        "needed": 1 + max(wrong, default=0), "examples": examples,
    }  # fmt: skip


def check_automata(seed: int) -> list[dict[str, Any]]:
    """All prefixes of random words: S5 at many lengths, and ten random automata of each size."""
    cases = [("S5", [S5], n, 16 if n > 500 else 64) for n in (1, 2, 5, 16, 63, 64, 255, 1024)]
    for states in (2, 3, 7):
        machines = [automata.random_automaton(states, 3, number) for number in range(10)]
        cases.append((f"ten random automata, {states} states", machines, 100, 20))
    found = []
    for name, machines, n, examples in cases:
        loops = (n - 1).bit_length()
        wrong, wrong_model, fewer, equal = 0, 0, [], []
        for machine in machines:
            words = np.random.default_rng([seed, n]).integers(0, len(machine.letters), (examples, n))
            maps, tokens = machine.maps(words), machine.tokens(words)
            program = automata.doubling(machine, n)
            wrong += int((_run(program, tokens, loops) != maps).any(axis=-1).sum())
            wrong_model += int((model_outputs(program, tokens) != maps).any(axis=-1).sum())
            if loops:
                fewer.append((_run(program, tokens, loops - 1) == maps)[:, -1].all(axis=-1).mean())
            equal.append(share_equal(maps[:, -1]))
        found.append({
            "circuit": name, "n": n, "examples": examples * len(machines), "loops": loops, "wrong": wrong,
            "wrong_model": wrong_model, "last_with_one_fewer": float(np.mean(fewer)) if fewer else None,
            "chance": float(np.mean(equal)),
        })  # fmt: skip
    return found


def check_formats(seed: int) -> list[dict[str, Any]]:
    """The share of right prefixes of S5 with softmax at several inverse temperatures, and in shorter formats."""
    from looped.theory.weights import write

    found = []
    for n in (16, 64, 256):
        words = np.random.default_rng([seed, n]).integers(0, len(S5.letters), (16, n))
        maps, tokens = S5.maps(words), S5.tokens(words)
        program = automata.doubling(S5, n)
        row: dict[str, Any] = {"n": n}
        for key in (*TEMPERATURES, "float32", "bfloat16"):
            model = write(program, n + 1, inverse_temperature=key if isinstance(key, int) else None)
            if isinstance(key, str):
                model = model.to(getattr(torch, key))
            row[str(key)] = float((_logits(model, tokens).round() == maps).all(axis=-1).mean())
        found.append(row)
    return found


def _run(program: Program, inputs: Array, loops: int) -> Array:
    return np.concatenate([program.run(inputs[part], loops=loops, dtype=np.int64) for part in _parts(inputs)])


def share_equal(answers: Array) -> float:
    """The share of pairs of different examples that have the same answer."""
    counts = np.unique(answers, axis=0, return_counts=True)[1]
    return float((counts * (counts - 1)).sum() / (len(answers) * (len(answers) - 1)))


def check_increasing(seed: int) -> dict[str, Any]:
    """The subsequences that end at every place of 900 sequences, against patience sorting."""
    wrong = wrong_model = 0
    lengths = (1, 2, 3, 5, 9, 17, 30, 44, 59)
    for n in lengths:
        numbers = np.random.default_rng([seed, n]).integers(-n, n + 1, (100, n))
        wanted = np.array([patience(row) for row in numbers.tolist()])
        program = automata.increasing(n)
        wrong += int((_run(program, numbers[..., None], n)[..., 0] != wanted).sum())
        wrong_model += int((model_outputs(program, numbers[..., None].astype(float))[..., 0] != wanted).sum())
    return {
        "circuit": "increasing subsequence", "n": f"1 to {lengths[-1]}", "examples": 100 * len(lengths), "loops": "n",
        "wrong": wrong, "wrong_model": wrong_model, "last_with_one_fewer": None, "chance": None,
    }  # fmt: skip


def outputs_by_loop(program: Program, inputs: Array, loops: int, graphs: Graphs | None = None) -> Int[Array, ...]:
    """(loops, batch, seq, outputs) the outputs after each loop, in whole numbers."""
    parts = []
    for part in _parts(inputs):
        these = {name: graph[part] for name, graph in (graphs or {}).items()}
        states = program.states(inputs[part], loops=loops, dtype=np.int64, graphs=these)
        parts.append(np.stack([program.output(state) for state in states]))
    return np.concatenate(parts, axis=1)


def model_outputs(program: Program, inputs: Array) -> Array:
    """(batch, seq, outputs) the outputs of the program's `LoopedTransformer` in float64."""
    from looped.theory.weights import write

    return _logits(write(program, inputs.shape[1]), inputs)


def _logits(model: LoopedTransformer, inputs: Array) -> Array:
    with torch.no_grad():
        parts = [model(torch.from_numpy(inputs[part])).logits.double().numpy() for part in _parts(inputs)]
    return np.concatenate(parts)


def _parts(inputs: Array) -> list[slice]:
    """Slices of the batch with at most four million scores each."""
    size = max(1, 2**22 // inputs.shape[1] ** 2)
    return [slice(first, first + size) for first in range(0, len(inputs), size)]
