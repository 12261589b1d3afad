from typing import TYPE_CHECKING

from looped.lazy import lazy_names

if TYPE_CHECKING:
    from looped.tasks.tables.config import TablesConfig as TablesConfig
    from looped.tasks.tables.task import Tables as Tables
else:
    __getattr__, __dir__, __all__ = lazy_names(__name__, __file__)
