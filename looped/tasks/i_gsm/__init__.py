from typing import TYPE_CHECKING

from looped.lazy import lazy_names

if TYPE_CHECKING:
    from looped.tasks.i_gsm.config import IGSMConfig as IGSMConfig
    from looped.tasks.i_gsm.task import IGSM as IGSM
else:
    __getattr__, __dir__, __all__ = lazy_names(__name__, __file__)
