"""The looped transformer and the recurrence that it stands on."""

from looped.models.exits import ExitRule, StateChange
from looped.models.transformer import LoopedOutput, LoopedTransformer

__all__ = ["ExitRule", "LoopedOutput", "LoopedTransformer", "StateChange"]
