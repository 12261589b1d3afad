"""Training of a run configuration into a run folder."""

from typing import TYPE_CHECKING

from looped.lazy import lazy_names

if TYPE_CHECKING:
    from looped.training.checkpoint import load_run as load_run
    from looped.training.errors import NonFiniteError as NonFiniteError
    from looped.training.schedule import LoopSchedule as LoopSchedule
    from looped.training.trainer import train as train
else:
    __getattr__, __dir__, __all__ = lazy_names(__name__, __file__)
