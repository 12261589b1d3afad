"""Bounds on the numbers of a program, known before it runs."""

from collections.abc import Mapping, Sequence

from looped.theory.circuit import ONE, Form, Layer


def largest_sum(
    layers: Sequence[Layer], sizes: Mapping[str, int], tokens: int, entries: Mapping[str, int] | None = None
) -> int:
    """A bound on every sum that layers compute. A type that holds all whole numbers up to it is exact.

    Args:
        sizes: the largest absolute value of each register, before and after every layer.
        tokens: the length of the sequence.
        entries: the largest absolute entry of each graph.
    """

    def size(f: Form) -> int:
        return int(sum(abs(factor) * (1 if name == ONE else sizes[name]) for name, factor in f.items()))

    sums = [*sizes.values()]
    for layer in layers:
        written = {name: abs(int(layer.bias.get(name, 0))) for name in sizes}
        for unit in layer.units:
            sums.append(size(unit.reads))
            for name, factor in unit.writes.items():
                written[name] += abs(int(factor)) * sums[-1]
        for head in layer.heads:
            entry = 1 if head.graph is None else (entries or {})[head.graph]
            sums += [tokens * entry * size(value) for value in head.value]
            sums.append(sum(size(q) * size(k) for q, k in zip(head.query, head.key, strict=True)))
        sums += written.values()
    return max(sums)
