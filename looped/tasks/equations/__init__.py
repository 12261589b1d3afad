from typing import TYPE_CHECKING

from looped.lazy import lazy_names

if TYPE_CHECKING:
    from looped.tasks.equations.config import EquationsConfig as EquationsConfig
    from looped.tasks.equations.task import Equations as Equations
else:
    __getattr__, __dir__, __all__ = lazy_names(__name__, __file__)
