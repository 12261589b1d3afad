"""Contextual mapping: each token learns the code of the whole sequence, whatever the order of its tokens.

Second stage of the proof of Theorem 3.6 (Xu & Sato, ICML 2025). With T possible tokens z in 0 .. T-1, the
sequence ID is A = sum_j T^(N-j) z_(j), where z_(1) >= ... >= z_(N) are the tokens in descending order, each as
often as it occurs. N loops take one token each: the largest one not yet taken, found by a hardmax head. A
second head counts the tokens that are taken already, so that a token that occurs m times counts m times. (A
construction that drops all copies at once is wrong on sequences with duplicates.)
"""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Shaped

from looped.theory.circuit import ONE, Array, Circuit, Head, Number, Program, Unit, form

REGISTERS = ("vh", "mask", "J", "D", "acc", "w", "cnt", "one")


def sequence_id(z: Shaped[Array, "*batch seq"], vocabulary: int) -> Shaped[Array, "*batch"]:
    """The sequence ID (batch,) of token IDs (batch, seq), by sorting; whole numbers of any type."""
    ordered = -np.sort(-np.asarray(z), axis=-1)
    total = np.zeros_like(ordered[..., 0])
    for j in range(ordered.shape[-1]):
        total = total * vocabulary + ordered[..., j]
    return total


def complement(vocabulary: int, seq: int) -> int:
    """A + acc at the end: T + T^2 + ... + T^N, since the block sums T - z in place of z."""
    return sum(vocabulary**j for j in range(1, seq + 1))


def contextual_parts(
    z: Mapping[str, Number], vocabulary: int, seq: int
) -> tuple[list[Unit], tuple[Head, ...], dict[str, Number]]:
    """Units, heads and drift that leave acc = T + ... + T^N - A in every token, N loops after J was 0.

    `z` is the token ID as a form over registers. w is the largest token not yet taken, cnt the number taken;
    e = cnt - J >= 1 says that a copy of the current token v is still to be counted, e = 0 that v moves on to w.
    The register vh holds T - v: before the stage, while J < 0, every unit is then off without a gate. After N
    loops D becomes 1 and J stays, which switches the stage off for good.
    """
    big, last = vocabulary + seq + 4, vocabulary ** (seq + 1)
    e = form((1, "cnt"), (-1, "J"))
    heads = (
        Head({"one": 1}, form((1, z), (-big, "mask")), z, "w"),
        Head({}, {}, {"mask": seq}, "cnt"),
    )
    units = [
        Unit(form((vocabulary, ONE), (-1, "vh"), (-1, "w"), (-big, e)), {"vh": 1, "acc": 1}),  # v moves to w
        Unit(form((1, z), (-1, "w"), (1, ONE), (-1, e), (-big, "mask")), {"mask": 1}),  # copies of w are taken
        Unit({"w": 1}, {"w": -1}),
        Unit({"cnt": 1}, {"cnt": -1}),
        Unit({"J": 1, ONE: 2 - seq}, {"D": 1}),
        Unit({"J": 1, ONE: 1 - seq}, {"D": -2, "J": -1}),
        Unit({"acc": vocabulary - 1, "vh": 1, "D": -last}, {"acc": 1}),  # acc <- T acc + vh
    ]
    return units, heads, {"J": 1}


def contextual_map(vocabulary: int, seq: int) -> Program:
    """The stage alone: token IDs (seq, 1) to the sequence ID in every token, N loops, 2 heads, 7 units.

    Raises:
        ValueError: for sizes out of range.
    """
    for name, value in (("vocabulary", vocabulary), ("seq", seq)):
        if value < 1:
            raise ValueError(f"{name}={value}: expected at least 1")
    units, heads, drift = contextual_parts({"z": 1}, vocabulary, seq)
    circuit = Circuit(("z", *REGISTERS), tuple(units), heads, drift)
    output = {"acc": -1, ONE: complement(vocabulary, seq)}
    return Program(circuit, ("z",), {"z": {"z": 1}, "one": {ONE: 1}}, (output,), seq)
