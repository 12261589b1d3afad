"""Keys and values across tokens and loops.

A slot holds the keys and values of one layer in one loop. `SlotPolicy` says which slot a loop writes and reads.
`Cache` keeps slots between forward passes; `PassKV` keeps them within one pass, with gradient.
"""

from dataclasses import dataclass
from typing import Any, get_args

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from looped.config import CachePolicy
from looped.models.early_exit import Active
from looped.models.memory import check_memory
from looped.nn.attention import causal_mask, combined_mask
from looped.nn.protocols import KVSlot, Section, kv_shape
from looped.strict import at_least, check

NOT_COMPUTED = "context.kv.write: this loop has no keys and values of its own; call read() if not kv.computes"


@dataclass(frozen=True, slots=True)
class SlotPolicy:
    """The slots of a layer that the loops write and read.

    all: one slot for each loop. first: the first `slots` loops have slots, and later loops read the last of these.
    last: the last `slots` loops have slots, and earlier loops use the first of these. ring: `slots` slots in turn.
    """

    policy: CachePolicy
    slots: int

    @classmethod
    def of(cls, policy: CachePolicy, cache_loops: int | None, num_loops: int) -> "SlotPolicy":
        """The policy for up to `num_loops` loops; it never needs more slots than loops.

        Raises:
            ValueError: for an unknown policy, and for cache_loops below 1, or beside policy=all.
        """
        check(policy in get_args(CachePolicy), "cache policy", policy, f"one of {', '.join(get_args(CachePolicy))}")
        if policy == "all" and cache_loops is not None:
            raise ValueError(f"cache_loops={cache_loops}: expected none with cache='all', which keeps every loop")
        at_least(1, cache_loops=cache_loops)
        return cls(policy, num_loops if policy == "all" else min(cache_loops or 1, num_loops))

    def slot(self, t: int, num_loops: int) -> int:
        """The slot of loop t = 0 .. num_loops-1."""
        if self.policy == "last":
            return max(t - max(num_loops - self.slots, 0), 0)
        return t % self.slots if self.policy == "ring" else min(t, self.slots - 1)

    def computes(self, t: int) -> bool:
        """Whether loop t has keys and values of its own."""
        return self.policy != "first" or t < self.slots


class Cache:
    """Keys and values of the tokens so far. The tensors are allocated once; each call writes its own tokens' part.

    Pass the same cache to a causal model again and again: each token is then read once, and the next call's inputs
    follow those of earlier calls. A token that ran fewer loops than others shows its last keys in the later loops. A
    cache is written in place, carries no gradient, and serves one model at a time.
    """

    def __init__(
        self,
        model: Any,
        batch: int,
        length: int,
        *,
        num_loops: int | None = None,
        policy: CachePolicy | None = None,
        cache_loops: int | None = None,
        every_loop_logits: bool = False,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        """An empty cache; `model.new_cache(batch, length)` also chooses dtype and device.

        Args:
            model: a `LoopedModel`.
            batch: sequences.
            length: tokens of each, padding included.
            num_loops: the most that a call will run; None is the model's.
            policy: which loops keep keys and values; None is what the model was trained with. Another policy saves
                memory and gives another answer. With last and ring, a call takes one token at a time, because a
                token attends to what earlier tokens stored in their last loops.
            cache_loops: how many loops first, last or ring keep; None is the model's, or else 1.
            every_loop_logits: whether coda layers will decode every loop, as exit rules that need logits do.
            dtype: of keys and values; under autocast, its type.

        Raises:
            ValueError: for a model that is not causal or has a block that cannot be cached, sizes out of range or
                larger than the memory, or a policy that contradicts itself.
        """
        if not model.causal:
            raise ValueError("model.causal=False: expected a causal model; in others every token changes all keys")
        model.check_kv("a cache")
        limit = model.max_seq_len
        at_least(1, batch=batch, length=length, num_loops=num_loops)
        if limit is not None and length > limit:
            raise ValueError(f"length={length}: expected 1 to max_seq_len={limit}")
        self.model, self.batch, self.length = model, batch, length
        self.num_loops = num_loops or model.num_loops
        if policy is None and model.kv_loops is not None:
            policy, cache_loops = "first", cache_loops or model.kv_loops
        self.every_loop_logits = every_loop_logits
        self.policies: dict[Section, SlotPolicy] = {
            "prelude": SlotPolicy("all", 1),
            "core": SlotPolicy.of(policy or "all", cache_loops, self.num_loops),
            "coda": SlotPolicy("all", self.num_loops if every_loop_logits else 1),
        }
        size = sum(
            self.policies[section].slots * heads * head_dim
            for section, blocks in model.sections.items()
            for heads, head_dim in filter(None, map(kv_shape, blocks))
        )
        kind = f"a cache of {self.num_loops} loops for {batch} x {length} tokens"
        check_memory(kind, size * 2 * batch * length * dtype.itemsize, torch.device(device))
        self.slots: dict[Section, list[Float[Tensor, "slots two batch heads length head_dim"]]] = {}
        for section, blocks in model.sections.items():
            self.slots[section] = []
            for heads, head_dim in filter(None, map(kv_shape, blocks)):
                shape = (self.policies[section].slots, 2, batch, heads, length, head_dim)
                self.slots[section].append(torch.zeros(shape, dtype=dtype, device=device))
        self.attention_mask = torch.zeros(batch, length, dtype=torch.bool, device=device)
        self.positions = torch.arange(length, device=device)
        self.clear()

    def clear(self) -> None:
        """Forget all tokens, and what was computed from the weights; the memory stays."""
        self._modulation: dict[int, Tensor] = {}
        self.used = 0
        """Tokens in the cache, padding included."""
        self.padded = False

    @property
    def one_by_one(self) -> bool:
        """Whether a call takes one token at a time."""
        return self.policies["core"].policy in ("last", "ring")

    @property
    def bytes(self) -> int:
        """Memory of the keys and values."""
        return sum(tensor.nbytes for tensors in self.slots.values() for tensor in tensors)

    def keep(self, rows: Int[Tensor, " rows"]) -> None:
        """Keep only these sequences, as when others have ended."""
        self.slots = {name: [t.index_select(2, rows) for t in tensors] for name, tensors in self.slots.items()}
        self.attention_mask = self.attention_mask[rows]
        self.batch = len(rows)

    def extend(self, length: int) -> None:
        """Make room for `length` tokens."""
        more = length - self.length
        self.slots = {name: [F.pad(t, (0, 0, 0, more)) for t in tensors] for name, tensors in self.slots.items()}
        self.attention_mask = F.pad(self.attention_mask, (0, more))
        self.positions, self.length = torch.arange(length, device=self.positions.device), length

    def mask(
        self,
        attention_mask: Bool[Tensor, "batch new"] | None,
        span: slice,
        prefix: Bool[Tensor, "batch new"] | None = None,
    ) -> Bool[Tensor, "#batch 1 #new keys"] | None:
        """Note the padding among new tokens; returns which keys each of them attends to, None for all."""
        self.attention_mask[:, span] = True if attention_mask is None else attention_mask
        self.padded = self.padded or (attention_mask is not None and not bool(attention_mask.all()))
        new = span.stop - span.start
        causal = None if new == 1 else causal_mask(new, span.start, self.attention_mask.device, prefix)
        return combined_mask(self.attention_mask[:, : span.stop] if self.padded else None, causal)

    def modulation(self, num_loops: int) -> Float[Tensor, "loops rows d_model"]:
        """The modulation of all loops, which depends on no token: computed once."""
        if num_loops not in self._modulation:
            assert self.model.modulation is not None
            self._modulation[num_loops] = self.model.modulation(num_loops, self.attention_mask.device)
        return self._modulation[num_loops]


class CachedPass:
    """A cache as one forward pass uses it."""

    def __init__(self, cache: Cache, span: slice, num_loops: int, active: Active) -> None:
        self.cache, self.span, self.num_loops, self.active = cache, span, num_loops, active
        self.used: set[tuple[Section, int]] = set()
        """The layers that wrote keys and values."""

    def slot(self, section: Section, layer: int, t: int) -> KVSlot:
        return CacheSlot(self, (section, layer), self.cache.slots[section][layer], t)

    def close(self, loops_taken: Int[Tensor, "batch seq"] | None) -> None:
        """The pass is over: tokens show their last keys in the slots of the loops that their example did not run."""
        self.cache.used = self.span.stop
        for i, slots in enumerate(self.cache.slots["core"]):
            if slots.numel() and ("core", i) not in self.used:
                name = f"core[{i}] ({type(self.cache.model.core[i]).__name__})"
                raise ValueError(f"cache: {name} has a kv_shape but never called context.kv.write; its answer is wrong")
        ran = None if loops_taken is None else loops_taken.amax(1)
        for n in [self.num_loops] if ran is None else ran.unique().tolist():
            rows = slice(None) if ran is None else (ran == n).nonzero()[:, 0]
            for section in ("core", "coda"):
                policy = self.cache.policies[section]
                unwritten = set(range(policy.slots)) - {policy.slot(t, self.num_loops) for t in range(n)}
                for slots in self.cache.slots[section] if unwritten else ():
                    last = slots[policy.slot(n - 1, self.num_loops)][:, rows, :, self.span]
                    for empty in unwritten:
                        slots[empty][:, rows, :, self.span] = last


class CacheSlot:
    """The slot of one loop of a layer, in one pass."""

    def __init__(
        self,
        run: CachedPass,
        layer: tuple[Section, int],
        slots: Float[Tensor, "slots two batch heads length head_dim"],
        t: int,
    ) -> None:
        self.run, self.layer, self.slots, self.t = run, layer, slots, t
        self.policy = run.cache.policies[layer[0]]
        self.computes = self.policy.computes(t)

    def part(self, i: int, parts: int) -> "CacheSlot":
        return CacheSlot(self.run, self.layer, self.slots.unflatten(3, (parts, -1))[:, :, :, i], self.t)

    def _held(self, t: int) -> Float[Tensor, "two batch heads length head_dim"]:
        return self.slots[self.policy.slot(t, self.run.num_loops)]

    def write(self, new: Float[Tensor, "two active heads new d"]) -> Float[Tensor, "two active heads keys d"]:
        if not self.computes:
            raise ValueError(NOT_COMPUTED)
        if self.t == 0:
            self.run.used.add(self.layer)
        active, span, held = self.run.active, self.run.span, self._held(self.t)
        if active.halted is not None:  # the slot of the previous loop has the last keys of halted tokens
            last = active.take(self._held(self.t - 1)[:, :, :, span], dim=1)
            new = torch.where(active.halted[:, None, :, None], last, new)
        if active.rows is None:
            held[:, :, :, span] = new
        else:
            held[:, active.rows, :, span] = new
        return active.take(held[:, :, :, : span.stop], dim=1)

    def read(self) -> Float[Tensor, "two active heads keys d"]:
        return self.run.active.take(self._held(self.t)[:, :, :, : self.run.span.stop], dim=1)


class PassKV:
    """Keys and values within one forward pass, as tensors that carry gradient.

    For models whose later loops reuse the keys of the first `kv_loops` loops, and for tokens that exit before other
    tokens of their example: each layer keeps the latest keys of every token.
    """

    def __init__(self, active: Active, kv_loops: int | None) -> None:
        self.active, self.kv_loops = active, kv_loops
        self.latest: dict[tuple[Any, ...], Float[Tensor, "two batch heads seq d"]] = {}

    def slot(self, section: Section, layer: int, t: int) -> KVSlot:
        computes = section != "core" or self.kv_loops is None or t < self.kv_loops
        return PassSlot(self, (section, layer), computes)


@dataclass(slots=True)
class PassSlot:
    """One layer of a `PassKV`, or one part of its heads."""

    store: PassKV
    key: tuple[Any, ...]
    computes: bool

    def part(self, i: int, parts: int) -> "PassSlot":
        return PassSlot(self.store, (*self.key, i), self.computes)

    def write(self, new: Float[Tensor, "two active heads seq d"]) -> Float[Tensor, "two active heads seq d"]:
        if not self.computes:
            raise ValueError(NOT_COMPUTED)
        active, latest = self.store.active, self.store.latest.get(self.key)
        if active.halted is not None:
            new = torch.where(active.halted[:, None, :, None], active.take(latest, dim=1), new)
        self.store.latest[self.key] = active.put(latest, new, dim=1)
        return new

    def read(self) -> Float[Tensor, "two active heads seq d"]:
        return self.store.active.take(self.store.latest[self.key], dim=1)
