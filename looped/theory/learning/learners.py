"""Learners in context as circuits with linear attention: one loop is one step on the examples in the sequence.

A token is an example (x, k = x, y) or a query (x, k = 0, y = 0), see `tokens`. k is the key. A query has the key 0, so
no token reads it, and any number of queries may stand in the sequence. The output of a token is the prediction w'x,
where w are the weights after the steps. No register holds w.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float

from looped.theory.arithmetic import Array
from looped.theory.circuit import ONE, Circuit, Form, Head, Layer, Program, Unit, form
from looped.theory.idioms import add, clear, table


def tokens(
    x: Float[Array, "batch examples dim"], y: Float[Array, "batch examples"], queries: Float[Array, "batch queries dim"]
) -> Float[Array, "batch seq inputs"]:
    """Examples and then queries as the input of a learner, (batch, examples + queries, 2 dim + 1)."""
    batch, count, dim = queries.shape
    examples = np.concatenate([x, x, y[..., None]], axis=-1)
    return np.concatenate([examples, np.concatenate([queries, np.zeros((batch, count, dim + 1))], axis=-1)], axis=1)


def with_pseudo_examples(
    x: Float[Array, "batch examples dim"], y: Float[Array, "batch examples"], ridge: float
) -> tuple[Array, Array]:
    """x and y with d more examples (sqrt(ridge n) e_i, 0): least squares on all of them is ridge regression on x and y.

    The learner must divide by the number n of real examples.
    """
    batch, n, dim = x.shape
    more = np.broadcast_to(math.sqrt(ridge * n) * np.eye(dim), (batch, dim, dim))
    return np.concatenate([x, more], axis=1), np.concatenate([y, np.zeros((batch, dim))], axis=1)


def descent(
    dim: int, examples: int, loops: int, *, step: np.ndarray | float = 1.0, momentum: float = 0.0,
    schedule: Sequence[float] | None = None,
) -> Program:  # fmt: skip
    """Least squares by gradient descent: m <- momentum m + A' X'(y - X w) / n, w <- w + eta(t) m (Polyak, 1964).

    Registers: e is y - w'x, for a query -w'x, and m is what a token's prediction gains, m'x. The head computes the
    gradient, two hidden units add m to the prediction and shrink it.

    Args:
        dim: d, size of x.
        examples: n, by which the gradient is divided.
        loops: number of steps.
        step: A, a number or a matrix (dim, dim).
        momentum: 0 is plain gradient descent.
        schedule: eta(t), one factor for each loop, as the gates of the feed-forward layer. None is 1.
    """
    x, k = names("x", dim), names("k", dim)
    registers = (*x, *k, "e", "m")
    matrix = np.asarray(step) if np.ndim(step) else step * np.eye(dim)
    query = tuple(dict(zip(x, row, strict=True)) for row in matrix.tolist())
    layer = Layer(
        heads=(Head(value=({"e": 1 / examples},), writes=("m",), query=query, key=each(k)),),
        units=tuple(add({"m": 1}, {"e": -1, "m": momentum - 1}, signed=True)),
    )
    eta = None
    if schedule is not None:
        eta = np.ones((loops, len(registers)))
        eta[:, registers.index("e")] = schedule
    return Program(
        Circuit(registers, (layer,), linear=True), inputs=(*x, *k, "y"),
        input_map={name: {name: 1} for name in (*x, *k)} | {"e": {"y": 1}}, output_map=({"e": -1},), loops=loops,
        eta=eta,
    )  # fmt: skip


def chebyshev_steps(low: float, high: float, loops: int) -> list[float]:
    """The steps whose error after all loops is smallest if the eigenvalues of S are in [low, high] (Young, 1953).

    They are the inverse zeros of the Chebyshev polynomial of that interval. The order alternates between large and
    small steps (Lebedev & Finogenov, 1971), because a row of large steps would amplify rounding errors.

    Raises:
        ValueError: `loops` is not a power of two.
    """
    if loops & (loops - 1) or loops < 1:
        raise ValueError(f"loops={loops}: expected a power of two, for which the order of the steps is known")
    order = [0]
    while len(order) < loops:
        order = [i for first in order for i in (first, 2 * len(order) - 1 - first)]
    zeros = [math.cos(math.pi * (2 * i + 1) / (2 * loops)) for i in order]
    return [2 / (high + low + (high - low) * zero) for zero in zeros]


def logistic(
    dim: int, examples: int, loops: int, *, step: float, ridge: float, width: float = 1 / 8, bound: float = 12.0
) -> Program:
    """Logistic regression with a ridge penalty by gradient descent on its loss, labels 0 and 1.

    The loss is sum_i log(1 + exp(z_i)) - y_i z_i over n, plus ridge |w|^2 / 2. Registers: z is the logit w'x and e is
    y - sigmoid(z). The head adds the gradient to z, and the feed-forward layer computes e anew. Any loss of z with
    another derivative is learned by another table.

    Args:
        dim: d, size of x.
        examples: n, by which the gradient is divided.
        loops: number of steps.
        step: the learning rate.
        ridge: the penalty's factor.
        width: distance of the knots between which the sigmoid is linear.
        bound: the sigmoid is constant outside of [-bound, bound].
    """
    x, k = names("x", dim), names("k", dim)
    keep = 1 - step * ridge  # what a step leaves of w; it also shrinks the new gradient, which is enlarged for that
    units, constant = interpolation(lambda z: -sigmoid(z), {"z": keep}, {"e": 1}, width, bound)
    layer = Layer(
        heads=(
            Head(
                value=({"e": step / keep / examples},), writes=("z",), query=each(x),
                key=each(k),
            ),
        ),
        units=(*add({"z": 1}, {"z": -step * ridge}, signed=True), *clear("e", signed=True), *add({"y": 1}, {"e": 1}),
               *units),
        bias=constant,
    )  # fmt: skip
    inputs: dict[str, Form] = {name: {name: 1} for name in (*x, *k, "y")}
    return Program(
        Circuit((*x, *k, "y", "z", "e"), (layer,), linear=True), inputs=(*x, *k, "y"),
        input_map=inputs | {"e": {"y": 1, ONE: -0.5}}, output_map=({"z": 1},), loops=loops,
    )  # fmt: skip


def interpolation(
    f: Callable[[float], float], z: Form, writes: Form, width: float = 1 / 8, bound: float = 12.0
) -> tuple[list[Unit], Form]:
    """f(z) -> writes as hidden units and an output bias: linear between knots, constant outside of [-bound, bound].

    For the sigmoid the error is at most width^2 / (48 sqrt 3) between knots, because the second derivative is at most
    1 / (6 sqrt 3), and at most exp(-bound) outside of them.
    """
    knots = _knots(width, bound)
    place = form((1 / width, z), (bound / width, ONE))  # counted in knots from the first one
    return table(place, [*map(f, knots), f(knots[-1])], writes)  # the last value twice: no slope behind the last knot


def interpolated(
    f: Callable[[float], float], z: Float[Array, "*shape"], width: float = 1 / 8, bound: float = 12.0
) -> Float[Array, "*shape"]:
    """The function that `interpolation` computes, at z, in the same shape."""
    knots = _knots(width, bound)
    return np.interp(z, knots, [*map(f, knots)])


def sigmoid(z: float) -> float:
    return 1 / (1 + math.exp(-z))


def sigmoid_slope(z: float) -> float:
    """The derivative of the sigmoid."""
    return sigmoid(z) * sigmoid(-z)


def names(letter: str, dim: int) -> tuple[str, ...]:
    """The registers of a vector."""
    return tuple(f"{letter}{i}" for i in range(dim))


def each(registers: Sequence[str], factor: float = 1.0) -> tuple[Form, ...]:
    """Multiples of registers, each as a form."""
    return tuple({name: factor} for name in registers)


def _knots(width: float, bound: float) -> list[float]:
    return [i * width - bound for i in range(round(2 * bound / width) + 1)]
