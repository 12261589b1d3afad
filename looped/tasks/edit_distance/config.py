"""The settings of the task edit_distance."""

from looped.strict import frozen
from looped.tasks.string_config import StringConfig


@frozen
class EditDistanceConfig(StringConfig):
    """Weighted edit distance of two strings (insert 2, delete 2, replace 3).

    With version=published, leading gaps cost 1 instead of 2.
    """

    name = "edit_distance"
