from looped.tasks.edit_distance.config import EditDistanceConfig
from looped.tasks.edit_distance.task import EditDistance

__all__ = ["EditDistance", "EditDistanceConfig"]
