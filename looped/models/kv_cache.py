"""Keys and values across loops: what attention in one loop sees of other loops and of earlier tokens.

A slot holds the keys and values of one layer in one loop. A `CachePolicy` says which slot each loop writes and reads;
`Cache` keeps slots between forward passes, `Carried` within one.
"""

from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from looped.config import CachePolicy, ModelConfig
from looped.nn.attention import KeyValueSlot, causal, visible
from looped.nn.modulation import TimestepModulation

Section = Literal["prelude", "core", "coda"]
SECTIONS: tuple[Section, ...] = ("prelude", "core", "coda")
Key = tuple[Section, int, int]
"""Section, layer and slot."""


@dataclass(frozen=True, slots=True)
class Sharing:
    """A cache policy as numbers: which slot of a core layer belongs to which loop.

    all: one slot for each loop. first: the first `kept` loops have slots, and later loops see the last of these.
    last: the last `kept` loops have slots, and earlier loops see the first of these. ring: `kept` slots in turn.
    """

    policy: CachePolicy
    kept: int

    @classmethod
    def of(cls, policy: CachePolicy, kept: int | None, num_loops: int) -> "Sharing":
        """The policy for a cache of up to `num_loops` loops; it never needs more slots than loops.

        Raises:
            ValueError: for loops to keep that are below 1, or beside policy=all.
        """
        if policy == "all" and kept is not None:
            raise ValueError(f"cache_loops={kept}: expected none with cache='all', which keeps every loop")
        if kept is not None and kept < 1:
            raise ValueError(f"cache_loops={kept}: expected at least 1")
        return cls(policy, num_loops if policy == "all" else min(kept or 1, num_loops))

    def slot(self, t: int, num_loops: int) -> int:
        """The slot of loop t = 0 .. num_loops-1."""
        if self.policy == "last":
            return max(t - max(num_loops - self.kept, 0), 0)
        return t % self.kept if self.policy == "ring" else min(t, self.kept - 1)

    def computes(self, t: int) -> bool:
        """Whether loop t has keys and values of its own."""
        return self.policy != "first" or t < self.kept


@runtime_checkable
class Store(Protocol):
    """Where the layers of a forward pass find the keys and values that they do not compute."""

    def slot(self, section: Section, layer: int, t: int, num_loops: int, span: slice) -> KeyValueSlot: ...

    def stop(self, tokens: Bool[Tensor, "active new"], ran: int, num_loops: int, span: slice) -> None:
        """These tokens leave the loop after `ran` of `num_loops`; in later loops the others see their last keys."""
        ...

    def narrow(self, rows: Int[Tensor, " staying"], stay: Bool[Tensor, " active"]) -> None:
        """Only these examples go on."""
        ...

    settled: Bool[Tensor, "active new"] | None
    """The tokens of this pass that have left the loop while their example goes on."""


class Cache:
    """Keys and values of the tokens so far, in static tensors that are allocated once.

    Passed to a model again and again, it makes a causal model read each token once: the next call's inputs follow
    those of the calls before. Tokens that ran fewer loops than others keep their last keys in the later loops.
    """

    def __init__(
        self,
        config: ModelConfig,
        batch: int,
        length: int,
        *,
        num_loops: int | None = None,
        policy: CachePolicy | None = None,
        cache_loops: int | None = None,
        every_readout: bool = False,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        """An empty cache.

        Args:
            batch: sequences.
            length: tokens of each, padding included.
            num_loops: the most that a call will run; None is the configuration's.
            policy: which loops are kept; None is what the model was trained with (`config.cache`). Another one saves
                memory at the price of another answer.
            cache_loops: how many loops first, last or ring keep; None is the configuration's, or else 1.
            every_readout: whether coda layers will read out every loop, as exit rules that look at logits want.
            dtype: of keys and values; under autocast, its type.

        Raises:
            ValueError: for a model that is not causal, sizes out of range, or a policy that contradicts itself.
        """
        if not config.causal:
            raise ValueError("model.causal=False: expected a causal model; in others every token changes all keys")
        limit = config.max_seq_len or 0
        if not 1 <= length <= limit:
            raise ValueError(f"length={length}: expected 1 to max_seq_len={limit}")
        for name, value in {"batch": batch, "num_loops": config.num_loops if num_loops is None else num_loops}.items():
            if value < 1:
                raise ValueError(f"{name}={value}: expected at least 1")
        self.config, self.length = config, length
        self.num_loops = num_loops or config.num_loops
        if policy is None:
            policy, cache_loops = config.cache, cache_loops or config.cache_loops
        self.sharing = Sharing.of(policy, cache_loops, self.num_loops)
        reads = self.num_loops if every_readout else 1
        sizes = {
            "prelude": (config.prelude_layers, 1),
            "core": (config.core_layers, self.sharing.kept),
            "coda": (config.coda_layers, reads),
        }
        shape = (2, batch, config.num_heads, length, config.head_dim)
        self.slots = {name: torch.zeros(*sizes[name], *shape, dtype=dtype, device=device) for name in SECTIONS}
        self.every_readout = every_readout
        self.attention_mask = torch.zeros(batch, length, dtype=torch.bool, device=device)
        self.clear()

    def clear(self) -> None:
        """Forget all tokens, and what was computed from the weights; the memory stays."""
        self._signals: dict[int, Tensor | None] = {}
        self.used = 0
        """Tokens in the cache, padding included."""
        self.padded = False
        self.begin()

    @property
    def batch(self) -> int:
        return len(self.attention_mask)

    @property
    def bytes(self) -> int:
        """Memory of the keys and values."""
        return sum(slots.nbytes for slots in self.slots.values())

    def keep(self, rows: Int[Tensor, " rows"]) -> None:
        """Keep only these sequences, as when others have ended."""
        self.slots = {name: self.slots[name].index_select(3, rows) for name in SECTIONS}
        self.attention_mask = self.attention_mask[rows]

    def begin(self) -> None:
        """A new forward pass: all sequences, nobody has left the loop."""
        self.rows: Tensor | None = None
        self.settled: Tensor | None = None

    def mask(
        self, attention_mask: Bool[Tensor, "batch new"] | None, span: slice
    ) -> Bool[Tensor, "#batch 1 #new keys"] | None:
        """Take note of the padding among new tokens; which keys each of them sees, None when all see all."""
        self.attention_mask[:, span] = True if attention_mask is None else attention_mask
        self.padded = self.padded or (attention_mask is not None and not bool(attention_mask.all()))
        new = span.stop - span.start
        below = None if new == 1 else causal(new, span.start, self.attention_mask.device)
        return visible(self.attention_mask[:, : span.stop] if self.padded else None, below)

    def signals(self, modulation: TimestepModulation, num_loops: int) -> Tensor | None:
        """The modulation of all loops, which depends on no token: computed once."""
        if num_loops not in self._signals:
            self._signals[num_loops] = modulation(num_loops, self.attention_mask.device)
        return self._signals[num_loops]

    def sharing_of(self, section: Section) -> Sharing:
        return self.sharing if section == "core" else Sharing("all", self.slots[section].shape[1])

    def slot(self, section: Section, layer: int, t: int, num_loops: int, span: slice) -> "StaticSlot":
        sharing = self.sharing_of(section)
        held = self.slots[section][layer, sharing.slot(t, num_loops)]
        return StaticSlot(held, span, self.rows, self.settled if section != "prelude" else None, sharing.computes(t))

    def stop(self, tokens: Bool[Tensor, "active new"] | None, ran: int, num_loops: int, span: slice) -> None:
        rows = slice(None) if self.rows is None else self.rows
        for section in SECTIONS:
            held, sharing = self.slots[section], self.sharing_of(section)
            filled = {sharing.slot(t, num_loops) for t in range(ran)}
            kept = held[:, sharing.slot(ran - 1, num_loops)][:, :, rows, :, span]
            for empty in set(range(sharing.kept)) - filled:
                target = held[:, empty]
                old = target[:, :, rows, :, span]
                target[:, :, rows, :, span] = (
                    kept if tokens is None else torch.where(tokens[:, None, :, None], kept, old)
                )

    def narrow(self, rows: Int[Tensor, " staying"], stay: Bool[Tensor, " active"]) -> None:
        self.rows = rows


@dataclass(slots=True)
class StaticSlot:
    """One slot of a `Cache`, seen from one pass."""

    held: Float[Tensor, "two batch heads length head_dim"]
    span: slice
    """Where this pass's tokens are."""
    rows: Int[Tensor, " active"] | None
    settled: Bool[Tensor, "active new"] | None
    computes: bool

    def extend(self, new: Float[Tensor, "two active heads new d"]) -> Float[Tensor, "two active heads keys d"]:
        rows, span = self.rows, self.span
        if rows is None and self.settled is None:
            self.held[:, :, :, span] = new
            return self.held[:, :, :, : span.stop]
        held = self.held if rows is None else self.held[:, rows]
        if self.settled is not None:
            new = torch.where(self.settled[:, None, :, None], held[:, :, :, span], new)
        held[:, :, :, span] = new
        if rows is not None:
            self.held[:, rows, :, span] = new
        return held[:, :, :, : span.stop]

    def read(self) -> Float[Tensor, "two active heads keys d"]:
        held = self.held if self.rows is None else self.held[:, self.rows]
        return held[:, :, :, : self.span.stop]


class Carried:
    """Keys and values of the core (and coda) within one forward pass, as tensors that carry gradient.

    For models that share keys across loops, and for tokens that leave the loop before the others of their example.
    """

    def __init__(self, sharing: Sharing) -> None:
        self.sharing = sharing
        self.settled: Tensor | None = None
        self.past: dict[Key, Tensor] = {}
        """Of earlier tokens, where a forward pass goes token by token."""
        self.now: dict[Key, Tensor] = {}
        """Of those and the tokens at hand."""
        self.latest: dict[Key, Tensor] = {}
        """Of the tokens at hand, from the last loop in which each of them took part; keys without their slot."""

    def slot(self, section: Section, layer: int, t: int, num_loops: int, span: slice) -> "CarriedSlot":
        core = section == "core"
        number = self.sharing.slot(t, num_loops) if core else 0
        return CarriedSlot(self, (section, layer, number), not core or self.sharing.computes(t))

    def stop(self, tokens: Bool[Tensor, "active new"], ran: int, num_loops: int, span: slice) -> None:
        pass  # `latest` has what the others will see

    def narrow(self, rows: Int[Tensor, " staying"], stay: Bool[Tensor, " active"]) -> None:
        for tensors in (self.now, self.latest):
            for key, tensor in tensors.items():
                tensors[key] = tensor[:, stay]

    def advance(self) -> None:
        """The tokens at hand become past."""
        self.past, self.now, self.latest = self.now, {}, {}


@dataclass(slots=True)
class CarriedSlot:
    """One slot of `Carried`."""

    store: Carried
    key: Key
    computes: bool

    def extend(self, new: Float[Tensor, "two active heads new d"]) -> Float[Tensor, "two active heads keys d"]:
        store, who = self.store, (*self.key[:2], 0)
        if store.settled is not None:
            new = torch.where(store.settled[:, None, :, None], store.latest[who], new)
        store.latest[who] = new
        past = store.past.get(self.key)
        store.now[self.key] = new if past is None else torch.cat([past, new], dim=3)
        return store.now[self.key]

    def read(self) -> Float[Tensor, "two active heads keys d"]:
        return self.store.now[self.key]
