"""Damage to files and to JSON values. A generator of random numbers decides everything."""

import json
from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np

T = TypeVar("T")
DEEP = 100_000
# What readers tend to stumble over.
TOKENS = [
    b"", b"\0", b"\n", b"\r", b"\r\n\n", b"\t", b" ", b",", b",,,,", b";", b"'", b'"', b'""', b"\\", b"{", b"}", b"[",
    b"]", b"%", b"#", b"?", b"@data", b"@", b"=", b"=1+1", b"-", b"+", b"/", b"..", b"../../x", b"/etc/passwd", b"~",
    b"0", b"-0", b"-1", b"1e999", b"1e39", b"-1e400", b"nan", b"NaN", b"inf", b"-Infinity", b"1_2", b"0x10", b"1.5",
    b"9" * 30, b"9" * 5000, b"." * 81, b"1" * 81, b"null", b"true", b"none", b"None", b"NA", b"{}", b"[]", b'""',
    b"[" * DEEP, b'{"a":' * DEEP, b"(" * 500, b"a" * 200_000, b"1," * 100_000, b"\n" * 10_000,
    b"\x1b[31m", b"\x07", b"\x7f", b"\xff", b"\xed\xa0\x80", b"\xc3", b"\\ud800", b"\\u0000", b"[bold]", b"[/bold]",
    "\ufeff".encode(), "\u0663\u0664".encode(), "\u00b2".encode(), "\u2028".encode(), "\x0c\x0b\x1c\x85".encode(),
    "\u202e\u200b".encode(), "\U0001f600".encode(), "\u00e9".encode(), "\u0130".encode(), b"<|endoftext|>",
]  # fmt: skip
VALUES: list[Any] = [
    None, True, False, 0, -1, 1, 3, 10**9, 10**18, 10**30, -(10**400), 0.5, -0.5, 1e39, float("nan"), float("inf"),
    float("-inf"), "", "x", "1", "nan", "none", "\0", "\ud800", "\x1b[31m", "[/x]", "\u0663", "../../x", "/etc/passwd",
    "a" * 10_000, [], {}, [[]], [None], [1, "a"], {"": 0}, {"a": {"a": 1}}, [0] * 1000, "kl:1e999", "act",
]  # fmt: skip
NAMES = [value for value in VALUES if isinstance(value, str)]


def pick(items: Sequence[T], rng: np.random.Generator) -> T:
    return items[int(rng.integers(len(items)))]


def damaged(content: bytes, valid: Sequence[bytes], rng: np.random.Generator) -> bytes:
    """`content` after one to three damages. Some take parts from other `valid` contents."""
    for _ in range(rng.integers(1, 4)):
        content = pick(DAMAGES, rng)(content, valid, rng)
    return content


def _place(content: bytes, rng: np.random.Generator) -> int:
    return int(rng.integers(len(content) + 1))


def _part(content: bytes, rng: np.random.Generator) -> slice:
    start = _place(content, rng)
    return slice(start, min(start + int(2 ** rng.uniform(0, 10)), len(content)))


def flip(content: bytes, valid: Sequence[bytes], rng: np.random.Generator) -> bytes:
    changed = bytearray(content)
    for _ in range(rng.integers(1, 4)):
        if changed:
            changed[int(rng.integers(len(changed)))] ^= 1 << int(rng.integers(8))
    return bytes(changed)


def cut(content: bytes, valid: Sequence[bytes], rng: np.random.Generator) -> bytes:
    return content[: _place(content, rng)]


def leave_out(content: bytes, valid: Sequence[bytes], rng: np.random.Generator) -> bytes:
    part = _part(content, rng)
    return content[: part.start] + content[part.stop :]


def repeat(content: bytes, valid: Sequence[bytes], rng: np.random.Generator) -> bytes:
    part = _part(content, rng)
    return content[: part.stop] + content[part] * int(rng.integers(1, 20)) + content[part.stop :]


def insert(content: bytes, valid: Sequence[bytes], rng: np.random.Generator) -> bytes:
    """Insert a token, or put it in the place of a word."""
    at, token = _place(content, rng), pick(TOKENS, rng)
    end = at
    if rng.random() < 0.5:
        while end < len(content) and content[end : end + 1].isalnum():
            end += 1
    return content[:at] + token + content[end:]


def splice(content: bytes, valid: Sequence[bytes], rng: np.random.Generator) -> bytes:
    other = pick(valid, rng)
    return content[: _place(content, rng)] + other[_place(other, rng) :]


def swap_lines(content: bytes, valid: Sequence[bytes], rng: np.random.Generator) -> bytes:
    lines = content.split(b"\n")
    i, j = rng.integers(len(lines), size=2)
    lines[i], lines[j] = lines[j], lines[i]
    return b"\n".join(lines)


DAMAGES = [flip, cut, leave_out, repeat, insert, insert, splice, swap_lines]


def edited(content: bytes, valid: Sequence[bytes], rng: np.random.Generator) -> bytes:
    """JSON, or lines of JSON, after one to three changes of values; sometimes damaged as bytes."""
    if rng.random() < 0.25:
        return damaged(content, valid, rng)
    if content.count(b"\n{") == 0:
        data = json.loads(content)
        for _ in range(rng.integers(1, 4)):
            data = changed(data, rng)
        return json.dumps(data, indent=2).encode()
    lines: list[Any] = [json.loads(line) for line in content.splitlines() if line.strip()]
    row = rng.integers(len(lines))
    lines[row] = changed(lines[row], rng)
    return b"".join(json.dumps(line).encode() + b"\n" for line in lines)


def changed(value: Any, rng: np.random.Generator, values: Sequence[Any] = VALUES) -> Any:
    """A copy of a value of lists and objects, changed at one random place, there perhaps to one of `values`."""
    inside = list(value) if isinstance(value, dict) else list(range(len(value))) if isinstance(value, list) else []
    if not inside or rng.random() < 0.15:
        return pick(values, rng)
    key, copy = pick(inside, rng), value.copy()
    kind = rng.random()
    if kind < 0.7:
        copy[key] = changed(value[key], rng, values)
    elif kind < 0.8:
        del copy[key]
    elif kind < 0.9:
        copy[key] = value[pick(inside, rng)]
    elif isinstance(copy, dict):
        copy[pick(NAMES, rng)] = copy.pop(key)
    else:
        copy.insert(key, value[pick(inside, rng)])
    return copy
