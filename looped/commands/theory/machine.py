"""Computers as one looped layer: programs, and the checks of the machines (docs/constructions.md)."""

import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from tyro.conf import Positional

from looped.commands.output import Table, print_table, print_text
from looped.commands.theory.results import write_result
from looped.report import machine_figures
from looped.strict import at_least, check, nearest
from looped.theory.assembler import Image, assemble
from looped.theory.computer import execute
from looped.theory.expressions import compile_expression
from looped.theory.tracing import Event, expected_states, follow

PROGRAMS = {path.stem: path for path in sorted((Path(assemble.__code__.co_filename).parent / "programs").glob("*.asm"))}
MOST_LOOPS = 100_000
MOST_TOKENS = 4096
SHOWN = 30


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
        loops: stop after so many loops; the default is to run until the program halts.
        out: folder for run.json and memory.svg.
    """
    at_least(1, loops=loops)
    text, name = _source(program)
    image = assemble(text, name, machine, input)
    built = image.machine()
    check(built.size <= MOST_TOKENS, f"{name}: cells or instructions", built.size, f"at most {MOST_TOKENS:,}")
    most = MOST_LOOPS if loops is None else loops
    events = follow(image, built, most // built.loops)
    halts = bool(events) and (events[-1].at, events[-1].before) == (events[-1].counter, events[-1].after)
    if loops is None and not halts:
        raise ValueError(f"{name}: does not halt within {most:,} loops; expected --loops N, to see the first N")
    cost = built.program.circuit.cost()
    print(
        f"{name}: {len(image.lines)} instructions on the machine {image.kind!r}: one layer, {cost.registers} registers, "
        f"{cost.heads} heads of size {cost.head_size}, {cost.units} units, {cost.non_zeros} nonzero weights, "
        f"{built.size} tokens"
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
        content = {"program": name, "inputs": list(input), "machine": image.kind, "tokens": built.size, "halted": halts,
                   "program_instructions": len(image.lines), **cost._asdict(), **facts}  # fmt: skip
        trace = {"counter": [e.at for e in events], "cell": [e.cell for e in events], "value": [e.after for e in events]}
        write_result(out, "run.json", {**content, "trace": trace})
        memory = np.array([cells for cells, _ in expected_states(image, built, events)][:: built.loops])
        names = [image.name(address) for address in range(len(image.memory))]
        counters = [event.at for event in events]
        write_result(out, "memory.svg", machine_figures.memory(memory[:, : len(names)], names, counters, built.loops))
    if not halts:
        raise ValueError(f"{name}: has not halted after --loops {loops}")


def _source(program: str) -> tuple[str, str]:
    """The text of a program, and its name in messages."""
    path = Path(program)
    if program in PROGRAMS:
        path = PROGRAMS[program]
    if path.is_file():
        return path.read_text(errors="replace"), path.name
    if re.fullmatch(r"[\d\s()*+-]+", program):
        return compile_expression(program), "expression"
    known = ", ".join(PROGRAMS)
    raise ValueError(f"{program}: no such file or example{nearest(program, PROGRAMS)}; expected one of {known}")


def _execute(image: Image, events: Sequence[Event], loops: int) -> dict[str, Any]:
    """Run the model and the circuit in whole numbers; compare both with the interpreter's events after every loop."""
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
    if done < len(events) * machine.loops:
        raise RuntimeError(f"the model stopped after {done} loops, before the interpreter")
    result = {name: [int(memory[cell]) for cell in image.names[name]] for name in image.results}
    return {"loops": done, "model_seconds": seconds[0], "whole_seconds": seconds[1], "result": result}


def _steps(image: Image, events: Sequence[Event], loops: int) -> Table:
    """The first and last instructions of a run."""
    table = Table("loop", "line", "instruction", "changes", "continues at line", title="counter and changed cells by loop")
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
