"""The settings of the task lcs."""

from looped.strict import frozen
from looped.tasks.string_config import StringConfig


@frozen
class LCSConfig(StringConfig):
    """Length of the longest common subsequence of two strings.

    With version=published, an 'insertion' in the copy of a string replaces a letter instead.
    """

    name = "lcs"

    length: int = 100
    max_letters: int = 25
