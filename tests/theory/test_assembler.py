"""The assembler: its programs compute what they say, on every machine, and its mistakes are one line."""

import itertools
import math
import re

import numpy as np
import pytest

from looped.theory.computer.assembler import assemble
from looped.theory.computer.expressions import compile_expression
from looped.theory.computer.interpreter import interpret, interpret_image
from looped.theory.computer.machine import FOUR
from looped.theory.computer.macros import MACROS
from looped.theory.computer.programs import PROGRAMS
from looped.theory.computer.tracing import follow

APART = ("subleq", "four")


def result(name: str, kind: str | None, *inputs: int | str, text: str | None = None) -> dict[str, list[int]]:
    """The results of a program when it halts, by the interpreter."""
    image = assemble(text or PROGRAMS[name].read_text(), f"{name}.asm", kind, [str(word) for word in inputs])
    events = follow(image, 50_000)
    assert events[-1].halts
    steps = interpret(image.memory, image.code) if image.code else interpret_image(image.memory)
    _, cells = next(itertools.islice(steps, len(events) - 1, None))
    return {name: [cells[address] for address in image.names[name]] for name in image.results}


@pytest.mark.parametrize("kind", MACROS)
def test_arithmetic(kind: str):
    rng = np.random.default_rng(0)
    for x, y in rng.integers(0, 20, (5, 2)).tolist():
        assert result("multiply", kind, -x, y) == {"product": [-x * y]}
        assert result("gcd", kind, x + 1, y + 1) == {"divisor": [math.gcd(x + 1, y + 1)]}
    numbers = [0, 1]
    for n in range(33 if kind == "self-modifying" else 41):
        if n % 8 == 0:
            assert result("fibonacci", kind, n) == {"a": [numbers[n]]}
        numbers.append(numbers[-1] + numbers[-2])
    for _ in range(2):
        a, b = rng.integers(-9, 10, (2, 2, 2))
        words = [f"{name}={','.join(map(str, matrix.ravel()))}" for name, matrix in (("a", a), ("b", b))]
        assert result("matrix", kind, *words) == {"c": (a @ b).ravel().tolist()}
        values = rng.integers(-9, 10, 6).tolist()
        assert result("sort", kind, *values) == {"a": sorted(values)}


@pytest.mark.parametrize("kind", APART)
def test_primes(kind: str):
    for limit in (1, 2, 13, 28):
        primes = [n for n in range(2, limit + 1) if all(n % d for d in range(2, n))]
        assert result("primes", kind, limit) == {"count": [len(primes)], "largest": [max(primes, default=0)]}


def test_programs_that_rewrite_themselves():
    assert result("sum", None, "array=4,-7,1,0,2,2,9,5") == {"total": [16]}
    assert result("tower", None, 12, 11) == {"product": [132]}
    screen = np.array(result("triangle", None)["screen"]).reshape(8, 9)
    assert screen.tolist() == [[0] + [math.comb(row, k) % 2 for k in range(8)] for row in range(8)]
    with pytest.raises(ValueError, match=r"sum\.asm:10: 'read': label, but expected a cell"):
        result("sum", "subleq")


@pytest.mark.parametrize("kind", MACROS)
@pytest.mark.parametrize("text", ["3 + 4 * 5", "-(2 - 7) * 3 - -4", "(1 - 3) * (5 - 9) * +2", "7", "0 * (8 - 9)"])
def test_expressions(kind: str, text: str):
    assert result("expression", kind, text=compile_expression(text)) == {"result": [eval(text)]}


@pytest.mark.parametrize("text", ["1 +", "2 ** 3", "1 / 2", "1.5", "x + 1", "(1", "1, 2", "True", "+".join("1" * 9999)])
def test_expressions_are_refused(text: str):
    with pytest.raises(ValueError, match=r"^expression .*expected whole numbers, \+, -, \* and parentheses$"):
        compile_expression(text)


def test_instructions_are_the_same_on_every_machine():
    """Each instruction with a branch, on signs of both operands, and on the same cell twice."""
    for operation, x, y in itertools.product(FOUR, (-2, 0, 3), (-3, 2)):
        after = {"sub": y - x, "add": y + x, "move": x, "compare": y - x}[operation]
        for b, (was, now) in {
            "y": (y, after),
            "x": (x, {"sub": 0, "add": 2 * x, "move": x, "compare": 0}[operation]),
        }.items():
            text = f"input x\ninput y\ncell jumped 1\n{operation} x {b} end\nzero jumped\nend: halt\n"
            text += "" if operation == "compare" else f"{operation} x {b}\n halt"
            for kind in MACROS:
                found = result(operation, kind, x, y, text=text)
                assert found["jumped"] == [int(now <= 0)]
                assert found[b] == [was if operation == "compare" else now]


ERRORS = {
    "input x 1\n adds 1 x\n halt": "f.asm:2: unknown instruction 'adds' (did you mean 'add'?)",
    "cell total\n add 1 totl\n halt": "f.asm:2: 'totl': unknown cell (did you mean 'total'?)",
    "cell x\nloop: sub 1 x lop\n halt": "f.asm:2: unknown label 'lop' (did you mean 'loop'?)",
    "cell x\n sub 1 x": "f.asm:2: the program can run off its end; expected a jump or halt as the last line",
    "cell x\nloop: sub 1 x loop": "f.asm:2: the program can run off its end",
    "jump next\nnext:": "f.asm:2: the program can run off its end",
    "cell x\ncell x\nhalt": "f.asm:2: 'x' is declared twice",
    "x: halt\nx: halt": "f.asm:2: 'x' is declared twice",
    "x: halt\ncell x": "f.asm:1: 'x' is declared twice",
    "cell x\n add x\n halt": "f.asm:2: add: has 1 operands; expected 2 or 3",
    "add 1 2\nhalt": "f.asm:1: add: changes '2', a constant; expected the name of a cell",
    "cell x 5000000000\nhalt": "f.asm:1: '5000000000': expected a whole number of at most 4,294,967,296 in size",
    "cell x\nsub 1e3 x\nhalt": "f.asm:2: '1e3': unknown cell",
    "cell x\nsub 1 x 9\nhalt": "f.asm:2: target 9: expected an instruction from 0 to 1",
    "cell a 1 2\nsub a+2 a\nhalt": "f.asm:2: 'a+2': expected at most a+1",
    "cell a\nsub a+b a\nhalt": "f.asm:2: 'a+b': expected NAME+NUMBER",
    "cell 1a\nhalt": "f.asm:1: name '1a': expected letters, digits and _, and no digit first",
    "machine z80\nhalt": "f.asm:1: machine: expected one of subleq, four, self-modifying",
    "macro a b": "f.asm:1: macro: expected a line 'end' after it",
    "macro a\nmacro b\nend\nend": "f.asm:2: macro: expected a name and parameters, outside of another macro",
    "macro halt\nend": "f.asm:1: macro 'halt': exists already with 0 operands",
    "end": "f.asm:1: end: expected a line 'macro' before it",
    "macro a\n a\nend\na\nhalt": "f.asm:2: macro 'a' calls itself (in the macro that line 4 calls)",
    "cell x\nmacro two a b\nadd 1 a\nadd 1 b\nend\ntwo x y\nhalt": "f.asm:4: 'y': unknown cell (in the macro that",
    "".join(f"macro m{i + 1}\nm{i}\nm{i}\nend\n" for i in range(40)) + "m40": "f.asm:18: more than 20,000 calls of",
    "macro a\ncell x\nend": "f.asm:2: cell: expected outside of a macro",
    "picture a x 1\nhalt": "f.asm:1: picture: expected a name, the number of cells in a row, and values",
    "cell a x*1\nhalt": "f.asm:1: 'x*1': expected COUNT*NUMBER",
    "cell a 9999999*1\nhalt": "f.asm:1: '9999999*1': expected at most 1,000,000 cells",
    "cell a 600000*1\ncell b 600000*1\nhalt": "f.asm:2: '600000*1': expected at most 1,000,000 cells in a program",
    f"cell a {'9' * 5000}*1\nhalt": f"f.asm:1: '{'9' * 5000}*1': expected COUNT*NUMBER",
    f"picture a {'9' * 5000} 1\nhalt": "f.asm:1: picture: expected a name, the number of cells in a row, and values",
    f"cell x\nsub x x {'9' * 5000}\nhalt": f"f.asm:2: target {'9' * 5000}: expected an instruction from 0 to 1",
    f"cell x\nsub x+{'9' * 5000} x\nhalt": f"f.asm:2: 'x+{'9' * 5000}': expected NAME+NUMBER",
    "macro two a a\nend\nhalt": "f.asm:1: macro 'two': two parameters have the same name",
    "machine four\nmachine subleq\nhalt": "f.asm:2: a second line 'machine'; expected one",
    "machine four\ncell x\ncompare 1 x\nhalt": "f.asm:3: compare: has 2 operands; expected 3",
    "; nothing": "f.asm: expected at least one instruction",
    "cell\nhalt": "f.asm:1: cell: expected a name",
}  # fmt: skip


@pytest.mark.parametrize("text", ERRORS)
def test_mistakes(text: str):
    with pytest.raises(ValueError, match="^" + re.escape(ERRORS[text])):
        assemble(text, "f.asm")


@pytest.mark.parametrize(
    ("words", "message"), {
        ("6", "7", "8"): "input: 3 numbers; expected at most 2: x, y",
        ("six",): "input 'x': 'six'; expected a whole number of at most 4,294,967,296 in size",
        ("z=3",): "input 'z': unknown; expected one of x, y",
        ("x=1,2",): "input 'x': 2 numbers; expected 1",
        ("y=99999999999",): "input 'y': '99999999999'; expected",
    }.items(),
)  # fmt: skip
def test_mistakes_in_inputs(words: tuple[str, ...], message: str):
    with pytest.raises(ValueError, match="^" + re.escape(message)):
        result("multiply", "four", *words)


def test_programs_that_a_machine_cannot_run():
    def run(text: str) -> None:
        image = assemble(text, "f.asm")
        follow(image, 1000)

    with pytest.raises(ValueError, match=r"^f.asm:2: x becomes 8589934592; expected at most 4,294,967,296 in size"):
        run("cell x 1\nloop: add x x\njump loop")
    with pytest.raises(ValueError, match=r"^f.asm:3: address 60: expected 0 to 12$"):
        run("machine self-modifying\ncell x 1\nloop: sub 1 x\nsub -50 loop+0\njump loop")
    with pytest.raises(ValueError, match=r"^f.asm:5: target 700: expected 0 to 10; the program runs off its end$"):
        run("machine self-modifying\ncell x 1\nloop: sub 1 x\nsub -700 last+2\nlast: jump loop")
