from looped.tasks.countdown.config import CountdownConfig
from looped.tasks.countdown.task import Countdown

__all__ = ["Countdown", "CountdownConfig"]
