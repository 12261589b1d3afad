"""One forward pass of a looped model: everything that its loops share, one loop, and decoding."""

import math
from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from looped.models.early_exit import Active, EarlyExit, ExitState
from looped.models.exit_rules import ActCarry, ExitRule
from looped.models.fixed_point import FixedPoint, FixedPointGradient, fixed_point
from looped.models.iteration import iterate
from looped.models.kv_cache import Cache, CachedPass, PassKV
from looped.models.layer_order import applications
from looped.models.memory import check_memory
from looped.nn.attention import causal_mask, combined_mask
from looped.nn.graphs import SharedGraph
from looped.nn.modulation import by_layer
from looped.nn.protocols import Context, KVStore, Section


class Looped(NamedTuple):
    """The result of the loops of a pass."""

    state: Float[Tensor, "batch seq d_model"]
    num_loops: int
    states: dict[int, Float[Tensor, "batch seq d_model"]]
    """By loop number, those that were asked for."""
    logits: dict[int, Float[Tensor, "batch seq output"]]
    """Those that the exit rule needed anyway."""
    loops_taken: Int[Tensor, "batch seq"] | None = None
    ponder_cost: Float[Tensor, "batch seq"] | None = None
    fixed_point: FixedPoint | None = None


class Pass:
    """One forward pass of a `LoopedModel`: the context that its loops share, and the initial state."""

    def __init__(
        self,
        model: Any,
        inputs: Tensor,
        attention_mask: Tensor | None,
        positions: Tensor | None,
        num_loops: int,
        cache: Cache | None,
        rule: ExitRule | None,
        graphs: Mapping[str, Tensor | SharedGraph] | None = None,
        embedded: bool = False,
        prefix: Tensor | None = None,
    ) -> None:
        seq, device = inputs.shape[1], inputs.device
        start = 0 if cache is None else cache.used
        self.model, self.num_loops, self.active = model, num_loops, Active()
        self.store: KVStore | None = None
        if cache is not None:
            self.store = CachedPass(cache, slice(start, start + seq), num_loops, self.active)
            mask = cache.mask(attention_mask, self.store.span, prefix)
        else:
            mask = combined_mask(attention_mask, causal_mask(seq, 0, device, prefix) if model.causal else None)
            if model.kv_loops is not None or (rule is not None and rule.per == "token"):
                self.store = PassKV(self.active, model.kv_loops)
        if positions is None:
            counted = torch.arange(seq, device=device) if cache is None else cache.positions
            positions = counted[start : start + seq]
        x, vectors = inputs if embedded else _looked_up("inputs", model.embed, inputs), None
        x = x if model.embedding_scale == 1 else x * model.embedding_scale
        if model.positions is not None:
            vectors = _looked_up("positions", model.positions, positions)
            kind = x.device.type
            if not (torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)):
                vectors = vectors.to(x.dtype)  # autocast keeps the state in float32
            x = x if model.injection.adds_positions else x + vectors
        x = model.embed_norm(x)
        self.shared = Context(
            mask=mask, rotary=None if model.rotary is None else model.rotary(positions), graphs=graphs or {}
        )
        self.modulation: list[list[dict[str, Tensor]]] | None = None
        for layer, block in enumerate(model.prelude):
            x = block(x, self.context("prelude", layer, 0, self.shared))
        self.shared = self.shared._replace(embedded=x, position_embedding=vectors)
        self.initial = model.injection.initial(x)
        if model.modulation is not None:
            expected = (num_loops, sum(map(len, model.modulation.names)), x.shape[-1])
            check_memory(f"num_loops={num_loops}: the modulation", math.prod(expected) * x.itemsize, device)
            rows = model.modulation(num_loops, device) if cache is None else cache.modulation(num_loops)
            rows = rows.to(next(model.parameters()).dtype)  # sinusoids are in float32 in any model
            if rows.shape != expected:
                raise ValueError(
                    f"modulation: returned shape {tuple(rows.shape)}; expected {expected}: "
                    "loops, one row for each name of each core layer, width"
                )
            # Unbound once: indexing in every loop would allocate a full gradient for every loop.
            self.modulation = [by_layer(of_loop, model.modulation.names) for of_loop in rows.unbind(0)]

    def loop(self, state: Tensor, keep: Collection[int], **options: Any) -> "Looped":
        """All loops; `keep` and options as in `iterate`."""
        found = iterate(self.step, state, self.num_loops, keep=keep, **options)
        return Looped(found.state, found.num_loops, found.kept, {})

    def loop_to_fixed_point(self, state: Tensor, gradient: FixedPointGradient) -> "Looped":
        """All loops without gradient, and a gradient at the last state (see `fixed_point`)."""
        found, facts = fixed_point(self.step, state, self.num_loops, gradient)
        return Looped(found, self.num_loops, {self.num_loops: found}, {}, fixed_point=facts)

    def loop_with_exits(
        self, state: Tensor, keep: Collection[int], rule: ExitRule, exit_mask: Tensor | None, real: Tensor | None
    ) -> "Looped":
        """The loops until every example has exited; `real` is the attention mask."""
        masks = [real if real is not None and real.ndim == 2 else None, None if rule.needs == "halting" else exit_mask]
        looked_at = torch.ones(state.shape[:2], dtype=torch.bool, device=state.device)
        for mask in masks:
            looked_at = looked_at if mask is None else looked_at & mask
        exits = EarlyExit(
            rule, self.active, looked_at, step=self.step, decode=self.decode, halting=self.model.halting_probability
        )
        found = iterate(exits, ExitState(state), self.num_loops, keep=keep, until=self.active.empty)
        self.active.clear()  # what follows works on the whole batch
        last, taken = found.state, exits.loops_taken
        known = {**found.kept, found.num_loops: last}
        return Looped(
            rule.output(last.hidden, last.carry),
            found.num_loops,
            {n: rule.output(kept.hidden, kept.carry) for n, kept in found.kept.items()},
            {n: kept.logits for n, kept in known.items() if kept.logits is not None},
            taken,
            taken + last.carry.remainder[..., 0] if isinstance(last.carry, ActCarry) else None,
        )

    def step(self, state: Tensor, t: int) -> Tensor:
        """The state after loop t, of the examples in the loop."""
        shared, model = self._active_rows(), self.model
        applied = applications(model.layer_order, len(model.core), self.num_loops, t)
        contexts = [self.context("core", layer, own, shared) for layer, own in applied]
        new = model.run_core(state, contexts, [layer for layer, _ in applied])
        if t == 0 and (not isinstance(new, Tensor) or new.shape != state.shape):  # a block does the same in every loop
            found = tuple(new.shape) if isinstance(new, Tensor) else type(new).__name__
            raise ValueError(
                f"core: its blocks returned {found}; expected the shape of their input, {tuple(state.shape)}"
            )
        return new

    def decode(self, state: Tensor, t: int, last: slice = slice(None)) -> Float[Tensor, "batch read output"]:
        """The logits of the state after loop t, at the positions `last`."""
        model, shared = self.model, self._active_rows()
        state = model.norm(state) if model.coda_norm else state
        for layer, block in enumerate(model.coda):
            state = block(state, self.context("coda", layer, t, shared))
        state = state[:, last]
        return model.head(state if model.loop_norm else model.norm(state))

    def context(self, section: Section, layer: int, t: int, shared: Context) -> Context:
        modulation = self.modulation[t][layer] if section == "core" and self.modulation else {}
        kv = None if self.store is None else self.store.slot(section, layer, t)
        return shared._replace(modulation=modulation, kv=kv, loop=t)

    def _active_rows(self) -> Context:
        """The context that all loops share, narrowed to the examples in the loop."""
        rows, shared = self.active.rows, self.shared
        if rows is None:
            return shared

        def take(x: Tensor | None) -> Tensor | None:
            return x if x is None or x.ndim == 2 or len(x) == 1 else x[rows]

        rotary = None if shared.rotary is None else (take(shared.rotary[0]), take(shared.rotary[1]))
        return shared._replace(
            mask=take(shared.mask), rotary=rotary, embedded=self.active.take(shared.embedded),
            position_embedding=take(shared.position_embedding),
            graphs={
                name: graph[rows] if isinstance(graph, Tensor) else graph for name, graph in shared.graphs.items()
            },
        )  # fmt: skip


def _looked_up(what: str, module: Callable[[Tensor], Tensor], numbers: Tensor) -> Tensor:
    """The rows of a table; ValueError for rows that it does not have. A GPU fails later, with an error of its own."""
    try:
        return module(numbers)
    except IndexError:
        rows = getattr(module, "num_embeddings", None) or len(getattr(module, "table", ()))
        found = f"{what}: from {numbers.min().item()} to {numbers.max().item()}"
        raise ValueError(f"{found}; expected 0 to {rows - 1}" if rows else f"{found}: out of range") from None
