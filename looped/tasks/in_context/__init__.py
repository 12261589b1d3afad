from typing import TYPE_CHECKING

from looped.lazy import lazy_names

if TYPE_CHECKING:
    from looped.tasks.in_context.config import InContextConfig as InContextConfig
    from looped.tasks.in_context.task import InContext as InContext
else:
    __getattr__, __dir__, __all__ = lazy_names(__name__, __file__)
