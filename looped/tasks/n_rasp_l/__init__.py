from typing import TYPE_CHECKING

from looped.lazy import lazy_names

if TYPE_CHECKING:
    from looped.tasks.n_rasp_l.config import NRaspLConfig as NRaspLConfig
    from looped.tasks.n_rasp_l.task import NRaspL as NRaspL
else:
    __getattr__, __dir__, __all__ = lazy_names(__name__, __file__)
