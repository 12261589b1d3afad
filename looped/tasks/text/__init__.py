from typing import TYPE_CHECKING

from looped.lazy import lazy_names

if TYPE_CHECKING:
    from looped.tasks.text.config import TextConfig as TextConfig
    from looped.tasks.text.task import Text as Text
else:
    __getattr__, __dir__, __all__ = lazy_names(__name__, __file__)
