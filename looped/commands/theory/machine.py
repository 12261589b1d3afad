"""Computers as one looped layer: programs, and the checks of the machines (docs/constructions.md)."""

import itertools
import os
import re
import time
from collections.abc import Sequence
from pathlib import Path
from reprlib import repr as shown  # cuts what is long
from typing import Any, Literal

import numpy as np
from tyro.conf import Positional

from looped.commands.output import Table, print_table, print_text
from looped.commands.theory.results import write_result
from looped.strict import at_least, check, nearest
from looped.theory.computer.assembler import Image, assemble
from looped.theory.computer.expressions import compile_expression
from looped.theory.computer.machine import MACHINES
from looped.theory.computer.programs import PROGRAMS
from looped.theory.computer.random_programs import random_programs
from looped.theory.computer.tracing import Event, expected_states, follow

MOST_LOOPS = 100_000  # without --loops, which allows ten times as many
MOST_TOKENS = 4096
MOST_PROGRAMS = 100_000
SHOWN = 30
MOST_COLUMNS = 1500
"""The most in the picture of a memory; longer runs show every second instruction, every third, and so on."""


def run(
    program: Positional[str],
    input: tuple[str, ...] = (),
    machine: Literal["subleq", "four", "self-modifying"] | None = None,
    loops: int | None = None,
    out: Path | None = None,
) -> None:
    """Run a program, or an expression such as "3 + 4 * 5", on a computer that is one looped layer.

    The model (float64) and the same circuit in whole numbers are compared with an interpreter after every loop.

    Args:
        program: a file in the assembler's language, an expression on whole numbers, or an example: fibonacci, gcd,
            matrix, multiply, primes, sort, sum, tower, triangle.
        input: values of the program's inputs: numbers in their order, or NAME=NUMBER,NUMBER,...
        machine: subleq (one operation, one loop an instruction), four (sub, add, move and compare) or self-modifying
            (subleq with instructions in the same memory as data, two loops an instruction). The default is that of the
            program's line `machine`, or subleq.
        loops: stop after so many loops, which is an error if the program has not halted; the default is to run until it
            halts.
        out: folder for run.json and memory.svg.
    """
    check(loops is None or 1 <= loops <= 10 * MOST_LOOPS, "loops", loops, f"1 to {10 * MOST_LOOPS:,}")
    text, name = _source(program)
    image = assemble(text, name, machine, input)
    built = image.machine()
    check(built.size <= MOST_TOKENS, f"{name}: cells or instructions", built.size, f"at most {MOST_TOKENS:,}")
    most = MOST_LOOPS if loops is None else loops
    events = follow(image, -(-most // built.loops))
    halts = events[-1].halts and len(events) * built.loops <= most
    if loops is None and not halts:
        raise ValueError(f"{name}: does not halt within {most:,} loops; expected --loops N with the most loops to run")
    cost = built.program.circuit.cost()
    print(
        f"{name}: {len(image.lines)} instructions, {built.size} tokens. Machine {image.kind!r}: one layer, "
        f"{cost.registers} registers, {cost.heads} heads of size {cost.head_size}, {cost.units} units, "
        f"{cost.non_zeros} nonzero weights"
    )
    facts = _execute(image, events, most)
    done = facts["loops"] // built.loops
    print_table(_steps(image, events[:done], built.loops))
    _print_results(image, facts["result"])
    print(
        f"{facts['loops']:,} loops for {done:,} instructions: {facts['model_seconds']:.2f} s in the model, "
        f"{facts['whole_seconds']:.2f} s in whole numbers. Memory and counter of every token equal those of the "
        "interpreter after every loop."
    )
    if out:
        from looped.report import machine_figures

        content = {"program": name, "inputs": list(input), "machine": image.kind, "tokens": built.size, "halted": halts,
                   "program_instructions": len(image.lines), **cost._asdict(), **facts}  # fmt: skip
        trace = {
            "counter": [e.at for e in events],
            "cell": [e.cell for e in events],
            "value": [e.after for e in events],
        }
        write_result(out, "run.json", {**content, "trace": trace})
        every = built.loops * -(-len(events) // MOST_COLUMNS)
        states = itertools.islice(expected_states(image, built, events), built.loops - 1, None, every)
        names = [image.name(address) for address in range(len(image.memory))]
        memory = np.array([cells[: len(names)] for cells, _ in states])
        counters = [event.at for event in events]
        write_result(out, "memory.svg", machine_figures.memory(memory, names, counters, built.loops))
    if not halts:
        raise ValueError(f"{name}: has not halted after --loops {loops}")


def _source(program: str) -> tuple[str, str]:
    """The text of a program, and its name in messages."""
    path = Path(program)
    if program in PROGRAMS:
        path = PROGRAMS[program]
    if os.path.isfile(path):  # False for an expression that is too long for a name
        return path.read_text(errors="replace"), path.name
    if re.fullmatch(r"[\d\s()*+/%^.<>=-]+", program):
        return compile_expression(program), "expression"
    raise ValueError(
        f"program {shown(program)}: no such file{nearest(program, PROGRAMS)}; expected a file, an expression on whole "
        f"numbers, or one of {', '.join(PROGRAMS)}"
    )


def _execute(image: Image, events: Sequence[Event], loops: int) -> dict[str, Any]:
    """Run the model and the circuit in whole numbers; compare both with the interpreter's events after every loop."""
    from looped.theory.computer.execution import execute

    machine = image.machine()
    inputs, names = machine.inputs(image.memory, image.code), machine.program.circuit.registers
    columns = [names.index("m"), names.index("pc")]
    whole = machine.program.states(inputs[None], loops=loops)
    expected = expected_states(image, machine, events)
    seconds, done, memory = [0.0, 0.0], 0, np.zeros(machine.size)
    chunks = execute(machine, inputs, loops)
    while True:
        start = time.perf_counter()
        states = next(chunks, None)
        seconds[0] += time.perf_counter() - start
        if states is None:
            break
        for state in states:
            start = time.perf_counter()
            exact = next(whole)[0]
            seconds[1] += time.perf_counter() - start
            memory, counter = next(expected)
            done += 1
            for kind, found in (("model", state[:, columns]), ("circuit in whole numbers", exact[:, columns])):
                if (found[:, 0] != memory).any() or (found[:, 1] != counter).any():
                    raise RuntimeError(f"the {kind} differs from the interpreter after loop {done}")
    if done < min(loops, len(events) * machine.loops):
        raise RuntimeError(f"the model stopped after {done} loops, before the interpreter")
    result = {name: [int(memory[cell]) for cell in image.names[name]] for name in image.results}
    return {"loops": done, "model_seconds": seconds[0], "whole_seconds": seconds[1], "result": result}


def _steps(image: Image, events: Sequence[Event], loops: int) -> Table:
    """The first and last instructions of a run."""
    table = Table(
        "loop", "line", "instruction", "changes", "continues at line", title="counter and changed cells by loop"
    )
    shown = range(len(events))
    skipped = len(events) - SHOWN
    for i in shown:
        if skipped > 0 and SHOWN // 2 <= i < SHOWN // 2 + skipped:
            if i == SHOWN // 2:
                table.add_row("...", "", f"({skipped:,} more instructions)", "", "")
            continue
        event = events[i]
        line = image.line(event.at)
        change = f"{image.name(event.cell)}: {event.before} -> {event.after}" if event.before != event.after else ""
        following = image.line(event.counter).number
        table.add_row(f"{(i + 1) * loops:,}", str(line.number), line.text, change, str(following))
    return table


def _print_results(image: Image, result: dict[str, list[int]]) -> None:
    table = Table("result", "value")
    for name, values in result.items():
        width = image.results[name]
        if width:
            rows = [values[i : i + width] for i in range(0, len(values), width)]
            print_text("\n".join("".join("#" if value else " " for value in row).rstrip() for row in rows), end="\n")
        else:
            table.add_row(name, " ".join(map(str, values)))
    if table.row_count:
        print_table(table)


def machines(
    programs: int = 1000, model_programs: int = 300, softmax_programs: int = 40, seed: int = 0, out: Path | None = None
) -> None:
    """Compare random programs on each machine with an interpreter after every loop, and count the example programs.

    Args:
        programs: random programs of 60 instructions for each machine and size, in whole numbers.
        model_programs: how many of them also run in the model, in float64.
        softmax_programs: random programs of 50 instructions for each machine, size and inverse temperature; 0 is none.
        seed: of the random programs.
        out: folder for machines.json.
    """
    from looped.theory.computer.checks import in_model, in_whole_numbers

    at_least(0, seed=seed)
    limits = (
        ("programs", programs, 1),
        ("model_programs", model_programs, 1),
        ("softmax_programs", softmax_programs, 0),
    )
    for option, value, least in limits:
        check(least <= value <= MOST_PROGRAMS, option, value, f"{least} to {MOST_PROGRAMS:,}")
    sizes = [{"machine": kind, **build(8).program.circuit.cost()._asdict(), "loops_per_instruction": build(8).loops}
             for kind, build in MACHINES.items()]  # fmt: skip
    _print_rows("the machines", sizes)
    random = []
    for kind, build in MACHINES.items():
        for size in (8, 24, 60):
            machine = build(size)
            batch = random_programs(machine, programs, 60, seed=seed)
            some = batch.part(0, model_programs)
            random.append({
                "machine": kind, "tokens": size, "drawn": batch.drawn, "programs": len(batch.inputs),
                "wrong": in_whole_numbers(machine, batch).programs, "programs_in_model": len(some.inputs),
                "wrong_in_model": in_model(machine, some).programs,
            })  # fmt: skip
    _print_rows("random programs, 60 instructions, memory and all counters compared after every loop", random)
    softmax = []
    for kind, build in MACHINES.items() if softmax_programs else ():
        for size in (16, 64, 256):
            machine = build(size)
            batch = random_programs(machine, softmax_programs, 50, seed=seed, bound=machine.bound // 16)
            for temperature in (4.0, 8.0, 12.0, 16.0, 24.0, 28.0, 32.0):
                wrong = in_model(machine, batch, inverse_temperature=temperature)
                softmax.append({
                    "machine": kind, "tokens": size, "inverse_temperature": temperature,
                    "programs": softmax_programs, "wrong": wrong.programs, "error": wrong.error,
                })  # fmt: skip
    if softmax:
        _print_rows("softmax: wrong programs by inverse temperature", softmax)
    examples = [_example(name, path) for name, path in PROGRAMS.items()]
    _print_rows("example programs: instructions in the program, and executed until it halts", examples)
    if out:
        write_result(out, "machines.json", {"seed": seed, "sizes": sizes, "random": random, "softmax": softmax,
                                            "examples": examples})  # fmt: skip


def pointers(out: Path | None = None) -> None:
    """Compare four encodings of a pointer: head size, gap of scores, inverse temperature, and the largest exact size.

    Args:
        out: folder for pointers.json and pointers.svg.
    """
    from looped.theory.pointers import ENCODINGS, FORMATS, largest_right, measure

    rows = [measure(name, 2**k) for name in ENCODINGS for k in range(2, 12)]
    chosen = [row._asdict() for row in rows if row.n in (16, 256, 2048)]
    _print_rows("inverse temperature for an error of 1e-6", chosen)
    limits = [{"encoding": name, **{kind: largest_right(name, dtype) for kind, dtype in FORMATS.items()}}
              for name in ENCODINGS]  # fmt: skip
    _print_rows("largest number of positions, of powers of two up to 4,096, with every read right", limits)
    if out:
        from looped.report import machine_figures

        content = [row._asdict() for row in rows]
        write_result(out, "pointers.json", {"error": 1e-6, "temperatures": content, "largest": limits})
        write_result(out, "pointers.svg", machine_figures.pointers(content, limits))


def _example(name: str, path: Path) -> dict[str, Any]:
    """The instructions of an example program on both machines, with the program's own inputs."""
    row: dict[str, Any] = {"program": name}
    for kind in ("subleq", "four", "self-modifying"):
        text = path.read_text()
        if kind != "self-modifying" and "machine self-modifying" in text:
            continue
        image = assemble(text, path.name, kind)
        row |= {f"{kind}_instructions": len(image.lines), f"{kind}_tokens": image.machine().size,
                f"{kind}_executed": len(follow(image, MOST_LOOPS))}  # fmt: skip
    return row


def _print_rows(title: str, rows: Sequence[dict[str, Any]]) -> None:
    names = list(dict.fromkeys(name for row in rows for name in row))
    table = Table(*(name.replace("_", " ") for name in names), title=title)
    for row in rows:
        values = [row.get(name, "") for name in names]
        table.add_row(*(f"{value:,.4g}" if isinstance(value, float) else str(value) for value in values))
    print_table(table)
