"""An assembler for the machines: labels, named cells, constants and macros. docs/constructions.md describes it.

The language has four instructions: sub, add, move and compare. For machines that have `sub` alone, the others are
macros. The same text therefore runs on every machine.
"""

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from looped.strict import nearest
from looped.theory.computer.machine import FOUR, MACHINES, SHORT_WORD, SUBLEQ, WORD, Instruction, Machine
from looped.theory.computer.macros import MACROS

NAME = re.compile(r"[A-Za-z_]\w*")
COUNT = re.compile(r"\d{1,18}")
DECLARATIONS = ("cell", "input", "output", "picture")
BOUNDS = {"subleq": WORD, "four": WORD, "self-modifying": SHORT_WORD}
MOST_CELLS, MOST_CALLS = 1_000_000, 20_000
"""The most in a program."""


class Line(NamedTuple):
    """A place in a file, for messages and for the table of a run."""

    file: str
    number: int
    text: str
    call: int = 0
    """The line that calls the macro, for a line in a macro."""

    def error(self, message: str) -> ValueError:
        called = f" (in the macro that line {self.call} calls)" if self.call else ""
        return ValueError(f"{self.file}:{self.number}: {message}{called}")


class Statement(NamedTuple):
    """A label, or the words of an instruction."""

    line: Line
    label: str | None = None
    words: tuple[str, ...] = ()


class Macro(NamedTuple):
    parameters: list[str]
    body: list[Statement]
    builtin: bool


class Declaration(NamedTuple):
    """One or more cells under one name."""

    line: Line
    kind: str
    values: list[str]
    width: int
    """The cells in a row of a picture, else 0."""


class Image(NamedTuple):
    """A program as the numbers that a machine starts with."""

    kind: str
    memory: list[int]
    code: list[Instruction]
    """Empty if the instructions are in the memory."""
    lines: list[Line]
    """The line of every instruction."""
    names: dict[str, range]
    """The addresses of the cells of each name."""
    results: dict[str, int]
    """The names to show at the end, with the width of a picture, or 0."""

    @property
    def bound(self) -> int:
        """The word size of its machine."""
        return BOUNDS[self.kind]

    def machine(self) -> Machine:
        """The machine of exactly the size of this program."""
        return MACHINES[self.kind](max(len(self.memory), len(self.code)))

    def line(self, counter: int) -> Line:
        """The line of the instruction at this counter."""
        at = counter if self.code else counter // 3
        return self.lines[at] if at < len(self.lines) else Line(self.lines[0].file, 0, f"(data at {counter})")

    def name(self, address: int) -> str:
        """The cell as the program names it: x, a+2, or a word of an instruction."""
        for name, cells in self.names.items():
            if address in cells:
                return name if len(cells) == 1 else f"{name}+{address - cells.start}"
        return f"line {self.lines[address // 3].number}, word {address % 3}"


def assemble(text: str, file: str, kind: str | None = None, inputs: Sequence[str] = ()) -> Image:
    """Translate a program for a machine.

    Args:
        file: its name, for messages.
        kind: subleq, four or self-modifying; None is the one of the program's line `machine`, or subleq without it.
        inputs: numbers for the cells that the program declares as inputs, in their order; or NAME=NUMBER,NUMBER,...

    Raises:
        ValueError: one line with file and line number: an unknown instruction, cell or label, a name declared twice, a
            number or a target out of range, or a program that can run off its end.
    """
    own: str | None = None
    for number, raw in enumerate(text.splitlines(), 1):
        words = raw.partition(";")[0].split()
        if words[:1] == ["machine"]:
            if len(words) != 2 or words[1] not in MACROS:
                raise Line(file, number, raw).error(f"machine: expected one of {', '.join(MACROS)}")
            if own:
                raise Line(file, number, raw).error("a second line 'machine'; expected one")
            own = words[1]
    return _Assembler(file, kind or own or "subleq").assemble(text, inputs)


class _Assembler:
    def __init__(self, file: str, kind: str) -> None:
        self.file, self.kind = file, kind
        self.one_memory = kind == "self-modifying"
        self.operations = tuple(FOUR) if kind == "four" else tuple(SUBLEQ)
        self.bound = BOUNDS[kind]
        self.macros: dict[tuple[str, int], Macro] = {}
        self.declared: dict[str, Declaration] = {}
        self.cells = self.calls = 0
        self.labels: dict[str, int] = {}
        self.names: dict[str, range] = {}
        self.memory: list[int] = []
        self._read("macros", MACROS[kind], builtin=True)

    def assemble(self, text: str, inputs: Sequence[str]) -> Image:
        parts = [part for statement in self._read(self.file, text) for part in self._expand(statement)]
        instructions = [part for part in parts if part.label is None]
        if not instructions:
            raise ValueError(f"{self.file}: expected at least one instruction")
        at = 0
        for part in parts:
            if part.label is None:
                at += 1
            elif part.label in self.labels or part.label in self.declared:
                raise part.line.error(f"{part.label!r} is declared twice")
            elif at == len(instructions):
                raise part.line.error("the program can run off its end; expected a jump or halt as the last line")
            else:
                self.labels[part.label] = at
        self.memory = [0] * (3 * len(instructions) * self.one_memory)
        for name, cells in self.declared.items():
            self._new(name, [0] * len(cells.values))
        for name, values in self._inputs(inputs).items():
            line = self.declared[name].line
            first = self.names[name].start
            self.memory[first : first + len(values)] = [self._value(value, line) for value in values]
        code = [self._instruction(part, i, len(instructions)) for i, part in enumerate(instructions)]
        last = code[-1]
        if last.operation not in ("sub", "compare") or last.a != last.b or not self._has_target(instructions[-1]):
            raise instructions[-1].line.error(
                "the program can run off its end; expected a jump or halt as the last line"
            )
        if self.one_memory:
            words = [word for i in code for word in (i.a, i.b, 3 * i.target)]
            self.memory[: len(words)] = words
        shown = [name for name, cells in self.declared.items() if cells.kind in ("output", "picture")]
        results = {name: self.declared[name].width for name in shown or self.declared}
        lines = [part.line for part in instructions]
        return Image(self.kind, self.memory, [] if self.one_memory else code, lines, self.names, results)

    # Text to statements

    def _read(self, file: str, text: str, *, builtin: bool = False) -> list[Statement]:
        statements: list[Statement] = []
        macro: Macro | None = None
        begin = Line(file, 0, "")
        for number, raw in enumerate(text.splitlines(), 1):
            code = raw.partition(";")[0]
            line = Line(file, number, " ".join(code.split()))
            *labels, rest = code.split(":")
            words = tuple(rest.replace(",", " ").split())
            body = statements if macro is None else macro.body
            for label in map(str.strip, labels):
                self._check_name(label, line)
                body.append(Statement(line, label))
            if words[:1] == ("macro",):
                macro, begin = self._macro(words[1:], line, macro, builtin), line
            elif words == ("end",):
                if macro is None:
                    raise line.error("end: expected a line 'macro' before it")
                macro = None
            elif words and words[0] == "machine":
                continue
            elif words and words[0] in DECLARATIONS:
                if macro is not None:
                    raise line.error(f"{words[0]}: expected outside of a macro")
                self._declare(words, line)
            elif words:
                body.append(Statement(line, None, words))
        if macro is not None:
            raise begin.error("macro: expected a line 'end' after it")
        return statements

    def _macro(self, words: Sequence[str], line: Line, outer: Macro | None, builtin: bool) -> Macro:
        if outer is not None or not words:
            raise line.error("macro: expected a name and parameters, outside of another macro")
        name, *parameters = words
        if len(set(parameters)) < len(parameters):
            raise line.error(f"macro {name!r}: two parameters have the same name")
        if (name, len(parameters)) in self.macros or name in (*self.operations, "macro", "end", *DECLARATIONS):
            raise line.error(f"macro {name!r}: exists already with {len(parameters)} operands")
        made = self.macros[name, len(parameters)] = Macro(parameters, [], builtin)
        return made

    def _declare(self, words: Sequence[str], line: Line) -> None:
        kind, *rest = words
        if not rest:
            raise line.error(f"{kind}: expected a name")
        name, *values = rest
        self._check_name(name, line)
        if name in self.declared:
            raise line.error(f"{name!r} is declared twice")
        width = 0
        if kind == "picture":
            if not values or not COUNT.fullmatch(values[0]) or not int(values[0]):
                raise line.error("picture: expected a name, the number of cells in a row, and values")
            width = int(values.pop(0))
        self.declared[name] = Declaration(line, kind, self._repeated(values, line) or ["0"], width)

    def _repeated(self, values: Sequence[str], line: Line) -> list[str]:
        found: list[str] = []
        for value in values:
            count, star, rest = value.rpartition("*")
            if star and not COUNT.fullmatch(count):
                raise line.error(f"{value!r}: expected COUNT*NUMBER")
            self.cells += int(count or 1)
            if self.cells > MOST_CELLS:
                raise line.error(f"{value!r}: expected at most {MOST_CELLS:,} cells in a program")
            found += [rest] * int(count or 1)
        return found

    def _check_name(self, name: str, line: Line) -> None:
        if not NAME.fullmatch(name):
            raise line.error(f"name {name!r}: expected letters, digits and _, and no digit first")

    # Statements to instructions

    def _expand(self, statement: Statement, depth: int = 0) -> Iterator[Statement]:
        line, label, words = statement
        macro = None if label else self.macros.get((words[0], len(words) - 1))
        if macro is None:
            yield statement
            return
        if depth == 50:
            raise line.error(f"macro {words[0]!r} calls itself")
        self.calls += 1
        if self.calls > MOST_CALLS:
            raise line.error(f"more than {MOST_CALLS:,} calls of macros")
        renamed = {part.label: f"{part.label}%{self.calls}" for part in macro.body if part.label}
        renamed |= dict(zip(macro.parameters, words[1:], strict=True))
        for part in macro.body:
            new = tuple(_rename(word, renamed) if i else word for i, word in enumerate(part.words))
            called = Line(self.file, part.line.number, " ".join(new), line.call or line.number)
            place = line if macro.builtin else called
            yield from self._expand(Statement(place, part.label and renamed[part.label], new), depth + 1)

    def _instruction(self, part: Statement, at: int, count: int) -> Instruction:
        (operation, *operands), line = part.words, part.line
        built_in = {3} if operation == "compare" else {2, 3}  # to compare without a target does nothing
        known_sizes = {n for name, n in self.macros if name == operation}
        sizes = sorted(known_sizes | (built_in if operation in self.operations else set()))
        if not sizes:
            known = {name for name, _ in self.macros} | set(self.operations)
            raise line.error(f"unknown instruction {operation!r}{nearest(operation, known)}")
        if len(operands) not in sizes:
            raise line.error(f"{operation}: has {len(operands)} operands; expected {' or '.join(map(str, sizes))}")
        a, b, *targets = operands
        if operation != "compare" and re.fullmatch(r"[-+]?\d+|@.*", b):
            name = line.text.rpartition(":")[2].split()[0]  # `add` for the `sub` in its macro
            raise line.error(f"{name}: changes {b!r}, a constant; expected the name of a cell")
        target = self._target(targets[0], line, count) if targets else at + 1
        return Instruction(operation, self._address(a, line), self._address(b, line), target)

    def _has_target(self, part: Statement) -> bool:
        return len(part.words) == 4

    def _target(self, word: str, line: Line, count: int) -> int:
        if word in self.labels:
            return self.labels[word]
        if not word.isdecimal():
            own = [label for label in self.labels if "%" not in label]  # not those of macros
            raise line.error(f"unknown label {word!r}{nearest(word, own)}")
        if not COUNT.fullmatch(word) or int(word) >= count:
            raise line.error(f"target {word}: expected an instruction from 0 to {count - 1}")
        return int(word)

    # Operands and memory

    def _new(self, name: str, values: list[int]) -> int:
        """The address of new cells with these values."""
        start = len(self.memory)
        self.names[name] = range(start, start + len(values))
        self.memory += values
        return start

    def _address(self, word: str, line: Line) -> int:
        """The address of a cell. A constant gets a cell of its own."""
        if re.fullmatch(r"[-+]?\d+|@.*", word):
            value = self._value(word, line)
            known = self.names.get(str(value))
            return known.start if known else self._new(str(value), [value])
        base, *offsets = word.split("+")
        if base in (".zero", ".result") and base not in self.names:
            self._new(base, [0])
        if base in self.names:
            cells = self.names[base]
        elif self.one_memory and base in self.labels:
            first = 3 * self.labels[base]
            cells = range(first, first + 3)
        else:
            kind = "label, but expected a cell" if base in self.labels else f"unknown cell{nearest(base, self.names)}"
            raise line.error(f"{base!r}: {kind}")
        if not all(COUNT.fullmatch(offset) for offset in offsets):
            raise line.error(f"{word!r}: expected NAME+NUMBER")
        offset = sum(map(int, offsets))
        if offset >= len(cells):
            raise line.error(f"{word!r}: expected at most {base}+{len(cells) - 1}")
        return cells[offset]

    def _value(self, word: str, line: Line) -> int:
        """A number, or the address of @NAME."""
        if word.startswith("@"):
            return self._address(word[1:], line)
        if not re.fullmatch(r"[-+]?\d{1,18}", word) or abs(int(word)) > self.bound:
            raise line.error(f"{word!r}: expected a whole number of at most {self.bound:,} in size")
        return int(word)

    def _inputs(self, words: Sequence[str]) -> dict[str, list[str]]:
        """The values of all declared cells, with those of the user."""
        values = {name: list(cells.values) for name, cells in self.declared.items()}
        inputs = [name for name, cells in self.declared.items() if cells.kind == "input"]
        places = [(name, i) for name in inputs for i in range(len(values[name]))]
        plain = [word for word in words if "=" not in word]
        if len(plain) > len(places):
            expected = ", ".join(inputs) or "none, because the program declares no input"
            raise ValueError(f"input: {len(plain)} numbers; expected at most {len(places)}: {expected}")
        given = dict(zip(places, plain, strict=False))
        for name, _, numbers in (word.partition("=") for word in words if "=" in word):
            new = numbers.split(",")
            if name not in inputs:
                raise ValueError(f"input {name!r}: unknown{nearest(name, inputs)}; expected one of {', '.join(inputs)}")
            if len(new) != len(values[name]):
                raise ValueError(f"input {name!r}: {len(new)} numbers; expected {len(values[name])}")
            given |= {(name, i): value for i, value in enumerate(new)}
        for (name, i), value in given.items():
            if not re.fullmatch(r"[-+]?\d{1,18}", value) or abs(int(value)) > self.bound:
                raise ValueError(
                    f"input {name!r}: {value!r}; expected a whole number of at most {self.bound:,} in size"
                )
            values[name][i] = value
        return values


def _rename(word: str, renamed: dict[str, str]) -> str:
    at = "@" * word.startswith("@")
    base, *offsets = word.removeprefix("@").split("+")
    return at + "+".join([renamed.get(base, base), *offsets])
