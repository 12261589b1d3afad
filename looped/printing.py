"""Text on the terminal."""

import unicodedata

# Controls, marks that turn the direction of text, and halves of characters.
HIDDEN = {"Cc", "Cf", "Cs"}


def printable(text: str, keep: str = "") -> str:
    """The text with control characters as escapes such as \\x1b. On a terminal they could do anything.

    Args:
        keep: characters that stay as they are.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(c if c in keep or unicodedata.category(c) not in HIDDEN else ascii(c)[1:-1] for c in text)
