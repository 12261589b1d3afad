from looped.tasks.tables.config import TablesConfig
from looped.tasks.tables.task import Tables

__all__ = ["Tables", "TablesConfig"]
