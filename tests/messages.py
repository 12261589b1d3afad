"""A reader may do two things with any input: return a result, or raise ValueError with one short line."""

from collections.abc import Callable
from typing import Any


def result_or_line(read: Callable[..., Any], *args: Any, **options: Any) -> Any:
    """The result, or the message. Any other exception, and any other message, is a failure."""
    try:
        return read(*args, **options)
    except ValueError as error:
        message = str(error)
    assert message.isprintable(), message
    assert 5 < len(message) < 600, message
    return message
