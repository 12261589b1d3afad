from typing import TYPE_CHECKING

from looped.lazy import lazy_names

if TYPE_CHECKING:
    from looped.tasks.edit_distance_chain.config import EditDistanceChainConfig as EditDistanceChainConfig
    from looped.tasks.edit_distance_chain.task import EditDistanceChain as EditDistanceChain
else:
    __getattr__, __dir__, __all__ = lazy_names(__name__, __file__)
