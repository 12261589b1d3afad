from typing import TYPE_CHECKING

from looped.lazy import lazy_names

if TYPE_CHECKING:
    from looped.tasks.lcs.config import LCSConfig as LCSConfig
    from looped.tasks.lcs.task import LongestCommonSubsequence as LongestCommonSubsequence
else:
    __getattr__, __dir__, __all__ = lazy_names(__name__, __file__)
