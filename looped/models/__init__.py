"""The looped transformer and the recurrence that it stands on."""

from looped.models.exit_rules import (
    Act,
    Entropy,
    ExitRule,
    Fixed,
    Gate,
    KLDivergence,
    StateChange,
    Unchanged,
    parse_rule,
)
from looped.models.kv_cache import Cache
from looped.models.parts import LoopedOutput
from looped.models.transformer import LoopedTransformer

__all__ = [
    "Act",
    "Cache",
    "Entropy",
    "ExitRule",
    "Fixed",
    "Gate",
    "KLDivergence",
    "LoopedOutput",
    "LoopedTransformer",
    "StateChange",
    "Unchanged",
    "parse_rule",
]
