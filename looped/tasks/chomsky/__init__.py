from typing import TYPE_CHECKING

from looped.lazy import lazy_names

if TYPE_CHECKING:
    from looped.tasks.chomsky.config import ChomskyConfig as ChomskyConfig
    from looped.tasks.chomsky.task import Chomsky as Chomsky
else:
    __getattr__, __dir__, __all__ = lazy_names(__name__, __file__)
