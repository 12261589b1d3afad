from looped.tasks.sudoku.config import SudokuConfig
from looped.tasks.sudoku.task import Sudoku

__all__ = ["Sudoku", "SudokuConfig"]
