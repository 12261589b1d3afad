from looped.tasks.p_hop.config import PHopConfig
from looped.tasks.p_hop.task import PHop

__all__ = ["PHop", "PHopConfig"]
