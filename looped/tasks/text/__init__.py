from looped.tasks.text.config import TextConfig
from looped.tasks.text.task import Text

__all__ = ["Text", "TextConfig"]
