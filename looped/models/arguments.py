"""Checks of the arguments of a forward pass."""

from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor, nn

from looped.models.exit_rules import ExitRule
from looped.models.kv_cache import Cache
from looped.nn.injection import NoInjection, StartAnswer
from looped.nn.modulation import ReZero

MAX_LOOPS = 1_000_000
"""More loops are refused, because a call would never end."""


def check_inputs(embed: Any, inputs: Any, positions: Any = None) -> None:
    """Raises ValueError for inputs that an embedding of tokens or of vectors cannot read, and positions of others."""
    if not isinstance(inputs, Tensor):
        raise ValueError(f"inputs: expected a tensor, not {type(inputs).__name__}")
    found = f"inputs: have shape {tuple(inputs.shape)} and type {str(inputs.dtype).removeprefix('torch.')}"
    if inputs.ndim < 2 or not inputs.shape[1]:
        raise ValueError(f"{found}; expected (batch, seq, ...) with at least 1 position")
    if isinstance(embed, nn.Embedding) and (inputs.ndim > 2 or inputs.dtype not in (torch.int64, torch.int32)):
        raise ValueError(f"{found}; expected tokens (batch, seq) of type int64 or int32")
    if isinstance(embed, nn.Linear):
        same = inputs.dtype == embed.weight.dtype or torch.is_autocast_enabled(inputs.device.type)
        if inputs.ndim != 3 or inputs.shape[2] != embed.in_features or not (inputs.is_floating_point() and same):
            kind = str(embed.weight.dtype).removeprefix("torch.")
            raise ValueError(f"{found}; expected vectors (batch, seq, {embed.in_features}) of type {kind}")
    batch, seq = inputs.shape[:2]
    if positions is not None and not (
        isinstance(positions, Tensor)
        and positions.dtype in (torch.int64, torch.int32)
        and positions.shape in ((batch, seq), (1, seq), (seq,))
    ):
        raise ValueError(f"positions: expected whole numbers of shape ({batch}, {seq})")


def checked_state(state: Any, initial: Tensor) -> Tensor:
    """The state before the first loop; ValueError unless it is like the model's own."""
    if not isinstance(state, Tensor) or state.shape != initial.shape:
        found = f"has shape {tuple(state.shape)}" if isinstance(state, Tensor) else f"is {type(state).__name__}"
        raise ValueError(f"initial_state: {found}; expected {tuple(initial.shape)}")
    return state.to(initial.dtype)


def loop_numbers(given: Any, every: range) -> Collection[int]:
    """The loops whose logits are wanted, which are some of `every`; ValueError for others."""
    if isinstance(given, str):
        chosen: Any = {"last": every[-1:], "all": every}.get(given, ())
    else:
        chosen = given if isinstance(given, Collection) and all(type(n) is int and n in every for n in given) else ()
    if not len(chosen):
        raise ValueError(f"loop_logits={given!r}: expected last, all, or loop numbers from 1 to {len(every)}")
    return chosen


def checked_mask(inputs: Tensor, mask: Any) -> Tensor | None:
    """The attention mask as booleans; ValueError for another type or shape."""
    if mask is None:
        return None
    batch, seq = inputs.shape[:2]
    if not isinstance(mask, Tensor):
        raise ValueError(f"attention_mask: expected a tensor, not {type(mask).__name__}")
    if mask.shape not in ((batch, seq), (batch, seq, seq)):
        expected = f"({batch}, {seq}), or ({batch}, {seq}, {seq}) for each query and key"
        raise ValueError(f"attention_mask: has shape {tuple(mask.shape)}; expected {expected}")
    if mask.is_floating_point() and not bool(((mask == 0) | (mask == 1)).all()):
        raise ValueError("attention_mask: expected booleans, or 1 at real positions and 0 at padding")
    return mask.bool()


def checked_prefix(model: Any, inputs: Tensor, prefix: Any, cache: Cache | None) -> Tensor | None:
    """The prefix as booleans; ValueError if its tokens could not attend to each other."""
    if prefix is None:
        return None
    if not isinstance(prefix, Tensor) or prefix.shape != inputs.shape[:2]:
        found = f"has shape {tuple(prefix.shape)}" if isinstance(prefix, Tensor) else type(prefix).__name__
        raise ValueError(f"prefix: {found}; expected booleans of shape {tuple(inputs.shape[:2])}")
    if not model.causal:
        raise ValueError("prefix: expected a causal model; in others all tokens attend to each other")
    if cache is not None and cache.used:
        raise ValueError(f"prefix: the cache holds {cache.used} tokens; expected the whole prefix in its first call")
    return prefix.bool()


def check_call(
    model: Any,
    inputs: Tensor,
    attention_mask: Tensor | None,
    loops: int,
    rule: ExitRule | None,
    wanted: Collection[int],
    cache: Cache | None,
    recomputes: bool = False,
) -> None:
    """Raise ValueError if a call of a `LoopedModel` has arguments that it cannot run or combine."""
    seq = inputs.shape[1]
    if loops > MAX_LOOPS:
        raise ValueError(f"num_loops={loops}: expected at most {MAX_LOOPS:,}")
    if model.max_loops is not None and loops > model.max_loops:
        raise ValueError(
            f"num_loops={loops}: expected at most {model.max_loops}, the max_loops of the modulation or the core"
        )
    if rule is not None:
        if not isinstance(rule, ExitRule):
            raise ValueError(f"exit_rule={rule!r}: expected an ExitRule; parse_rule reads one from text")
        if recomputes:
            raise ValueError("exit_rule: expected neither num_grad_loops nor recompute beside it")
        rule.check(model)
        if rule.per == "token":
            model.check_kv(f"exit_rule={rule}")
    if cache is None:
        if model.max_seq_len is not None and seq > model.max_seq_len:
            raise ValueError(f"sequence length {seq}: expected at most max_seq_len={model.max_seq_len}")
        return
    if cache.model is not model:
        raise ValueError("cache: expected one from this model's new_cache; this was made for another model")
    if cache.batch != len(inputs):
        raise ValueError(f"cache: expected one for a batch of {len(inputs)}; this holds {cache.batch} sequences")
    if cache.used + seq > cache.length:
        raise ValueError(f"cache: {cache.used} + {seq} tokens: expected at most its length={cache.length}")
    if loops > cache.num_loops:
        raise ValueError(f"num_loops={loops}: expected at most the cache's num_loops={cache.num_loops}")
    if cache.one_by_one and seq > 1:
        policy = cache.policies["core"].policy
        raise ValueError(f"cache: {seq} tokens at once: expected one at a time with policy={policy!r}")
    if attention_mask is not None and attention_mask.ndim == 3:
        raise ValueError("attention_mask: expected (batch, seq) beside a cache")
    decodes = set(wanted) != {loops} or (rule is not None and rule.needs == "logits")
    if decodes and model.coda and not cache.every_loop_logits:
        raise ValueError("cache: expected every_loop_logits=True, because coda layers decode every loop here")


def check_fixed_point(
    model: Any, rule: ExitRule | None, recomputes: bool, cache: Cache | None, keep: Collection[int]
) -> None:
    """Raise ValueError if a model or a call has no fixed point to take a gradient at."""
    injection = getattr(model.injection, "injection", model.injection)
    if type(injection) in (NoInjection, StartAnswer):
        raise ValueError("gradient: expected an input injection; without one a fixed point forgets the input")
    if not (model.modulation is None or isinstance(model.modulation, ReZero)):
        raise ValueError("gradient: expected no modulation by the loop index; a fixed point needs equal loops")
    if rule is not None or recomputes or cache is not None or model.kv_loops is not None or len(keep) > 1:
        raise ValueError(
            "gradient: expected no exit rule, num_grad_loops, recompute, cache, kv_loops, loop_states, or logits of "
            "several loops beside it"
        )
