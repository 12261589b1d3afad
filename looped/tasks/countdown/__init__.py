from typing import TYPE_CHECKING

from looped.lazy import lazy_names

if TYPE_CHECKING:
    from looped.tasks.countdown.config import CountdownConfig as CountdownConfig
    from looped.tasks.countdown.task import Countdown as Countdown
else:
    __getattr__, __dir__, __all__ = lazy_names(__name__, __file__)
