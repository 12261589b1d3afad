from typing import TYPE_CHECKING

from looped.lazy import lazy_names

if TYPE_CHECKING:
    from looped.tasks.p_hop.config import PHopConfig as PHopConfig
    from looped.tasks.p_hop.task import PHop as PHop
else:
    __getattr__, __dir__, __all__ = lazy_names(__name__, __file__)
