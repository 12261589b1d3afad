"""Looped models, the loop that they stand on, exit rules, caches and generation."""

from looped.models.exit_rules import (
    Act,
    Entropy,
    ExitRule,
    Fixed,
    Gate,
    KLDivergence,
    Observation,
    StateChange,
    Unchanged,
    parse_rule,
)
from looped.models.iterate import Iterated, iterate
from looped.models.kv_cache import Cache
from looped.models.looped_model import Loop, LoopedModel, LoopedOutput
from looped.models.transformer import LoopedTransformer

__all__ = [
    "Act",
    "Cache",
    "Entropy",
    "ExitRule",
    "Fixed",
    "Gate",
    "Iterated",
    "KLDivergence",
    "Loop",
    "LoopedModel",
    "LoopedOutput",
    "LoopedTransformer",
    "Observation",
    "StateChange",
    "Unchanged",
    "iterate",
    "parse_rule",
]
