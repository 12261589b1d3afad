"""The settings of the task lcs."""

from looped.strict import frozen
from looped.tasks.strings import StringConfig


@frozen
class LCSConfig(StringConfig):
    """Length of the longest common subsequence of two strings.

    In version published, an 'insertion' that makes a copy of a string replaces a letter.
    """

    length: int = 100
    max_letters: int = 25
