"""The looped transformer and the recurrence that it stands on."""

from looped.models.cache import Cache
from looped.models.exits import Act, Divergence, Entropy, ExitRule, Fixed, Gate, StateChange, Unchanged, parse_rule
from looped.models.parts import LoopedOutput
from looped.models.transformer import LoopedTransformer

__all__ = [
    "Act",
    "Cache",
    "Divergence",
    "Entropy",
    "ExitRule",
    "Fixed",
    "Gate",
    "LoopedOutput",
    "LoopedTransformer",
    "StateChange",
    "Unchanged",
    "parse_rule",
]
