"""The looped model: embed, prelude, core applied num_loops times, coda, head.

A forward pass flows like this:

    embedded = prelude(embed(inputs) + positions)
    state = injection.initial(embedded)
    for t in range(num_loops):            # `iterate`, with an exit rule around each loop if there is one
        state = core(injection(state, embedded))
    logits = head(norm(coda(state)))
"""

import functools
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from looped.models.arguments import (
    check_call,
    check_fixed_point,
    check_inputs,
    checked_mask,
    checked_prefix,
    checked_state,
    loop_numbers,
)
from looped.models.exit_rules import ExitRule, learned_rule
from looped.models.fixed_point import FixedPointGradient
from looped.models.forward_pass import Pass
from looped.models.graphs import checked_graphs
from looped.models.iteration import Recompute
from looped.models.kv_cache import Cache, CachedPass
from looped.models.layer_order import ORDERS
from looped.models.memory import check_memory
from looped.models.outputs import Loop, LoopedOutput
from looped.models.weights import load_weights, save_weights
from looped.nn.block import TransformerBlock
from looped.nn.injection import NoInjection
from looped.nn.native.block import runs_native
from looped.nn.per_loop import BlockPerLoop
from looped.nn.protocols import Context, Injection, Modulation, Section, kv_shape, modulation_names
from looped.strict import at_least

Inputs = Int[Tensor, "batch seq"] | Float[Tensor, "batch seq input"]
AttentionMask = Tensor
"""(batch, seq), or (batch, seq, seq) for each query and key; booleans, or 0 and 1."""


class LoopedModel(nn.Module):
    """Composes any modules into a looped model. `LoopedTransformer` builds one from a configuration.

    Example: `LoopedModel(embed=nn.Embedding(50, 32), core=[MyBlock()], head=nn.Linear(32, 50), num_loops=4)`, where
    `MyBlock()(x, context)` maps (batch, seq, 32) to the same shape; see `looped.nn.protocols.Block`.
    """

    # Any module may stand here, so a type checker cannot know its attributes.
    embed: Any
    positions: Any
    rotary: Any
    head: Any
    halt: Any
    injection: Any
    modulation: Any

    def __init__(
        self,
        *,
        embed: nn.Module,
        core: Iterable[nn.Module],
        head: nn.Module,
        prelude: Iterable[nn.Module] = (),
        coda: Iterable[nn.Module] = (),
        positions: nn.Module | None = None,
        rotary: nn.Module | None = None,
        embed_norm: nn.Module | None = None,
        embedding_scale: float = 1.0,
        injection: Injection | None = None,
        modulation: Modulation | None = None,
        norm: nn.Module | None = None,
        loop_norm: bool = False,
        coda_norm: bool = False,
        halt: nn.Module | None = None,
        halting: Literal["none", "gate", "act"] = "none",
        num_loops: int = 1,
        layer_order: Literal["cycle", "sequence", "reverse"] = "cycle",
        kv_loops: int | None = None,
        causal: bool = False,
        max_seq_len: int | None = None,
    ) -> None:
        """All weights are the modules' own.

        Args:
            embed: inputs to vectors (batch, seq, d_model).
            core, prelude, coda: blocks inside, before and after the loop.
            head: (batch, seq, d_model) to logits (batch, seq, output).
            positions: positions (seq) or (batch, seq) to vectors, which are added to the embedding.
            rotary: positions to rotary angles, see `Context.rotary`.
            embed_norm: applied to the embedding.
            embedding_scale: factor on what `embed` returns.
            injection: how the embedded input enters each loop; None means only before the first.
            modulation: vectors for each core layer that depend on the loop; None is none.
            norm: applied before the head, with coda_norm before the coda too, or after every loop with loop_norm.
            halt: (batch, seq, d_model) to a halting logit (batch, seq, 1), for halting="gate" or "act".
            num_loops: unless a call says otherwise.
            layer_order: see `applications` in `looped.models.layer_order`.
            kv_loops: if set, loops after the first `kv_loops` attend to the keys and values of loop `kv_loops`.
            causal: whether a position attends only to itself and those before it.
            max_seq_len: longest sequence; None is no limit.

        Raises:
            ValueError: for a modulation that a core block does not read, or kv_loops with a block that cannot be
                cached.
        """
        super().__init__()
        self.positions, self.rotary, self.embed = positions, rotary, embed
        self.embed_norm, self.embedding_scale = embed_norm or nn.Identity(), embedding_scale
        self.prelude, self.core, self.coda = nn.ModuleList(prelude), nn.ModuleList(core), nn.ModuleList(coda)
        self.injection = injection or NoInjection()
        self.modulation = modulation
        self.norm = norm or nn.Identity()
        self.head = head
        if halt is not None:
            self.halt = halt
        self.halting: Literal["none", "gate", "act"] = halting
        self.loop_norm, self.coda_norm, self.num_loops = loop_norm, coda_norm, num_loops
        self.layer_order: Literal["cycle", "sequence", "reverse"] = layer_order
        self.kv_loops, self.causal, self.max_seq_len, self.graphs = kv_loops, causal, max_seq_len, nn.ModuleDict()
        if not len(self.core):
            raise ValueError("core: expected at least one block")
        if num_loops < 1 or (kv_loops is not None and kv_loops < 1):
            raise ValueError(f"num_loops={num_loops}, kv_loops={kv_loops}: expected at least 1")
        if halting not in ("none", "gate", "act") or (halting == "none") != (halt is None):
            raise ValueError(
                f"halting={halting!r}: expected 'gate' or 'act' with a module `halt`, or 'none' without one"
            )
        if layer_order not in ORDERS:
            raise ValueError(f"layer_order={layer_order!r}: expected one of {', '.join(ORDERS)}")
        self._check_modulation()
        if kv_loops is not None:
            self.check_kv("kv_loops")
        self.compiled = False

    # Facts about the model

    @property
    def sections(self) -> dict[Section, nn.ModuleList]:
        return {"prelude": self.prelude, "core": self.core, "coda": self.coda}

    @property
    def max_loops(self) -> int | None:
        """The most loops that the modulation has vectors for, and the core weights; None is no limit."""
        limits = [getattr(part, "max_loops", None) for part in (self.modulation, *self.core)]
        return min(filter(None, limits), default=None)

    @property
    def uses_fraction(self) -> bool:
        """Whether a loop also depends on the number of loops. Every loop count is then a computation of its own."""
        return getattr(self.modulation, "uses_fraction", False) or self.layer_order != "cycle"

    @property
    def output_size(self) -> int | None:
        """Numbers in the output of a position, if the head says so."""
        return getattr(self.head, "out_features", None)

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    def _check_modulation(self) -> None:
        if self.modulation is None:
            return
        names = getattr(self.modulation, "names", None)
        if names is None or isinstance(names, str) or any(isinstance(of_layer, str) for of_layer in names):
            raise ValueError(
                f"modulation: names={names!r}; expected a tuple of names for each core layer, such as [('gate',)]"
            )
        if len(names) != len(self.core):
            raise ValueError(f"modulation: has names for {len(names)} layers; expected {len(self.core)}, the core's")
        for i, (block, wanted) in enumerate(zip(self.core, names, strict=True)):
            if unread := sorted(set(wanted) - set(modulation_names(block))):
                raise ValueError(
                    f"modulation: core[{i}] ({type(block).__name__}) does not read {', '.join(unread)}; "
                    f"expected these in its modulation_names"
                )

    def check_kv(self, what: str) -> None:
        """Raises ValueError if a block cannot take part in `what`, because it shares no keys and values."""
        for section, blocks in self.sections.items():
            for i, block in enumerate(blocks):
                if kv_shape(block) is None:
                    name = f"{section}[{i}] ({type(block).__name__})"
                    raise ValueError(f"{what}: {name} cannot be cached; expected a block with a kv_shape")

    # Use

    def new_cache(self, batch: int, length: int, **options: Any) -> Cache:
        """An empty `Cache` for this model, on its device and in the type that it computes in; options as there."""
        weight = next(self.parameters())
        kind = weight.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else weight.dtype
        return Cache(self, batch, length, dtype=dtype, device=weight.device, **options)

    def use_native(self) -> None:
        """Compute small transformer blocks in C++ on CPUs (`looped.nn.native`). Their gradient has no gradient."""
        for block in self.modules():
            if isinstance(block, TransformerBlock):
                block.native = True

    def compile_core(self) -> None:
        """`use_native`, and compile any other core, once for all loops."""
        self.use_native()
        # A compiled layer that takes other weights in each loop would be compiled again for each.
        self.compiled = not any(isinstance(block, BlockPerLoop) for block in self.core)

    def save(self, folder: Path | str) -> None:
        """Write the weights to `folder`/model.safetensors."""
        save_weights(self, Path(folder))

    def load_weights(self, folder: Path | str) -> None:
        """Read weights that `save` wrote; raises ValueError if they are damaged or of another architecture."""
        load_weights(self, Path(folder))

    def forward(
        self,
        inputs: Inputs,
        *,
        attention_mask: AttentionMask | None = None,
        positions: Int[Tensor, "batch seq"] | None = None,
        num_loops: int | None = None,
        num_grad_loops: int | None = None,
        initial_state: Float[Tensor, "batch seq d_model"] | None = None,
        exit_rule: ExitRule | None = None,
        exit_mask: Bool[Tensor, "batch seq"] | None = None,
        cache: Cache | None = None,
        loop_logits: Literal["last", "all"] | Collection[int] = "last",
        last_logits: int | None = None,
        loop_states: bool = False,
        recompute: Recompute = "none",
        gradient: FixedPointGradient | None = None,
        graphs: Mapping[str, Tensor] | None = None,
        embedded: bool = False,
        prefix: Bool[Tensor, "batch seq"] | None = None,
    ) -> LoopedOutput:
        """Apply the model.

        Args:
            inputs: tokens, or vectors of width input_dim; with a cache those that follow its tokens.
            attention_mask: True (or 1) at real positions, False at padding; or for each query (second axis) the keys
                (third axis) that it may attend to, such as a graph's edges; None allows every pair.
            positions: the position of each input, if padding on the left shifts them; None counts from 0, with a cache
                from its number of tokens.
            num_loops: None is the model's.
            num_grad_loops: trailing loops that carry gradient; None is all.
            initial_state: the state before the first loop; None is the model's own.
            exit_rule: lets examples or tokens exit early. A model with halting="act" always does, and decodes the mean
                of its states.
            exit_mask: the positions that the exit rule looks at, such as those of the answer; None is all real ones.
                Learned halting always looks at all real ones.
            cache: keys and values of earlier tokens; those of `inputs` are added.
            loop_logits: loop numbers, from 1, whose logits are returned; loops after an early exit are left out.
            last_logits: decode only this many positions at the end; None is all.
            loop_states: also return the state after each loop.
            recompute: see `iterate`.
            gradient: at the fixed point of the loop, see `fixed_point`; None is through all loops. One more loop is
                run. The loop must not depend on t and must contain the input (`injection`), and only the last
                logits are returned.
            graphs: matrices (batch, seq, seq) by name, for graph heads; None is those of `share_graphs`.
            embedded: whether `inputs` are vectors (batch, seq, d_model) in place of what `embed` would return.
            prefix: True at tokens of a causal model that attend to each other in both directions, such as a prompt
                (prefix language model: Raffel et al., 2020); with a cache in its first call only.

        Raises:
            ValueError: for a sequence longer than max_seq_len or than the cache, loop numbers out of range, a cache
                of another model, batch or number of loops, and arguments that cannot be combined.
        """
        loops = self.num_loops if num_loops is None else num_loops
        check_inputs(None if embedded else self.embed, inputs, positions)
        attention_mask = checked_mask(inputs, attention_mask)
        if exit_mask is not None and exit_mask.shape != inputs.shape[:2]:
            raise ValueError(f"exit_mask: has shape {tuple(exit_mask.shape)}; expected {tuple(inputs.shape[:2])}")
        exit_mask = None if exit_mask is None else exit_mask.bool()
        if exit_rule is None and self.halting == "act":
            exit_rule = learned_rule(self)
        at_least(1, num_loops=loops, last_logits=last_logits, num_grad_loops=num_grad_loops)
        every = range(1, loops + 1)
        chosen = loop_numbers(loop_logits, every)
        recomputes = recompute != "none" or num_grad_loops not in (None, loops)
        check_call(self, inputs, attention_mask, loops, exit_rule, chosen, cache, recomputes)
        if cache is not None and torch.is_grad_enabled():
            differentiable = (*self.parameters(), inputs, *([] if initial_state is None else [initial_state]))
            if any(x.requires_grad for x in differentiable):
                raise ValueError("cache: carries no gradient; expected a call under torch.no_grad()")
        if cache is not None and cache.every_loop_logits and self.coda:
            chosen = every  # the keys of the coda after every loop belong into the cache
        wanted = sorted(set(chosen))
        if self.layer_order == "sequence" and (wanted != [loops] or loop_states):
            raise ValueError(f"layer_order='sequence': expected loop_logits='last' without loop_states; got {wanted}")
        matrices = checked_graphs(self, inputs, graphs, cached=cache is not None)
        prefix = checked_prefix(self, inputs, prefix, cache)
        run = Pass(
            self, inputs, attention_mask, positions, loops, cache, exit_rule, matrices, embedded=embedded, prefix=prefix
        )  # fmt: skip
        state = run.initial if initial_state is None else checked_state(initial_state, run.initial)
        keep = every if loop_states else wanted
        window = min(loops, num_grad_loops or loops)
        states = len(keep) + (window if torch.is_grad_enabled() and recompute != "nested" else 0)
        size = (states * state.shape[-1] + len(wanted) * (self.output_size or 0)) * state[..., 0].numel()
        check_memory(
            f"num_loops={loops}: {states} states and logits of {len(wanted)}", size * state.itemsize, state.device
        )
        if gradient is not None:
            check_fixed_point(self, exit_rule, recomputes, cache, keep)
            found = run.loop_to_fixed_point(state, gradient)
        elif exit_rule is None:
            found = run.loop(state, keep, num_grad_loops=num_grad_loops, recompute=recompute)
        else:
            found = run.loop_with_exits(state, keep, exit_rule, exit_mask, attention_mask)
        last = slice(-last_logits if last_logits else None, None)
        logits = {n: known[:, last] for n, known in found.logits.items()}
        for n in wanted if found.num_loops in wanted else [*wanted, found.num_loops]:
            if n <= found.num_loops and n not in logits:
                logits[n] = run.decode(found.states.get(n, found.state), n - 1, last)
        read = [logits[n] for n in wanted if n in logits] or [logits[found.num_loops]]
        if isinstance(run.store, CachedPass):
            run.store.close(found.loops_taken)
        return LoopedOutput(
            logits=logits[found.num_loops],
            loop_logits=read[0][None] if len(read) == 1 else torch.stack(read),
            state=found.state,
            num_loops=found.num_loops,
            loop_states=torch.stack(list(found.states.values())) if loop_states else None,
            loops_taken=found.loops_taken,
            ponder_cost=found.ponder_cost,
            fixed_point=found.fixed_point,
        )

    def loop(
        self, inputs: Inputs, *, attention_mask: AttentionMask | None = None, num_loops: int,
        graphs: Mapping[str, Tensor] | None = None,
    ) -> Loop:  # fmt: skip
        """Take the model apart on these inputs; arguments as in `forward`.

        Raises:
            ValueError: for a sequence longer than max_seq_len, more loops than a learned table has, or a model with
                kv_loops, whose loops pass on more than the state.
        """
        if self.kv_loops is not None:
            raise ValueError(f"kv_loops={self.kv_loops}: expected None; loops here pass on keys and values too")
        if self.layer_order == "sequence":
            raise ValueError(f"layer_order={self.layer_order!r}: expected 'cycle' or 'reverse' to take loops apart")
        check_inputs(self.embed, inputs)
        at_least(1, num_loops=num_loops)
        attention_mask = checked_mask(inputs, attention_mask)
        check_call(self, inputs, attention_mask, num_loops, None, [num_loops], None)
        run = Pass(self, inputs, attention_mask, None, num_loops, None, None, checked_graphs(self, inputs, graphs))
        return Loop(run.initial, run.step, lambda state: run.decode(state, num_loops - 1))

    def halting_probability(
        self, state: Float[Tensor, "*loops batch seq d_model"], real: Bool[Tensor, "batch seq"] | None = None
    ) -> Float[Tensor, "*loops batch seq"]:
        """The learned probability of halting with this state.

        A causal model has one for each token. Other models have one for each example, the mean over its `real`
        positions (None is all).
        """
        normed = state if self.loop_norm else self.norm(state)
        chance = self.halt(normed)[..., 0].to(state.dtype).sigmoid()
        if self.causal:
            return chance
        weight = torch.ones_like(chance) if real is None else real.to(chance.dtype).expand_as(chance)
        mean = (chance * weight).sum(-1, keepdim=True) / weight.sum(-1, keepdim=True).clamp(min=1)
        return mean.expand_as(chance)

    def run_core(self, state: Tensor, contexts: list[Context], layers: Sequence[int]) -> Any:
        """One application of the core, compiled if `compile_core` was called. Stored keys and values stay eager."""
        compiled = self.compiled and contexts[0].kv is None
        compiled = compiled and not all(map(runs_native, self.core, [state] * len(contexts), contexts))
        return _compiled_core()(self, state, contexts, layers) if compiled else self._core(state, contexts, layers)

    def _core(self, state: Tensor, contexts: list[Context], layers: Sequence[int]) -> Any:
        """One application of the core: these layers, with a context for each."""
        state = self.injection(state, contexts[0])
        for layer, context in zip(layers, contexts, strict=True):
            state = self.core[layer](state, context)
        return self.norm(state) if self.loop_norm else state


@functools.cache
def _compiled_core() -> Callable[..., Any]:
    # One function for all models. A compiled method on a model would follow a copy of it, with the original's weights.
    return torch.compile(LoopedModel._core)
