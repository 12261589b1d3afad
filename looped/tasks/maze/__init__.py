from typing import TYPE_CHECKING

from looped.lazy import lazy_names

if TYPE_CHECKING:
    from looped.tasks.maze.config import MazeConfig as MazeConfig
    from looped.tasks.maze.task import MazeTask as MazeTask
else:
    __getattr__, __dir__, __all__ = lazy_names(__name__, __file__)
