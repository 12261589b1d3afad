from typing import TYPE_CHECKING

from looped.lazy import lazy_names

if TYPE_CHECKING:
    from looped.tasks.increasing_subsequence.config import IncreasingSubsequenceConfig as IncreasingSubsequenceConfig
    from looped.tasks.increasing_subsequence.task import IncreasingSubsequence as IncreasingSubsequence
else:
    __getattr__, __dir__, __all__ = lazy_names(__name__, __file__)
