from typing import TYPE_CHECKING

from looped.lazy import lazy_names

if TYPE_CHECKING:
    from looped.tasks.edit_distance.config import EditDistanceConfig as EditDistanceConfig
    from looped.tasks.edit_distance.task import EditDistance as EditDistance
else:
    __getattr__, __dir__, __all__ = lazy_names(__name__, __file__)
