"""The construction of Theorem 3.6 (Xu & Sato, ICML 2025): one weight-tied block that approximates a given function.

The block is our own and smaller than the paper's: dimension 5d+9 and width 9d+8 instead of 17d+9 and 49d+25. It
computes three stages, one after another:

1. Loops 1 .. n-1 quantise every token (`quantization`). The stage ends by itself.
2. Loops n .. n-1+N map tokens to contextual IDs k (`contextual_mapping`). The stage begins when J, which starts at
   -(n-1), reaches 0. It switches itself off.
3. The remaining loops recall label k (`memorization`). The code begins with zero digits, and the stage begins
   after them. By then s = s0 + k has counted down from n-1+N+k to k.

The block's weights depend only on (d, N, n, slope). The function determines L1 (through the code) and L2, or with
modulation eta(t). Three levels agree: `Construction.semantics` (sort and look up), `Construction.exact` (the
weights in exact arithmetic) and `Construction.__call__` (a `LoopedTransformer` that runs its own loops).
"""

import itertools
import math
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from looped.models.iteration import Iterated, iterate
from looped.models.transformer import LoopedTransformer
from looped.theory.arithmetic import Array, exact
from looped.theory.cells import Cells, Function, multisets
from looped.theory.circuit import ONE, Circuit, Form, Layer, Program, Unit, form
from looped.theory.memories import stages
from looped.theory.memorization import (
    Code,
    Lattice,
    bits_of,
    code_rows,
    decode_units,
    encode,
    lattice,
    predict,
    quantise_labels,
    radix_units,
    step_units,
    tuned,
)
from looped.theory.weights import write

KINDS = ("plain", "tuned", "radix", "modulated")


@dataclass(frozen=True)
class Budget:
    """Limits on the cost of a construction."""

    loops: int = 100_000
    bits: int = 1_000_000
    """Length of the code that stores the labels."""
    memory: int = 2**31
    """Bytes for the labels and the table eta(t)."""


@dataclass(frozen=True)
class Construction:
    """One weight-tied block that approximates a function; see `construct`."""

    cells: Cells
    kind: str
    program: Program
    answers: Array
    """(K, d) the intended output for each contextual ID."""
    codes: tuple[Code, ...]
    """The numbers that store the labels, one for each coordinate; none with modulation."""

    def semantics(self, x: Shaped[Array, "batch seq dim"]) -> Shaped[Array, "batch seq dim"]:
        """The intended output: quantise, sort, look up. (batch, seq, d) to the same shape."""
        return self.answers[self.cells.lookup(x)]

    def exact(self, x: Shaped[Array, "batch seq dim"]) -> Shaped[Array, "batch seq dim"]:
        """The output of the block's weights in exact arithmetic. `x` (batch, seq, d) holds multiples of 1/(2n)."""
        return self.program.run(exact(x)).astype(float)

    def __call__(self, x: Shaped[Array, "batch seq dim"], *, stream: bool = True) -> Shaped[Array, "batch seq dim"]:
        """The output of the `LoopedTransformer` in float64, (batch, seq, d) to the same shape.

        With `stream`, the register theta is set before every loop to its exact value, rounded to float64. That value
        does not depend on the input. Without `stream`, a long code loses its digits (see `predicted`).
        """
        with torch.no_grad():
            return self.model.head(self.simulate(x, stream=stream).state).numpy()

    def predicted(self, dtype: str = "float64") -> str:
        """A prediction, before running, of whether a run with stream=False in this dtype gives the right labels."""
        return predict(self.program, self.codes, dtype)

    @cached_property
    def model(self) -> LoopedTransformer:
        """The block as a `LoopedTransformer`."""
        return write(self.program, self.cells.seq)

    @torch.no_grad()
    def simulate(
        self, x: Shaped[Array, "batch seq dim"], *, stream: bool = True, every_state: bool = False
    ) -> Iterated:
        """The states of `model` for `x` (batch, seq, d), after the last loop or after every loop."""
        inputs = torch.from_numpy(np.ascontiguousarray(x, dtype=float))
        loops = self.program.loops
        keep = range(1, loops + 1) if every_state else ()
        if not (stream and self.codes):
            out = self.model(inputs, loop_states=every_state)
            kept = {} if out.loop_states is None else dict(enumerate(out.loop_states.unbind(0), start=1))
            return Iterated(out.state, out.num_loops, kept)
        codes = self.exact_codes()
        columns = [self.program.circuit.registers.index(f"theta{i}") for i in range(self.cells.d)]

        def step(state: Tensor, t: int) -> Tensor:
            state = state.clone()
            state[..., columns] = codes[t]
            return self.model.core[0](state)

        return iterate(step, self.model.embed(inputs), loops, keep=keep)

    def exact_codes(self) -> Float[Tensor, "loops dim"]:
        """(loops, d) the exact value of theta_i before each loop, rounded to float64.

        Only the units that read nothing but theta and c are run, in integers.
        """
        rows, d = code_rows(self.program, self.cells.d), self.cells.d
        no_input = np.empty((1, 1, 0), dtype=object)
        states = itertools.chain([rows.start(no_input)], rows.states(no_input))
        values = [[int(v) / 2**rows.bits for v in s[0, 0, :d]] for s in states]
        return torch.tensor(values[:-1], dtype=torch.float64)


def construct(
    f: Function,
    cells: Cells,
    kind: str = "plain",
    *,
    slope: int = 2**20,
    radix_bits: int = 6,
    fused: bool = False,
    paper_size: bool = False,
    budget: Budget | None = None,
) -> Construction:
    """The block that approximates f at the resolution of these cells.

    Args:
        f: (batch, seq, dim) to the same shape, on [0, 1]; see `looped.theory.cells.check_function`.
        cells: with gaps for plain and tuned, without for radix and modulated; `cells_for` chooses.
        kind: plain (weight-tied, n-1 + N + K-1 loops), tuned (the same with a better step), radix (weight-tied,
            `radix_bits` loops per label), modulated (eta(t) on the feed-forward layer, n-1 + N + K-1 loops).
        slope: steepness M of the quantiser.
        radix_bits: bits of a label (radix only).
        fused: use the smallest width, 9d+8 instead of 10d+8 (plain, tuned); see `decode_units`.
        paper_size: pad with zeros to the paper's dimension 17d+9 and width 49d+25.
        budget: limits on the cost.

    Raises:
        ValueError: the budget is exceeded (names the largest n within it), or float64 cannot hold the sizes.
    """
    check_budget(cells, kind, radix_bits=radix_bits, slope=slope, budget=budget or Budget())
    d, front = cells.d, stages(cells, slope)
    stage, recall_start = front.layers[0], len(front.layers)
    labels = cells.labels(f)
    s = form((1, "s0"), (per_label(kind, radix_bits), front.k))
    input_map = {**front.input_map, "s0": {ONE: recall_start}}
    bias = {**stage.bias, "s0": -1}
    loops, eta, codes = loops_of(cells, kind, radix_bits), None, ()
    memory_registers: tuple[str, ...]
    if kind == "modulated":
        memory_registers, memory = ("y",), step_units(s, d)
        input_map |= {f"y{i}": {ONE: Fraction(labels[0, i])} for i in range(d)}
        output_map: tuple[Form, ...] = tuple({f"y{i}": 1} for i in range(d))
        answers, bits = labels, max(v.denominator.bit_length() for v in exact(labels).ravel())
    else:
        memory_registers, bits = ("theta", "c", "a"), 0
        recalled = memorised(cells, labels, kind, radix_bits)
        if kind == "radix":
            memory = radix_units(s, d, radix_bits)
            digits = [[0] * recall_start + bits_of(column, radix_bits) for column in recalled.path.T]
        else:
            memory, memory_bias = decode_units(s, d, fused=fused)
            bias |= memory_bias
            digits = [[0] * (recall_start - 1) + np.diff(column).tolist() for column in recalled.path.T]
        codes = tuple(encode(row, 4) for row in digits)
        input_map |= {f"theta{i}": {ONE: code.value} for i, code in enumerate(codes)}
        output_map = tuple({f"a{i}": Fraction(recalled.step[i]), ONE: Fraction(recalled.origin[i])} for i in range(d))
        answers, bits = recalled.values, codes[0].bits
    names = [*front.registers, "s0"]
    names += ["g"] if kind == "radix" else []
    names += [f"{name}{i}" for name in memory_registers for i in range(d)]
    units = [*stage.units, *memory]
    if paper_size:
        names += [f"unused{i}" for i in range(17 * d + 9 - len(names))]
        units += [Unit({}, {})] * (49 * d + 25 - len(units))
    if kind == "modulated":
        eta = np.ones((loops, len(names)), dtype=object)
        columns = [names.index(f"y{i}") for i in range(d)]
        eta[:recall_start, columns] = 0
        eta[recall_start:, columns] = np.diff(exact(labels), axis=0)
    circuit = Circuit(tuple(names), (Layer(tuple(units), stage.heads, bias),))
    program = Program(circuit, front.inputs, input_map, output_map, loops, bits + 2, eta)
    return Construction(cells, kind, program, answers, codes)


def memorised(cells: Cells, labels: Shaped[Array, "labels dim"], kind: str, radix_bits: int = 6) -> Lattice:
    """The approximations of the labels (K, d) that a weight-tied memory of this kind stores."""
    if kind == "radix":
        return quantise_labels(labels, radix_bits)
    return tuned(labels, weights=cells.weights()) if kind == "tuned" else lattice(labels)


def cells_for(d: int, seq: int, n: int, kind: str) -> Cells:
    """n cells on each axis for N = seq tokens in d dimensions, with gaps if this kind of memory needs them."""
    return Cells(d, seq, n, gap=kind in ("plain", "tuned"))


def per_label(kind: str, radix_bits: int) -> int:
    """The number of loops that the memory spends on one label."""
    return radix_bits if kind == "radix" else 1


def loops_of(cells: Cells, kind: str, radix_bits: int = 6) -> int:
    """The number of loops r: n-1 + N + K-1 (plain: 2 n^((N+1)d) + N - 2), or n + N + radix_bits * K for radix."""
    recall_start = cells.n - 1 + cells.seq
    return recall_start + (radix_bits * cells.count + 1 if kind == "radix" else cells.count - 1)


def check_budget(cells: Cells, kind: str, *, radix_bits: int, slope: int, budget: Budget) -> None:
    """Check the cost of a construction before anything is computed.

    Raises:
        ValueError: the cost exceeds the budget; names both and the largest n within the budget.
    """
    if kind not in KINDS:
        raise ValueError(f"kind={kind!r}: expected {', '.join(KINDS)}")
    for name, value, least, most in (("radix_bits", radix_bits, 1, 40), ("slope", slope, 2, 2**53)):
        if not least <= value <= most:
            raise ValueError(f"{name}={value}: expected {least} to {most}")
    reason = _excess(cells, kind, radix_bits, slope, budget)
    if reason is None:
        return
    fewer = (cells_for(cells.d, cells.seq, n, kind) for n in range(min(cells.n - 1, 10_000), 1, -1))
    fits = next((c.n for c in fewer if _excess(c, kind, radix_bits, slope, budget) is None), None)
    advice = f"the largest n within it is {fits}" if fits else "no n is within it"
    raise ValueError(f"n={cells.n}: {reason}; {advice} (d={cells.d}, N={cells.seq}, {kind})")


def _excess(cells: Cells, kind: str, radix_bits: int, slope: int, budget: Budget) -> str | None:
    loops = loops_of(cells, kind, radix_bits)
    if loops > budget.loops:
        return f"needs {loops:,} loops, the budget is {budget.loops:,}"
    if kind != "modulated" and 2 * loops > budget.bits:
        return f"needs a code of {2 * loops:,} bits, the budget is {budget.bits:,}"
    width = 3 * cells.d + 9 if kind == "modulated" else 0
    memory = 8 * (8 * cells.count * cells.d + 4 * multisets(cells) * cells.seq * cells.d + 12 * loops * width)
    if memory > budget.memory:
        return f"needs {memory:,} bytes, the budget is {budget.memory:,}"
    if max(slope * cells.n, 2 * cells.tokens ** (cells.seq + 1)) * radix_bits >= 2**53:
        return "needs whole numbers beyond 2^53, the limit of float64"
    return None


def life(construction: Construction, x: Shaped[Array, "seq dim"], token: int = 0) -> Shaped[Array, "states registers"]:
    """(loops + 1, registers) the registers of one token of a sequence x (seq, d), after L1 and after every loop."""
    result = construction.simulate(x[None], every_state=True)
    with torch.no_grad():
        start = construction.model.embed(torch.from_numpy(x[None]))
    return torch.stack([start, *result.kept.values()])[:, 0, token].numpy()


def exact_on_all_sequences(construction: Construction) -> dict[str, int]:
    """How many sequences of cells there are, and on how many of them the weights are right in exact arithmetic."""
    n, shape = construction.cells.n, (construction.cells.seq, construction.cells.d)
    beta = np.array(list(np.ndindex(*[n] * math.prod(shape)))).reshape(-1, *shape)
    x = (exact(beta) * 2 + 1) / (2 * n)
    right = np.abs(construction.exact(x) - construction.semantics(x)).max((1, 2)) < 1e-12
    return {"exact_sequences": len(x), "exact_right": int(right.sum())}
