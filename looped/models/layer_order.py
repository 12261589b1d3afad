"""The order in which the layers of a core are applied."""

ORDERS = ("cycle", "sequence", "reverse")


def applications(order: str, layers: int, num_loops: int, t: int) -> list[tuple[int, int]]:
    """The layers that loop t = 0 .. num_loops-1 applies, in order, each with the timestep that it gets.

    With layers A, B, C and two loops, cycle is A B C, A B C; reverse is A B C, C B A; sequence is A A B, B C C.
    Source: Takase & Kiyono (2021), section 3; "reverse" is their "cycle (rev)".

    Args:
        order: cycle, reverse or sequence. The timestep of a layer is then the number of its earlier applications.
    """
    if order == "sequence":
        return [divmod(i, num_loops) for i in range(t * layers, (t + 1) * layers)]
    inverted = order == "reverse" and t == num_loops - 1
    return [(layer, t) for layer in (reversed(range(layers)) if inverted else range(layers))]
