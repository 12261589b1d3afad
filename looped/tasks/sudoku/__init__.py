from typing import TYPE_CHECKING

from looped.lazy import lazy_names

if TYPE_CHECKING:
    from looped.tasks.sudoku.config import SudokuConfig as SudokuConfig
    from looped.tasks.sudoku.task import Sudoku as Sudoku
else:
    __getattr__, __dir__, __all__ = lazy_names(__name__, __file__)
