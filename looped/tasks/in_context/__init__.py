from looped.tasks.in_context.config import InContextConfig
from looped.tasks.in_context.task import InContext

__all__ = ["InContext", "InContextConfig"]
