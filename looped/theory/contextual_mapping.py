"""Contextual mapping: every token receives an ID of the whole sequence that ignores the order of tokens.

This is the second stage of the proof of Theorem 3.6 (Xu & Sato, ICML 2025). There are T possible tokens,
z in 0 .. T-1. The sequence ID is A = sum_j T^(N-j) z_(j) over all N tokens in descending order,
z_(1) >= ... >= z_(N), duplicates included. Each of N loops processes one token: the largest one not yet processed,
found by a hardmax head. A second head counts the processed tokens, so a token that occurs m times counts m times.
(A construction that masks all copies at once is wrong on sequences with duplicates.)
"""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Shaped

from looped.theory.arithmetic import Array, Number
from looped.theory.circuit import ONE, Circuit, Head, Layer, Program, Unit, form

REGISTERS = ("vh", "mask", "J", "D", "acc", "w", "cnt", "one")


def sequence_id(z: Shaped[Array, "*batch seq"], vocabulary: int) -> Shaped[Array, "*batch"]:
    """The sequence ID (batch,) of token IDs (batch, seq), computed by sorting. Accepts whole numbers of any type."""
    ordered = -np.sort(-np.asarray(z), axis=-1)
    total = np.zeros_like(ordered[..., 0])
    for j in range(ordered.shape[-1]):
        total = total * vocabulary + ordered[..., j]
    return total


def complement(vocabulary: int, seq: int) -> int:
    """The final value of A + acc, T + T^2 + ... + T^N: the block sums T - z instead of z."""
    return sum(vocabulary**j for j in range(1, seq + 1))


def contextual_parts(
    z: Mapping[str, Number], vocabulary: int, seq: int
) -> tuple[list[Unit], tuple[Head, ...], dict[str, Number]]:
    """Hidden units, heads and output bias of the stage. N loops after J = 0, every token has acc = T + ... + T^N - A.

    `z` is the token ID as a form over registers. w is the largest token not yet processed, cnt the number processed.
    Let e = cnt - J. If e >= 1, a copy of the current token v must still be counted. If e = 0, v becomes w.
    The register vh holds T - v. Before the stage J is negative, and every unit is off without a gate. After N loops
    D becomes 1 and J stays constant, which switches the stage off permanently.
    """
    big, acc_limit = vocabulary + seq + 4, vocabulary ** (seq + 1)
    e = form((1, "cnt"), (-1, "J"))
    heads = (
        Head((z,), ("w",), ({"one": 1},), (form((1, z), (-big, "mask")),)),
        Head(({"mask": seq},), ("cnt",)),
    )
    units = [
        Unit(form((vocabulary, ONE), (-1, "vh"), (-1, "w"), (-big, e)), {"vh": 1, "acc": 1}),  # v becomes w
        Unit(form((1, z), (-1, "w"), (1, ONE), (-1, e), (-big, "mask")), {"mask": 1}),  # copies of w are masked
        Unit({"w": 1}, {"w": -1}),
        Unit({"cnt": 1}, {"cnt": -1}),
        Unit({"J": 1, ONE: 2 - seq}, {"D": 1}),
        Unit({"J": 1, ONE: 1 - seq}, {"D": -2, "J": -1}),
        Unit({"acc": vocabulary - 1, "vh": 1, "D": -acc_limit}, {"acc": 1}),  # acc <- T acc + vh
    ]
    return units, heads, {"J": 1}


def contextual_map(vocabulary: int, seq: int) -> Program:
    """This stage alone: token IDs (seq, 1) to the sequence ID in every token, with N loops, 2 heads and 7 units.

    Raises:
        ValueError: a size is out of range.
    """
    for name, value in (("vocabulary", vocabulary), ("seq", seq)):
        if value < 1:
            raise ValueError(f"{name}={value}: expected at least 1")
    units, heads, bias = contextual_parts({"z": 1}, vocabulary, seq)
    circuit = Circuit(("z", *REGISTERS), (Layer(tuple(units), heads, bias),))
    output = {"acc": -1, ONE: complement(vocabulary, seq)}
    return Program(circuit, ("z",), {"z": {"z": 1}, "one": {ONE: 1}}, (output,), seq)
