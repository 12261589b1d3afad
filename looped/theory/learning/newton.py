"""Newton-Schulz inversion, and with it Newton's method for logistic regression in context, with linear attention.

A Newton step is w <- w + H^-1 g with g = X'(y - sigmoid(Xw)) / n - ridge w and H = X' D X / n + ridge I. D is diagonal
with sigmoid'(Xw). The inverse is computed by Newton-Schulz steps P <- 2P - P H P. Beside examples and queries there are
d coordinate tokens: token i holds w_i, g_i and the columns i of H and P.
"""

import numpy as np
from jaxtyping import Float

from looped.theory.arithmetic import Array
from looped.theory.circuit import ONE, Circuit, Form, Head, Layer, Program, Unit, form
from looped.theory.idioms import add, clear
from looped.theory.learning.learners import each, interpolation, names, sigmoid, sigmoid_slope


def newton_schulz(dim: int, loops: int) -> Program:
    """The inverse of a symmetric S (dim, dim) by the steps X <- X + (X - X S X), in one layer with two heads.

    Token j holds X e_j, S e_j and e_j (see `newton_schulz_tokens`). Head 1 adds -X (S'X), head 2 adds X (I I).
    Source: Giannou et al. (2024).

    Returns:
        A program from (batch, dim, 3 dim) to (batch, dim, dim); token j's output is column j of X.
    """
    x, s, one = (names(letter, dim) for letter in "xso")
    heads = (Head(each(x, -1.0), x, query=each(x), key=each(s)), Head(each(x), x, query=each(one), key=each(one)))
    inputs = (*x, *s, *one)
    circuit = Circuit(inputs, (Layer(heads=heads),), linear=True)
    return Program(circuit, inputs, {name: {name: 1} for name in inputs}, each(x), loops)


def newton_schulz_tokens(s: Float[Array, "dim dim"]) -> Float[Array, "1 dim inputs"]:
    """The input (1, dim, 3 dim) of `newton_schulz` for a symmetric S. X starts as S / (|S|_1 |S|_inf)."""
    start = s / (np.linalg.norm(s, 1) * np.linalg.norm(s, np.inf))
    return np.concatenate([start, s, np.eye(len(s))]).T[None]


def newton_tokens(
    x: Float[Array, "batch examples dim"], y: Float[Array, "batch examples"], queries: Float[Array, "batch queries dim"]
) -> Float[Array, "batch seq inputs"]:
    """The input of `newton_logistic`: examples (x, k = x, one-hot number, y), coordinates (one-hot c), queries (x)."""
    batch, n, dim = x.shape
    count = queries.shape[1]
    rows = np.zeros((batch, n + dim + count, 3 * dim + n + 1))
    example, query = slice(0, n), slice(n + dim, None)
    rows[:, example, :dim] = rows[:, example, dim : 2 * dim] = x
    rows[:, example, 2 * dim : 2 * dim + n] = np.eye(n)
    rows[:, n : n + dim, 2 * dim + n : -1] = np.eye(dim)
    rows[:, query, :dim] = queries
    rows[:, example, -1] = y
    return rows


def newton_logistic(
    dim: int, examples: int, loops: int, *, ridge: float, largest: float, inner: int = 12, width: float = 1 / 8,
    bound: float = 12.0,
) -> Program:  # fmt: skip
    """One Newton step in each loop, for labels 0 and 1 (Newton-Schulz in a loop: Giannou et al., 2024).

    The layers of the loop: (1) g_j = D_j id_j, a boolean gate; (2) a token reads itself with the score D_j, which gives
    u_j = D_j x_j; (3) H and the gradient; then `inner` Newton-Schulz steps; then w; at last z = w'x, y - sigmoid(z) and
    sigmoid'(z) for the next loop.

    Args:
        dim: d, size of x.
        examples: n, the number of examples; the registers grow with it.
        loops: number of Newton steps.
        ridge: the penalty's factor.
        largest: a bound on the eigenvalues of H. P starts as I / largest.
        inner: Newton-Schulz steps. They reach 1e-16 if 2^inner is 37 times largest / ridge.
        width: distance of the knots between which sigmoid and sigmoid' are linear.
        bound: both are constant outside of [-bound, bound].
    """
    x, k, number, c, u, h, p = (names(s, dim if s != "n" else examples) for s in "xkncuhp")
    gate = names("D", examples)
    one_hot, every = each(c), each(p)
    code = Layer(
        units=(*(unit for name, id_ in zip(gate, number, strict=True)
                 for unit in add({"D": 1, id_: 1, ONE: -1}, {name: 1})), *clear("D")),
    )  # fmt: skip
    weighted = Layer(heads=(Head(each(k), u, query=each(gate), key=each(number)),), units=tuple(clear(*gate)))
    start = [Unit({name: 1}, {hi: ridge, pi: 1 / largest}) for name, hi, pi in zip(c, h, p, strict=True)]
    second = Layer(
        heads=(
            Head((*each(u, 1 / examples), {"e": 1 / examples}), (*h, "g"), query=one_hot, key=each(k)),
        ),
        units=(*start, *add({"w": 1}, {"g": -ridge}, signed=True), *clear(*u, signed=True)),
    )  # fmt: skip
    invert = Layer(heads=(Head(each(p, -1.0), p, query=every, key=each(h)), Head(every, p, query=one_hot, key=one_hot)))
    step = Layer(
        heads=(Head(({"g": 1},), ("w",), query=every, key=one_hot),),
        units=tuple(clear(*h, *p, "g", "z", "e", signed=True)),
    )
    residual, residual_bias = interpolation(lambda z: -sigmoid(z), {"z": 1}, {"e": 1}, width, bound)
    slope, slope_bias = interpolation(sigmoid_slope, {"z": 1}, {"D": 1}, width, bound)
    evaluate = Layer(
        heads=(Head(({"w": 1},), ("z",), query=each(x), key=one_hot),),
        units=(*add({"y": 1}, {"e": 1}), *residual, *slope), bias=form((1, residual_bias), (1, slope_bias)),
    )  # fmt: skip
    inputs = (*x, *k, *number, *c, "y")
    start_map: dict[str, Form] = {name: {name: 1} for name in inputs}
    return Program(
        Circuit(
            (*inputs, "w", "z", "e", "D", "g", *gate, *u, *h, *p),
            (code, weighted, second, *[invert] * inner, step, evaluate), linear=True,
        ),
        inputs=inputs, input_map=start_map | {"e": {"y": 1, ONE: -0.5}, "D": {ONE: 0.25}}, output_map=({"z": 1},),
        loops=loops,
    )  # fmt: skip
