from typing import TYPE_CHECKING

from looped.lazy import lazy_names

if TYPE_CHECKING:
    from looped.tasks.n_ary_addition.config import NAryAdditionConfig as NAryAdditionConfig
    from looped.tasks.n_ary_addition.task import NAryAddition as NAryAddition
else:
    __getattr__, __dir__, __all__ = lazy_names(__name__, __file__)
