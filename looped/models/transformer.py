"""The looped transformer: embed, prelude, core applied num_loops times, coda, read out."""

from collections.abc import Collection
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from looped.config import ModelConfig
from looped.models.early_exit import Exits
from looped.models.exit_rules import ExitRule, learned_rule
from looped.models.initialise import initialise
from looped.models.iterate import Iterated, Recompute, iterate
from looped.models.kv_cache import Cache, Carried, Sharing, Store
from looped.models.parts import Loop, LoopedOutput, Part, joined
from looped.nn.attention import KeyValueSlot, causal, visible
from looped.nn.block import TransformerBlock
from looped.nn.modulation import TimestepModulation
from looped.nn.norms import make_norm
from looped.nn.positions import Rotation, rotation, sinusoid


class LoopedTransformer(nn.Module):
    """Standard, looped and timestep-modulated transformers: one class, all of them `ModelConfig` values.

    The weights are a pure function of (config, seed); the global random state is left as it was.

    Raises:
        ValueError: when the sizes that a task usually decides are still None.
    """

    def __init__(self, config: ModelConfig, *, seed: int = 0) -> None:
        super().__init__()
        size = "vocab_size" if config.inputs == "tokens" else "input_dim"
        for name in (size, "output_size", "max_seq_len"):
            if getattr(config, name) is None:
                raise ValueError(f"{name}=None: expected a size; a model needs it before it can be built")
        assert config.output_size is not None
        assert config.max_seq_len is not None
        self.config = config
        d = config.d_model
        with torch.random.fork_rng(devices=[]):  # the layers' own initialisation is overwritten below
            if config.inputs == "tokens":
                assert config.vocab_size is not None
                self.embedding: nn.Module = nn.Embedding(config.vocab_size, d)
            else:
                assert config.input_dim is not None
                self.embedding = nn.Linear(config.input_dim, d, bias=config.bias)
            if config.positions == "learned":
                self.positions = nn.Parameter(torch.empty(config.max_seq_len, d))
            elif config.positions == "sinusoidal":
                table = sinusoid(torch.arange(config.max_seq_len, dtype=torch.float32), d)
                self.register_buffer("positions", table, persistent=False)
            self.embedding_norm = make_norm("layer" if config.embedding_norm else "none", d, gain=True, bias=True)
            self.prelude = nn.ModuleList(TransformerBlock(config) for _ in range(config.prelude_layers))
            self.core = nn.ModuleList(TransformerBlock(config) for _ in range(config.core_layers))
            self.coda = nn.ModuleList(TransformerBlock(config) for _ in range(config.coda_layers))
            if config.input_injection == "concat":
                self.inject = nn.Linear(2 * d, d, bias=config.bias)
            self.modulation = TimestepModulation(config)
            self.final_norm = make_norm(config.final_norm or config.norm, d, gain=True, bias=config.bias)
            self.head = nn.Linear(d, config.output_size, bias=config.bias and not config.tie_embeddings)
            if config.halting != "none":
                self.halt = nn.Linear(d, 1)
        if config.tie_embeddings:
            assert isinstance(self.embedding, nn.Embedding)
            self.head.weight = self.embedding.weight
        initialise(self, config, self.modulation, torch.Generator().manual_seed(seed))
        self._apply_core = self._core_step

    def new_cache(self, batch: int, length: int, **options: Any) -> Cache:
        """An empty `Cache` for this model, on its device and in the type that it computes in."""
        weight = self.head.weight
        kind = weight.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else weight.dtype
        return Cache(self.config, batch, length, dtype=dtype, device=weight.device, **options)

    def compile_core(self) -> None:
        """Compile one application of the core, so that the cost of compiling does not depend on num_loops."""
        self._apply_core = torch.compile(self._core_step)

    def forward(
        self,
        inputs: Int[Tensor, "batch seq"] | Float[Tensor, "batch seq input"],
        *,
        attention_mask: Bool[Tensor, "batch seq"] | Bool[Tensor, "batch seq seq"] | None = None,
        positions: Int[Tensor, "batch seq"] | None = None,
        num_loops: int | None = None,
        num_grad_loops: int | None = None,
        exit_rule: ExitRule | None = None,
        exit_mask: Bool[Tensor, "batch seq"] | None = None,
        cache: Cache | None = None,
        loop_logits: Literal["last", "all"] | Collection[int] = "last",
        last_logits: int | None = None,
        loop_states: bool = False,
        recompute: Recompute = "none",
    ) -> LoopedOutput:
        """Apply the model.

        Args:
            inputs: tokens, or vectors of width input_dim; with a cache those that follow what it holds.
            attention_mask: True at real positions, False at padding; or for each query (second axis) the keys (third)
                that it sees, such as a graph's edges; None when all see all.
            positions: which position each input has, where padding on the left shifts them; None counts from 0, with
                a cache from its number of tokens.
            num_loops: None is the configuration's.
            num_grad_loops: trailing loops that carry gradient; None is all.
            exit_rule: lets examples or tokens stop early; a model with halting="act" always does, and reads out the
                mean of its states.
            exit_mask: the positions that the exit rule looks at, such as those of the answer; None is all real ones, at
                which learned halting always looks.
            cache: keys and values of the tokens before; those of `inputs` are added.
            loop_logits: loop numbers, from 1, whose logits are returned; loops after an early exit are left out.
            last_logits: read out only so many positions at the end; None is all.
            loop_states: also return the state after each loop.
            recompute: see `iterate`.

        Raises:
            ValueError: for a sequence longer than max_seq_len or than the cache, loop numbers out of range, a cache
                of another model, batch or number of loops, and what cannot be combined.
        """
        loops = self.config.num_loops if num_loops is None else num_loops
        if exit_rule is None and self.config.halting == "act":
            exit_rule = learned_rule(self.config)
        every = range(1, loops + 1)
        named = {"last": {loops}, "all": set(every)}
        wanted = sorted(named[loop_logits] if isinstance(loop_logits, str) else set(loop_logits))
        if loops >= 1 and (not wanted or wanted[0] < 1 or wanted[-1] > loops):
            raise ValueError(f"loop_logits={loop_logits!r}: expected loop numbers from 1 to num_loops={loops}")
        self._check(inputs, attention_mask, loops, exit_rule, wanted, cache)
        if cache is not None and cache.every_readout and self.coda:
            wanted = list(every)  # the keys of the coda after every loop belong into the cache
        run = Pass(self, inputs, attention_mask, positions, loops, cache)
        if exit_rule is not None and exit_rule.sees == "halting":
            exit_mask = None
        if exit_rule is not None and attention_mask is not None and attention_mask.ndim == 2:
            exit_mask = attention_mask if exit_mask is None else exit_mask & attention_mask
        result = run.loop(
            exit_rule,
            exit_mask,
            keep=every if loop_states else wanted,
            num_grad_loops=num_grad_loops,
            recompute=recompute,
        )
        reads = {n: run.read(result.kept[n], n, last=last_logits) for n in wanted if n in result.kept}
        last = reads.get(result.num_loops) if result.logits is None else result.logits[:, -(last_logits or 0) :]
        if last is None:
            last = run.read(result.state, result.num_loops, last=last_logits)
        if cache is not None:
            cache.used += inputs.shape[1]
        return LoopedOutput(
            logits=last,
            loop_logits=torch.stack(list(reads.values()) or [last]),
            state=result.state,
            num_loops=result.num_loops,
            loop_states=torch.stack(list(result.kept.values())) if loop_states else None,
            loops_taken=result.exits,
            ponder_cost=result.ponder,
        )

    def loop(
        self,
        inputs: Int[Tensor, "batch seq"] | Float[Tensor, "batch seq input"],
        *,
        attention_mask: Bool[Tensor, "batch seq"] | Bool[Tensor, "batch seq seq"] | None = None,
        num_loops: int,
    ) -> Loop:
        """What `num_loops` loops on these inputs start from, do and are read by; arguments as in `forward`.

        Raises:
            ValueError: for a sequence longer than max_seq_len, more loops than a learned table has, or a model whose
                loops share keys and values, so that the state is not all that a loop hands on.
        """
        if self.config.cache != "all":
            raise ValueError(f"cache={self.config.cache!r}: expected 'all', where a loop sees nothing but the state")
        self._check(inputs, attention_mask, num_loops, None, [num_loops], None)
        run = Pass(self, inputs, attention_mask, None, num_loops, None)
        return Loop(
            run.start(run.whole),
            lambda state, t: run.step(state, t, run.whole),
            lambda state: run.read(state, num_loops),
        )

    def _check(
        self,
        inputs: Tensor,
        attention_mask: Tensor | None,
        loops: int,
        rule: ExitRule | None,
        wanted: list[int],
        cache: Cache | None,
    ) -> None:
        config, seq = self.config, inputs.shape[1]
        if rule is not None:
            rule.check(config)
        if cache is None:
            if seq > (config.max_seq_len or 0):
                raise ValueError(f"sequence length {seq}: expected at most max_seq_len={config.max_seq_len}")
            return
        if cache.config != config:
            raise ValueError("cache: expected one of this model; this was made for another configuration")
        if cache.batch != len(inputs):
            raise ValueError(f"cache: expected one for a batch of {len(inputs)}; this holds {cache.batch} sequences")
        if cache.used + seq > cache.length:
            raise ValueError(f"cache: {cache.used} + {seq} tokens: expected at most its length={cache.length}")
        if loops > cache.num_loops:
            raise ValueError(f"num_loops={loops}: expected at most the cache's num_loops={cache.num_loops}")
        if attention_mask is not None and attention_mask.ndim == 3:
            raise ValueError("attention_mask: expected (batch, seq) beside a cache")
        reads = wanted != [loops] or (rule is not None and rule.sees == "logits")
        if reads and self.coda and not cache.every_readout:
            raise ValueError("cache: expected one with every_readout=True, since coda layers read out every loop here")

    def halting(
        self, state: Float[Tensor, "*loops batch seq d_model"], real: Bool[Tensor, "batch seq"] | None = None
    ) -> Float[Tensor, "*loops batch seq"]:
        """The learned probability of leaving the loop with this state: of each token in a causal model, else of a
        sequence as a whole, the mean over its `real` positions (None is all)."""
        normed = state if self.config.loop_norm else self.final_norm(state)
        chance = self.halt(normed)[..., 0].to(state.dtype).sigmoid()
        if self.config.causal:
            return chance
        weight = torch.ones_like(chance) if real is None else real.to(chance.dtype).expand_as(chance)
        mean = (chance * weight).sum(-1, keepdim=True) / weight.sum(-1, keepdim=True).clamp(min=1)
        return mean.expand_as(chance)

    def _core_step(
        self,
        state: Tensor,
        injected: Tensor | None,
        where: Tensor | None,
        mask: Tensor | None,
        by: Rotation | None,
        signals: Tensor | None,
        slots: list[KeyValueSlot] | None = None,
    ) -> Tensor:
        """One application of the core."""
        config = self.config
        if config.input_injection == "concat":
            state = self.inject(torch.cat([state, injected], dim=-1))  # type: ignore[list-item]
        elif injected is not None:
            state = state + injected
        if config.positions_every_loop:
            assert where is not None
            state = state + where
        if config.modulation == "additive":
            assert signals is not None
            state = state + signals[0]
        told = self.modulation.for_layers(signals)
        for block, signal, slot in zip(self.core, told, slots or [None] * len(told), strict=True):
            state = block(state, mask, signal, by, slot)
        return self.final_norm(state) if config.loop_norm else state


class Pass:
    """One forward pass."""

    def __init__(
        self,
        model: LoopedTransformer,
        inputs: Tensor,
        attention_mask: Tensor | None,
        positions: Tensor | None,
        num_loops: int,
        cache: Cache | None,
    ) -> None:
        config, seq, device = model.config, inputs.shape[1], inputs.device
        start = 0 if cache is None else cache.used
        span = slice(start, start + seq)
        if cache is None:
            mask = visible(attention_mask, causal(seq, 0, device) if config.causal else None)
        else:
            mask = cache.mask(attention_mask, span)
        by, where = None, None
        if config.positions == "rotary":
            by = rotation(
                torch.arange(start, span.stop, device=device) if positions is None else positions, config.head_dim
            )
        elif config.positions != "none":
            where = model.positions[span] if positions is None else model.positions[positions]
        embedded = model.embedding(inputs)
        if where is not None and not config.positions_every_loop:
            embedded = embedded + where
        embedded = model.embedding_norm(embedded)
        for layer, block in enumerate(model.prelude):
            embedded = block(embedded, mask, by=by, slot=cache and cache.slot("prelude", layer, 0, 1, span))
        self.model, self.num_loops, self.cache = model, num_loops, cache
        self.injects = config.input_injection != "none"
        self.whole = Part(embedded, where, mask, by, span)
        signals = model.modulation(num_loops, device) if cache is None else cache.signals(model.modulation, num_loops)
        # Unbound once: indexing in every loop would allocate a full gradient for every loop.
        self.signals = [None] * num_loops if signals is None else signals.unbind(0)

    def loop(self, rule: ExitRule | None, exit_mask: Tensor | None, **how: Any) -> Iterated:
        """Apply the core, to all tokens at once or, where they see what others left behind, to one after another."""
        config, part, cache = self.model.config, self.whole, self.cache
        batch, seq = part.embedded.shape[:2]
        sharing = Sharing.of(config.cache, config.cache_loops, self.num_loops if cache is None else cache.num_loops)
        one_by_one = config.cache in ("last", "ring") and (cache is None or cache.sharing == sharing)
        store: Store | None = cache
        if cache is None and one_by_one and rule is not None:
            store = self.model.new_cache(batch, seq, num_loops=self.num_loops, every_readout=rule.sees == "logits")
        elif cache is None and config.cache != "all":
            store = Carried(sharing)
        elif cache is None and rule is not None and rule.per == "token":
            store = Carried(Sharing("ring", 1))  # those that left show their last loop: one slot is as good as all
        if not one_by_one or seq == 1:
            return self._loop(part, store, rule, exit_mask, **how)
        results = []
        for i in range(seq):
            seen = None if exit_mask is None else exit_mask[:, i : i + 1]
            results.append(self._loop(part.token(i), store, rule, seen, **how))
            if isinstance(store, Carried):
                store.advance()
        return joined(results)

    def _loop(
        self, part: Part, store: Store | None, rule: ExitRule | None, exit_mask: Tensor | None, **how: Any
    ) -> Iterated:
        model, loops = self.model, self.num_loops
        exits = None
        if rule is not None:
            exits = Exits(
                rule,
                part.embedded,
                exit_mask=exit_mask,
                read=lambda state, n: self.read(state, n, part.rows(exits.rows), store),  # type: ignore[union-attr]
                halting=model.halting,
                stop=lambda tokens, ran: None if store is None else store.stop(tokens, ran, loops, part.span),
                store=store,
            )

        def step(state: Tensor, t: int) -> Tensor:
            here = part if exits is None else part.rows(exits.rows)
            if store is None:
                return self.step(state, t, here)
            slots = [store.slot("core", layer, t, loops, part.span) for layer in range(len(model.core))]
            return self.step(state, t, here, slots)

        result = iterate(step, self.start(part), loops, exits=exits, **how)
        if isinstance(store, Cache):
            if exits is None or not exits.all_left:
                store.stop(None, loops, loops, part.span)
            store.begin()
        return result

    def start(self, part: Part) -> Tensor:
        """The state before the first loop."""
        return torch.zeros_like(part.embedded) if self.injects else part.embedded

    def step(self, state: Tensor, t: int, part: Part, slots: list[KeyValueSlot] | None = None) -> Tensor:
        """The state after loop t."""
        told = (part.embedded if self.injects else None, part.where, part.mask, part.by, self.signals[t])
        return self.model._apply_core(state, *told) if slots is None else self.model._core_step(state, *told, slots)

    def read(
        self,
        state: Tensor,
        n: int,
        part: Part | None = None,
        store: Store | None = None,
        last: int | None = None,
    ) -> Float[Tensor, "batch read output"]:
        """The readout of the state after loop number n: of all tokens, or within the loop of some (`part`).

        Args:
            last: only of so many positions at the end.
        """
        model, part, store = self.model, part or self.whole, store or self.cache
        for layer, block in enumerate(model.coda):
            slot = None if store is None else store.slot("coda", layer, n - 1, self.num_loops, part.span)
            state = block(state, part.mask, by=part.by, slot=slot)
        state = state[:, -(last or 0) :]
        return model.head(state if model.config.loop_norm else model.final_norm(state))
