"""The fifteen problems of Delétang et al. (ICLR 2023): random inputs of a length, and their answers.

The symbols are the numbers of the public code, except that operators, brackets, `=` and `x` are written as such.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from reprlib import repr as shown  # cuts what is long
from typing import NamedTuple

from numpy.random import Generator

MODULUS = 5
DIGITS = "01234"


class WordProblem(NamedTuple):
    """A problem on words."""

    symbols: str
    """The symbols of inputs and answers."""
    draw: Callable[[int, Generator], str]
    """A random input of a length. An even length of `modular_arithmetic` gives one symbol less."""
    solve: Callable[[str], str]
    """The answer to an input; ValueError if it has none."""
    slots: Callable[[int], int] = lambda length: 1
    """The number of outputs for an input of a length. An end follows an answer that is shorter."""
    loops: Callable[[str], int] = len
    """The number of loops that an input needs: its length, unless said otherwise."""


def word(symbols: str, length: int, rng: Generator) -> str:
    """Independent, uniform symbols."""
    return "".join(symbols[i] for i in rng.integers(len(symbols), size=length))


def words(symbols: str) -> Callable[[int, Generator], str]:
    """The function that draws such words."""
    return lambda length, rng: word(symbols, length, rng)


# Regular


def moves(path: str) -> str:
    """The place on a cycle of five after the moves 0 (back), 1 (stay) and 2 (on)."""
    return str((sum(map(int, matched("[012]+", path, "the moves 0, 1 and 2"))) - len(path)) % MODULUS)


def flat_expression(length: int, rng: Generator) -> str:
    """Digits with operators between them."""
    digits, operators = word(DIGITS, (length + 1) // 2, rng), word("+-*", (length - 1) // 2, rng)
    return digits[0] + "".join(o + d for o, d in zip(operators, digits[1:], strict=True))


def value(expression: str) -> str:
    """The value modulo 5 of an expression of digits, `+`, `-`, `*` and brackets."""
    reduced = expression
    while (shorter := re.sub(r"\(([^()]+)\)", lambda inner: _flat_value(inner[1], expression), reduced)) != reduced:
        reduced = shorter
    return _flat_value(reduced, expression)


def _flat_value(flat: str, whole: str) -> str:
    if not re.fullmatch(r"-?\d([+*-]-?\d)*", flat):
        raise ValueError(f"{shown(whole)}: expected an expression of single digits")
    products = re.findall(r"([+-]?)(-?\d(?:\*-?\d)*)", flat)
    return str(sum((-1) ** (sign == "-") * math.prod(map(int, p.split("*"))) for sign, p in products) % MODULUS)


# Deterministic context-free


def stack_program(length: int, rng: Generator) -> str:
    """The bits of a stack, bottom first, and then the actions pop (2), push 0 (3) and push 1 (4)."""
    size = int(rng.integers(1, max(length, 2)))
    return word("01", size, rng) + word("234", length - size, rng)


def run_stack(program: str) -> str:
    """The stack after the actions, top first. Pop leaves an empty stack as it is."""
    stack: list[str] = []
    for symbol in matched("[01]*[234]*", program, "the bits of a stack and then actions 2, 3 and 4"):
        if symbol == "2":
            stack = stack[:-1]
        else:
            stack.append({"3": "0", "4": "1"}.get(symbol, symbol))
    return "".join(reversed(stack))


def expression(length: int, rng: Generator, operators: str = "+-*") -> str:
    """An expression in which brackets surround every operation."""
    if length <= 4:
        return ("{}", "-{}", "({})", "(-{})")[length - 1].format(word(DIGITS, 1, rng))
    left = int(rng.integers(1, length - 3))
    parts = expression(left, rng, operators), expression(length - 3 - left, rng, operators)
    return f"({parts[0]}{word(operators, 1, rng)}{parts[1]})"


def equation(length: int, rng: Generator) -> str:
    """An expression without products, in which x replaces a digit, and its value. Zeros if there is no room."""
    if length < 3:
        return "0" * length
    left = expression(length - 2, rng, "+-")
    start = int(rng.integers(len(left)))
    at = next(i % len(left) for i in range(start, start + len(left)) if left[i % len(left)] in DIGITS)
    return f"{left[:at]}x{left[at + 1 :]}={value(left)}"


def unknown(equation: str) -> str:
    """The digit x with which both sides are equal modulo 5."""
    if equation in ("0", "00"):
        return "0"
    left, right = matched(r"[^x=]*x[^x=]*=\d", equation, "an expression with one x, = and a digit").split("=")
    return next(digit for digit in DIGITS if value(left.replace("x", digit)) == right)


# Context-sensitive


def marked_square(length: int, rng: Generator) -> str:
    """A word twice, with 2 in the place of one bit; 3 at the end if the length is odd."""
    if length == 1:
        return "1"
    twice = word("01", length // 2, rng) * 2
    at = int(rng.integers(len(twice)))
    return f"{twice[:at]}2{twice[at + 1 :]}{'3' * (length % 2)}"


def missing(square: str) -> str:
    """The bit in the place of 2."""
    if square == "1":
        return "1"
    twice = matched("[01]*2[01]*3?", square, "a word twice, with 2 in the place of one bit").removesuffix("3")
    at, half = twice.index("2"), len(twice) // 2
    found = [bit for bit in "01" if (whole := twice.replace("2", bit))[:half] == whole[half:]]
    if not found:
        raise ValueError(f"{shown(square)}: expected a word twice; its halves differ at more than place {at + 1}")
    return found[0]


def positive(bits: int, rng: Generator) -> str:
    """A number of so many bits, uniform without zero."""
    while "1" not in (number := word("01", bits, rng)):
        pass
    return number


def operation(operator: str) -> Callable[[int, Generator], str]:
    """The function that draws two positive numbers with an operator between them, if there is room."""

    def draw(length: int, rng: Generator) -> str:
        if length <= 2:
            return little_endian(int(rng.integers(2**length - 1))).ljust(length, "0")
        bits = int(rng.integers(1, length - 1))
        return positive(bits, rng) + operator + positive(length - 1 - bits, rng)

    return draw


def operands(text: str, operator: str) -> list[int]:
    """The numbers, which begin with the least significant bit."""
    parts = matched(rf"[01]+\{operator}[01]+", text, f"two binary numbers with {operator} between them").split(operator)
    return [int(part[::-1], 2) for part in parts]


def little_endian(number: int) -> str:
    """Bits without leading zeros, least significant first."""
    return f"{number:b}"[::-1]


def total(text: str) -> str:
    """The sum, least significant bit first. One or two bits without an operator are their own sum."""
    return little_endian(sum(operands(text, "+")) if "+" in text or len(text) > 2 else int(text[::-1], 2))


def product(text: str) -> str:
    """The product, least significant bit first. One or two bits without an operator give zeros (published)."""
    return little_endian(math.prod(operands(text, "*"))) if "*" in text or len(text) > 2 else "0" * (len(text) - 1)


def root(bits: str) -> str:
    """The square root, rounded down. Both numbers begin with the most significant bit."""
    return f"{math.isqrt(int(bits, 2)):0{_half(len(bits))}b}"


def _half(length: int) -> int:
    return (length + 1) // 2


def matched(pattern: str, text: str, expected: str) -> str:
    """The text, if all of it matches the pattern."""
    if not re.fullmatch(pattern, text):
        raise ValueError(f"{shown(text)}: expected {expected}")
    return text


PROBLEMS = {
    "even_pairs": WordProblem("01", words("01"), lambda bits: str(int(bits[0] != bits[-1]))),
    "modular_arithmetic": WordProblem(DIGITS + "+-*", flat_expression, value),
    "parity_check": WordProblem("01", words("01"), lambda bits: str(bits.count("1") % 2)),
    "cycle_navigation": WordProblem(DIGITS, words("012"), moves),
    "stack_manipulation": WordProblem(DIGITS, stack_program, run_stack, lambda length: length + 1),
    "reverse_string": WordProblem("01", words("01"), lambda bits: bits[::-1], lambda length: length),
    "modular_arithmetic_brackets": WordProblem(DIGITS + "+-*()", expression, value),
    "solve_equation": WordProblem(DIGITS + "+-()x=", equation, unknown),
    "duplicate_string": WordProblem("01", words("01"), lambda bits: 2 * bits, lambda length: 2 * length),
    "missing_duplicate_string": WordProblem("0123", marked_square, missing),
    "odds_first": WordProblem("01", words("01"), lambda bits: bits[1::2] + bits[::2], lambda length: length),
    "binary_addition": WordProblem("01+", operation("+"), total, lambda length: length + 1),
    "binary_multiplication": WordProblem(
        "01*", operation("*"), product, lambda length: length, lambda text: math.prod(map(len, text.split("*")))
    ),
    "compute_sqrt": WordProblem("01", positive, root, _half, lambda bits: _half(len(bits)) ** 2),
    "bucket_sort": WordProblem(DIGITS, words(DIGITS), lambda letters: "".join(sorted(letters)), lambda length: length),
}
"""By name, as in `ChomskyConfig.problem`."""
