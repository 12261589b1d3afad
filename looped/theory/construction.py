"""The whole construction of Theorem 3.6 as one weight-tied block, for any function, and inside a real model.

One block does three things, each when its turn comes (Xu & Sato, ICML 2025; the block itself is our own and
smaller than theirs: dimension 5d+9 and width 9d+8 in place of 17d+9 and 49d+25):

1. loops 1 .. n-1 quantise every token (`quantization`); the stage ends by itself;
2. loops n .. n-1+N map tokens to contextual IDs k (`contextual_mapping`); it begins when J, which starts at
   -(n-1), reaches 0, and stops itself;
3. the remaining loops recall label k (`memorization`); it begins when the leading zero digits of the code are
   used up, and s = s0 + k has meanwhile counted down from n-1+N+k to k.

The block's weights depend on (d, N, n, slope) alone; the function enters by the code in L1 and by L2, or with
modulation by eta(t). Three levels agree: `Construction.semantics` (sort and look up), `Construction.exact` (the
weights in exact arithmetic), and `Construction.__call__` (a `LoopedTransformer` whose own loop does the work).
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

from looped.config import ModelConfig
from looped.models.iteration import Iterated, iterate
from looped.models.transformer import LoopedTransformer
from looped.nn.block import TransformerBlock
from looped.theory.cells import Cells, Function, multisets
from looped.theory.circuit import ONE, Array, Circuit, Form, Program, Unit, exact, form
from looped.theory.contextual_mapping import REGISTERS, contextual_parts
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
from looped.theory.quantization import quantization_units

KINDS = ("plain", "tuned", "radix", "modulated")


@dataclass(frozen=True)
class Budget:
    """What a construction may cost."""

    loops: int = 100_000
    bits: int = 1_000_000
    """Length of the code that holds the labels."""
    memory: int = 2**31
    """Bytes for the labels and the table of factors."""


@dataclass(frozen=True)
class Construction:
    """One weight-tied block that approximates a function; see `construct`."""

    cells: Cells
    kind: str
    program: Program
    answers: Array
    """(K, d) what the loop should return for each contextual ID."""
    codes: tuple[Code, ...]
    """The numbers that hold the labels, one a coordinate; none with modulation."""

    def semantics(self, x: Shaped[Array, "batch seq dim"]) -> Shaped[Array, "batch seq dim"]:
        """What the construction means: quantise, sort, look up. (batch, seq, dim) to the same shape."""
        return self.answers[self.cells.lookup(x)]

    def exact(self, x: Shaped[Array, "batch seq dim"]) -> Shaped[Array, "batch seq dim"]:
        """The block's weights executed in exact arithmetic; `x` holds numbers that are multiples of 1/(2n)."""
        return self.program.run(exact(x)).astype(float)

    def __call__(self, x: Shaped[Array, "batch seq dim"], *, stream: bool = True) -> Shaped[Array, "batch seq dim"]:
        """The real model in float64. (batch, seq, dim) to the same shape.

        With `stream`, the register theta is set before every loop to the nearest float64 of its exact value,
        which does not depend on the input; without it, a long code loses its digits (see `predicted`).
        """
        with torch.no_grad():
            return self.model.head(self.simulate(x, stream=stream).state).numpy()

    def predicted(self, dtype: str = "float64") -> str:
        """What pure floating-point looping (stream=False) will do, said before it runs."""
        return predict(self.program, self.codes, dtype)

    @cached_property
    def model(self) -> LoopedTransformer:
        """The block written into the library's transformer."""
        return write(self.program, self.cells.seq)

    @torch.no_grad()
    def simulate(
        self, x: Shaped[Array, "batch seq dim"], *, stream: bool = True, every_state: bool = False
    ) -> Iterated:
        """The states of the real model, after the last loop or after every loop."""
        inputs = torch.from_numpy(np.ascontiguousarray(x, dtype=float))
        loops = self.program.loops
        keep = range(1, loops + 1) if every_state else ()
        if not (stream and self.codes):
            out = self.model(inputs, loop_states=every_state)
            kept = {} if out.loop_states is None else dict(enumerate(out.loop_states.unbind(0), start=1))
            return Iterated(out.state, out.num_loops, kept)
        codes = self.exact_codes()
        places = [self.program.circuit.registers.index(f"theta{i}") for i in range(self.cells.dim)]

        def step(state: Tensor, t: int) -> Tensor:
            state = state.clone()
            state[..., places] = codes[t]
            return self.model.core[0](state)

        return iterate(step, self.model.embed(inputs), loops, keep=keep)

    def exact_codes(self) -> Float[Tensor, "loops dim"]:
        """(loops, d) the exact value of theta_i before each loop, rounded to float64.

        The same units, those that read nothing but theta and c, run alone in integers.
        """
        rows, d = code_rows(self.program, self.cells.dim), self.cells.dim
        nothing = np.empty((1, 1, 0), dtype=object)
        states = itertools.chain([rows.start(nothing)], rows.states(nothing))
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
    """The block that approximates f on these cells.

    Args:
        f: (batch, seq, dim) to the same shape, on [0, 1]; see `looped.theory.cells.check_function`.
        cells: with gaps for kind plain or tuned, else without; `cells_for` chooses.
        kind: plain (weight-tied, n-1 + N + K-1 loops), tuned (the same with a better step), radix (weight-tied,
            `radix_bits` loops a label), modulated (eta(t) on the feed-forward layer, n-1 + N + K-1 loops).
        slope: steepness M of the quantiser.
        fused: the smallest width, 9d+8 in place of 10d+8 (plain, tuned); see `decode_units`.
        paper_size: pad with zeros to the paper's dimension 17d+9 and width 49d+25.
        budget: refuse what costs more.

    Raises:
        ValueError: a budget exceeded, with the most cells that it allows; sizes that float64 cannot hold.
    """
    check_budget(cells, kind, radix_bits=radix_bits, slope=slope, budget=budget or Budget())
    d, n = cells.dim, cells.cells
    wait = n - 1 + cells.seq
    labels = cells.labels(f)
    s = form((1, "s0"), (per_label(kind, radix_bits), form((1, cells.own_form()), (1, cells.context_form()))))
    units, drift = quantization_units(d, slope)
    context_units, heads, context_drift = contextual_parts(cells.token_form(), cells.tokens, cells.seq)
    first: dict[str, Form] = {f"u{i}": {f"x{i}": n} for i in range(d)}
    first |= {"J": {ONE: -(n - 1)}, "one": {ONE: 1}, "s0": {ONE: wait}}
    drift = {**drift, **context_drift, "s0": -1}
    loops, eta, codes = loops_of(cells, kind, radix_bits), None, ()
    own: tuple[str, ...]
    if kind == "modulated":
        own, memory = ("y",), step_units(s, d)
        first |= {f"y{i}": {ONE: Fraction(labels[0, i])} for i in range(d)}
        last: tuple[Form, ...] = tuple({f"y{i}": 1} for i in range(d))
        answers, bits = labels, max(v.denominator.bit_length() for v in exact(labels).ravel())
    else:
        own, bits = ("theta", "c", "a"), 0
        known = memorised(cells, labels, kind, radix_bits)
        if kind == "radix":
            memory = radix_units(s, d, radix_bits)
            digits = [[0] * wait + bits_of(column, radix_bits) for column in known.path.T]
        else:
            memory, more = decode_units(s, d, fused=fused)
            drift |= more
            digits = [[0] * (wait - 1) + np.diff(column).tolist() for column in known.path.T]
        codes = tuple(encode(row, 4) for row in digits)
        first |= {f"theta{i}": {ONE: code.value} for i, code in enumerate(codes)}
        last = tuple({f"a{i}": Fraction(known.step[i]), ONE: Fraction(known.origin[i])} for i in range(d))
        answers, bits = known.values, codes[0].bits
    names = [f"{name}{i}" for name in ("u", "beta") for i in range(d)] + [*REGISTERS, "s0"]
    names += ["g"] if kind == "radix" else []
    names += [f"{name}{i}" for name in own for i in range(d)]
    units = [*units, *context_units, *memory]
    if paper_size:
        names += [f"unused{i}" for i in range(17 * d + 9 - len(names))]
        units += [Unit({}, {})] * (49 * d + 25 - len(units))
    if kind == "modulated":
        eta = np.ones((loops, len(names)), dtype=object)
        columns = [names.index(f"y{i}") for i in range(d)]
        eta[:wait, columns] = 0
        eta[wait:, columns] = np.diff(exact(labels), axis=0)
    circuit = Circuit(tuple(names), tuple(units), heads, drift)
    program = Program(circuit, tuple(f"x{i}" for i in range(d)), first, last, loops, bits + 2, eta)
    return Construction(cells, kind, program, answers, codes)


def memorised(cells: Cells, labels: Shaped[Array, "labels dim"], kind: str, radix_bits: int = 6) -> Lattice:
    """The values that a weight-tied memory of this kind returns in place of the labels (K, d)."""
    if kind == "radix":
        return quantise_labels(labels, radix_bits)
    return tuned(labels, weights=cells.weights()) if kind == "tuned" else lattice(labels)


def cells_for(dim: int, seq: int, cells: int, kind: str) -> Cells:
    """The cells and the line of IDs that suit the kind of memory."""
    return Cells(dim, seq, cells, gap=kind in ("plain", "tuned"))


def per_label(kind: str, radix_bits: int) -> int:
    """Loops that the memory spends on one label."""
    return radix_bits if kind == "radix" else 1


def loops_of(cells: Cells, kind: str, radix_bits: int = 6) -> int:
    """r: n-1 + N + K-1, which is 2 n^((N+1)d) + N - 2 for plain; radix: n + N + radix_bits * K."""
    wait = cells.cells - 1 + cells.seq
    return wait + (radix_bits * cells.count + 1 if kind == "radix" else cells.count - 1)


def check_budget(cells: Cells, kind: str, *, radix_bits: int, slope: int, budget: Budget) -> None:
    """Refuse, before anything is computed, what costs too much, and say how many cells would not.

    Raises:
        ValueError: names the cost, the budget and the most cells within it.
    """
    if kind not in KINDS:
        raise ValueError(f"kind={kind!r}: expected {', '.join(KINDS)}")
    for name, value, least, most in (("radix_bits", radix_bits, 1, 40), ("slope", slope, 2, 2**53)):
        if not least <= value <= most:
            raise ValueError(f"{name}={value}: expected {least} to {most}")
    reason = _excess(cells, kind, radix_bits, slope, budget)
    if reason is None:
        return
    fewer = (cells_for(cells.dim, cells.seq, n, kind) for n in range(min(cells.cells - 1, 10_000), 1, -1))
    fits = next((c.cells for c in fewer if _excess(c, kind, radix_bits, slope, budget) is None), None)
    advice = f"the most cells within it are {fits}" if fits else "no number of cells is within it"
    raise ValueError(f"cells={cells.cells}: {reason}; {advice} (dim={cells.dim}, seq={cells.seq}, {kind})")


def _excess(cells: Cells, kind: str, radix_bits: int, slope: int, budget: Budget) -> str | None:
    loops = loops_of(cells, kind, radix_bits)
    if loops > budget.loops:
        return f"needs {loops:,} loops, the budget is {budget.loops:,}"
    if kind != "modulated" and 2 * loops > budget.bits:
        return f"needs a code of {2 * loops:,} bits, the budget is {budget.bits:,}"
    width = 3 * cells.dim + 9 if kind == "modulated" else 0
    memory = 8 * (8 * cells.count * cells.dim + 4 * multisets(cells) * cells.seq * cells.dim + 12 * loops * width)
    if memory > budget.memory:
        return f"needs {memory:,} bytes, the budget is {budget.memory:,}"
    if max(slope * cells.cells, 2 * cells.tokens ** (cells.seq + 1)) * radix_bits >= 2**53:
        return "needs whole numbers beyond 2^53, the budget of float64"
    return None


@torch.no_grad()
def write(program: Program, seq: int, *, inverse_temperature: float | None = None) -> LoopedTransformer:
    """The program as a float64 `LoopedTransformer` of sequences up to `seq`: L1, block and L2 are its weights.

    eta(t) becomes the table of feed-forward gates. With an inverse temperature, attention is softmax with all
    scores multiplied by it, in place of hardmax.
    """
    circuit = program.circuit
    names, heads = circuit.registers, max(len(circuit.heads), 1)
    config = ModelConfig(
        inputs="vectors", input_dim=len(program.inputs), output_size=len(program.last), max_seq_len=seq,
        d_model=len(names), num_heads=heads, d_head=1, d_ff=len(circuit.units), num_loops=program.loops,
        attention="hardmax" if inverse_temperature is None else "softmax", activation="relu", norm="none",
        positions="none", bias=True, modulation="none" if program.eta is None else "table",
        max_loops=None if program.eta is None else program.loops,
    )  # fmt: skip
    model = LoopedTransformer(config).double()
    for parameter in model.parameters():
        parameter.zero_()
    block = model.core[0]
    assert isinstance(block, TransformerBlock)
    _assign(model.embed, *circuit.matrix([program.first.get(name, {}) for name in names], program.inputs))
    _assign(model.head, *circuit.matrix(program.last))
    _assign(block.feedforward.up, *circuit.matrix([unit.reads for unit in circuit.units]))
    down = circuit.matrix([unit.writes for unit in circuit.units])[0].T
    _assign(block.feedforward.down, down, np.array([circuit.drift.get(name, 0) for name in names], dtype=object))
    for i, head in enumerate(circuit.heads):
        rows = [i, heads + i, 2 * heads + i]
        block.attention.qkv.weight[rows] = _tensor(circuit.matrix(head[:3])[0])
        block.attention.qkv.weight[i] *= inverse_temperature or 1.0
        block.attention.project.weight[names.index(head.writes), i] = 1
    if program.eta is not None:
        # The signals of a layer: attention gain and feed-forward gain (as 1 + s), attention gate, feed-forward gate.
        model.modulation.table[:, 2] = 1
        model.modulation.table[:, 3] = _tensor(program.eta)
    return model


def life(construction: Construction, x: Shaped[Array, "seq dim"], token: int = 0) -> Shaped[Array, "states registers"]:
    """(loops + 1, registers) the registers of one token of one sequence x (seq, dim), from L1 to the last loop."""
    result = construction.simulate(x[None], every_state=True)
    with torch.no_grad():
        start = construction.model.embed(torch.from_numpy(x[None]))
    return torch.stack([start, *result.kept.values()])[:, 0, token].numpy()


def exact_on_all_sequences(construction: Construction) -> dict[str, int]:
    """How many sequences of cells there are, and on how many of them the weights are right in exact arithmetic."""
    n, shape = construction.cells.cells, (construction.cells.seq, construction.cells.dim)
    beta = np.array(list(np.ndindex(*[n] * math.prod(shape)))).reshape(-1, *shape)
    x = (exact(beta) * 2 + 1) / (2 * n)
    right = np.abs(construction.exact(x) - construction.semantics(x)).max((1, 2)) < 1e-12
    return {"exact_sequences": len(x), "exact_right": int(right.sum())}


def _assign(linear: torch.nn.Module, weight: Array, bias: Array) -> None:
    assert isinstance(linear, torch.nn.Linear)
    linear.weight.copy_(_tensor(weight))
    linear.bias.copy_(_tensor(bias))


def _tensor(values: Array) -> Tensor:
    return torch.from_numpy(values.astype(np.float64))
