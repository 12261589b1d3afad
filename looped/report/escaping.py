"""Escaping of texts from files, for HTML and Markdown."""

import html
import re

from looped.printing import printable


def escape(text: str) -> str:
    """`text` as the content of an HTML element or of a quoted attribute."""
    return html.escape(printable(text))


def escape_markdown(text: str) -> str:
    """`text` on one line, with Markdown's special characters escaped."""
    return re.sub(r"([\\`*_|<>\[\]#])", r"\\\1", printable(text.replace("\n", " ")))
