"""Solutions that a file states, as expressions, checked in exact whole numbers under the rules of the task."""

import operator
import re
from collections import Counter
from collections.abc import Sequence
from reprlib import repr as shown  # cuts what is long
from typing import Any

SPELLINGS = str.maketrans({"×": "*", "x": "*", "X": "*", "·": "*", "÷": "/", ":": "/", "−": "-", "–": "-"})
PRECEDENCE = {"+": 1, "-": 1, "*": 2, "/": 2}
LONGEST = 500  # characters of a solution; six numbers need far fewer


def check_solution(numbers: Sequence[int], target: int, stated: Any) -> None:
    """Check a text such as "(34+42)/19*7", or a list or text of steps such as "34 + 42 = 76, 76 / 19 = 4, 7 × 4 = 28".

    A step uses up its numbers and leaves its result, which later steps may use. In the end only the target is left.

    Raises:
        ValueError: the solution is wrong or cannot be read; says why.
    """
    steps = re.split("[,;\n]", stated) if isinstance(stated, str) else stated
    if not isinstance(steps, list) or not all(isinstance(step, str) for step in steps):
        raise ValueError("expected a text or a list of texts")
    if sum(map(len, steps)) > LONGEST:
        raise ValueError(f"expected at most {LONGEST} characters")
    left = Counter(numbers)
    for step in steps:
        expression, equals, result = step.partition("=")
        value = _value(expression, left)
        if equals and result.strip() != str(value):
            raise ValueError(f"{expression.strip()} is {value}, not {shown(result.strip())}")
        left[value] += 1
    if sorted(left.elements()) != [target]:
        raise ValueError(f"it leaves {', '.join(map(str, left.elements()))}")


def _value(expression: str, left: Counter[int]) -> int:
    """The value of an expression. Its numbers are taken out of `left`."""
    values: list[int] = []
    signs: list[str] = []

    def apply() -> None:
        sign, b, a = signs.pop(), values.pop(), values.pop()
        if sign == "/" and (b == 0 or a % b):
            raise ValueError(f"{a}/{b} is no whole number")
        if sign == "-" and a < b:
            raise ValueError(f"{a}-{b} is below zero")
        values.append({"+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.floordiv}[sign](a, b))

    after_value = False  # whether a sign or a closing bracket may follow
    for token in re.findall(r"[0-9]+|\S", expression.translate(SPELLINGS)):
        if token[0] in "0123456789" and not after_value:
            value = int(token) if len(token) < 20 else -1
            if not left[value]:
                raise ValueError(f"{shown(token)} is not (or no longer) among the numbers")
            left[value] -= 1
            values.append(value)
            after_value = True
        elif token == "(" and not after_value:
            signs.append(token)
        elif token in PRECEDENCE and after_value:
            while signs and PRECEDENCE.get(signs[-1], 0) >= PRECEDENCE[token]:
                apply()
            signs.append(token)
            after_value = False
        elif token == ")" and after_value and "(" in signs:
            while signs[-1] != "(":
                apply()
            signs.pop()
        else:
            raise ValueError(f"cannot read {shown(token)} in {shown(expression.strip())}")
    if not after_value or "(" in signs:
        raise ValueError(f"{shown(expression.strip())} is no complete expression")
    while signs:
        apply()
    return values[0]
