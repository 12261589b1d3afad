from typing import TYPE_CHECKING

from looped.lazy import lazy_names

if TYPE_CHECKING:
    from looped.tasks.arithmetic.config import ArithmeticConfig as ArithmeticConfig
    from looped.tasks.arithmetic.task import Arithmetic as Arithmetic
else:
    __getattr__, __dir__, __all__ = lazy_names(__name__, __file__)
