"""The looped transformer: embed, prelude, core applied num_loops times, coda, read out."""

import math
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from looped.config import ModelConfig
from looped.models.exits import ExitRule
from looped.models.recurrence import Recompute, recur
from looped.nn.attention import Attention
from looped.nn.block import TransformerBlock
from looped.nn.feedforward import FeedForward
from looped.nn.norms import make_norm
from looped.nn.positions import sinusoid
from looped.nn.timestep import TimestepModulation

INIT_STD = 0.02


@dataclass(frozen=True, slots=True)
class LoopedOutput:
    """What a forward pass returns."""

    logits: Float[Tensor, "batch seq output"]
    """Readout of the last loop."""
    readouts: Float[Tensor, "reads batch seq output"]
    """Readouts of the loops that were asked for, in ascending order."""
    state: Float[Tensor, "batch seq d_model"]
    """State after the last loop."""
    num_loops: int
    """Loops that were run."""
    trajectory: Float[Tensor, "loops batch seq d_model"] | None = None
    """State after each loop."""
    exits: Int[Tensor, " batch"] | None = None
    """Loops that each example took, with an exit rule."""


class Loop(NamedTuple):
    """A model on given inputs: its forward pass is `read` of what `recur` makes of `step` and `state`."""

    state: Float[Tensor, "batch seq d_model"]
    """The state before the first loop."""
    step: Callable[[Tensor, int], Tensor]
    """The state after loop t (from 0) from the one before it."""
    read: Callable[[Tensor], Tensor]
    """The logits (batch, seq, output) decoded from a state."""


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
        if config.tie_embeddings:
            assert isinstance(self.embedding, nn.Embedding)
            self.head.weight = self.embedding.weight
        initialise(self, torch.Generator().manual_seed(seed))
        self._apply_core = self._core_step

    def compile_core(self) -> None:
        """Compile one application of the core, so that the cost of compiling does not depend on num_loops."""
        self._apply_core = torch.compile(self._core_step)

    def forward(
        self,
        inputs: Int[Tensor, "batch seq"] | Float[Tensor, "batch seq input"],
        *,
        attend: Bool[Tensor, "batch seq"] | Bool[Tensor, "batch seq seq"] | None = None,
        num_loops: int | None = None,
        num_grad_loops: int | None = None,
        exit_rule: ExitRule | None = None,
        readouts: Literal["last", "all"] | Collection[int] = "last",
        trajectory: bool = False,
        recompute: Recompute = "none",
    ) -> LoopedOutput:
        """Apply the model.

        Args:
            inputs: tokens, or vectors of width input_dim.
            attend: True at real positions, False at padding; or for each query (second axis) the keys (third)
                that it sees, such as a graph's edges; None when all see all.
            num_loops: None is the configuration's.
            num_grad_loops: trailing loops that carry gradient; None is all.
            exit_rule: lets an example stop early (inference).
            readouts: loop numbers, from 1, whose logits are returned; loops after an early exit are left out.
            trajectory: also return the state after each loop.
            recompute: see `recur`.

        Raises:
            ValueError: for a sequence longer than max_seq_len or loop numbers out of range.
        """
        loops = self.config.num_loops if num_loops is None else num_loops
        every = range(1, loops + 1)
        named = {"last": {loops}, "all": set(every)}
        wanted = sorted(named[readouts] if isinstance(readouts, str) else set(readouts))
        if loops >= 1 and (not wanted or wanted[0] < 1 or wanted[-1] > loops):
            raise ValueError(f"readouts={readouts!r}: expected loop numbers from 1 to num_loops={loops}")
        loop = self.loop(inputs, attend=attend, num_loops=loops)
        result = recur(
            loop.step,
            loop.state,
            loops,
            num_grad_loops=num_grad_loops,
            recompute=recompute,
            keep=every if trajectory else wanted,
            exit_rule=exit_rule,
        )
        reads = [loop.read(result.kept[n]) for n in wanted if n in result.kept]
        last = reads[-1] if wanted[-1] == result.num_loops else loop.read(result.state)
        return LoopedOutput(
            logits=last,
            readouts=torch.stack(reads or [last]),
            state=result.state,
            num_loops=result.num_loops,
            trajectory=torch.stack(list(result.kept.values())) if trajectory else None,
            exits=result.exits,
        )

    def loop(
        self,
        inputs: Int[Tensor, "batch seq"] | Float[Tensor, "batch seq input"],
        *,
        attend: Bool[Tensor, "batch seq"] | Bool[Tensor, "batch seq seq"] | None = None,
        num_loops: int,
    ) -> Loop:
        """What `num_loops` loops on these inputs start from, do and are read by; arguments as in `forward`.

        Raises:
            ValueError: for a sequence longer than max_seq_len, or more loops than a learned table has.
        """
        embedded, mask = self._embed(inputs), self._mask(inputs, attend)
        for block in self.prelude:
            embedded = block(embedded, mask)
        signals = self.modulation(num_loops, embedded.device)
        # Unbound once: indexing in every loop would allocate a full gradient for every loop.
        each = [None] * num_loops if signals is None else signals.unbind(0)
        injected = None if self.config.input_injection == "none" else embedded
        return Loop(
            state=embedded if injected is None else torch.zeros_like(embedded),
            step=lambda state, t: self._apply_core(state, injected, mask, each[t]),
            read=lambda state: self._read(state, mask),
        )

    def _embed(self, inputs: Tensor) -> Float[Tensor, "batch seq d_model"]:
        seq = inputs.shape[1]
        if seq > (self.config.max_seq_len or 0):
            raise ValueError(f"sequence length {seq}: expected at most max_seq_len={self.config.max_seq_len}")
        embedded = self.embedding(inputs)
        if self.config.positions in ("learned", "sinusoidal") and not self.config.positions_every_loop:
            embedded = embedded + self.positions[:seq]
        return self.embedding_norm(embedded)

    def _mask(self, inputs: Tensor, attend: Tensor | None) -> Bool[Tensor, "#batch 1 #seq seq"] | None:
        """True where a query (third axis) may see a key (fourth); None when all see all."""
        mask = attend
        if attend is not None:
            mask = attend[:, None, None, :] if attend.ndim == 2 else attend[:, None]
        if self.config.causal:
            seq = inputs.shape[1]
            causal = torch.ones(1, 1, seq, seq, dtype=torch.bool, device=inputs.device).tril()
            mask = causal if mask is None else mask & causal
        return mask

    def _core_step(self, state: Tensor, injected: Tensor | None, mask: Tensor | None, signals: Tensor | None) -> Tensor:
        """One application of the core."""
        config = self.config
        if config.input_injection == "concat":
            state = self.inject(torch.cat([state, injected], dim=-1))  # type: ignore[list-item]
        elif injected is not None:
            state = state + injected
        if config.positions_every_loop:
            state = state + self.positions[: state.shape[1]]
        if config.modulation == "additive":
            assert signals is not None
            state = state + signals[0]
        for block, told in zip(self.core, self.modulation.for_layers(signals), strict=True):
            state = block(state, mask, told)
        return self.final_norm(state) if config.loop_norm else state

    def _read(self, state: Tensor, mask: Tensor | None) -> Float[Tensor, "batch seq output"]:
        for block in self.coda:
            state = block(state, mask)
        return self.head(state if self.config.loop_norm else self.final_norm(state))


@torch.no_grad()
def initialise(model: LoopedTransformer, generator: torch.Generator) -> None:
    """All initialisation, in one place and from one generator.

    gpt2: matrices N(0, 0.02), projections into the residual stream N(0, 0.02 / sqrt(2 * depth)), biases zero.
    pytorch: linear layers uniform in +-1/sqrt(fan_in), embeddings N(0, 1): the published reasoning code.
    In both, the timestep network W1, W2 keeps the framework's default and W, b, tables and scalars are zero.
    """
    config = model.config
    depth = config.initialisation_depth or (
        config.prelude_layers + config.core_layers * config.num_loops + config.coda_layers
    )
    into_residual = {m.project for m in model.modules() if isinstance(m, Attention)}
    into_residual |= {m.down for m in model.modules() if isinstance(m, FeedForward)}
    timestep = {m for m in model.modulation.modules() if isinstance(m, nn.Linear)}
    for module in model.modules():
        if isinstance(module, nn.Linear):
            if config.initialisation == "pytorch" or module in timestep:
                bound = module.in_features**-0.5
                module.weight.uniform_(-bound, bound, generator=generator)
                if module.bias is not None:
                    module.bias.uniform_(-bound, bound, generator=generator)
            else:
                std = INIT_STD / math.sqrt(2 * depth) if module in into_residual else INIT_STD
                module.weight.normal_(0, std, generator=generator)
                if module.bias is not None:
                    module.bias.zero_()
        elif isinstance(module, nn.Embedding) and not config.tie_embeddings:
            module.weight.normal_(0, 1 if config.initialisation == "pytorch" else INIT_STD, generator=generator)
    if config.positions == "learned":
        model.positions.normal_(0, 1 if config.initialisation == "pytorch" else INIT_STD, generator=generator)
    if config.modulation in ("gain_gate", "adaptive_norm"):
        nn.init.zeros_(model.modulation.signals.weight)
        nn.init.zeros_(model.modulation.signals.bias)
