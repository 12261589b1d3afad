from looped.tasks.lcs.config import LCSConfig
from looped.tasks.lcs.task import LongestCommonSubsequence

__all__ = ["LCSConfig", "LongestCommonSubsequence"]
