"""The looped transformer and the recurrence that it stands on."""

from looped.models.cache import Cache
from looped.models.exits import Divergence, Entropy, ExitRule, Fixed, StateChange, Unchanged
from looped.models.transformer import LoopedOutput, LoopedTransformer

__all__ = [
    "Cache",
    "Divergence",
    "Entropy",
    "ExitRule",
    "Fixed",
    "LoopedOutput",
    "LoopedTransformer",
    "StateChange",
    "Unchanged",
]
