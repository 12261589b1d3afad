"""Escaping of texts from files, for HTML."""

import html

from looped.printing import printable


def escape(text: str) -> str:
    """`text` as the content of an HTML element or of a quoted attribute."""
    return html.escape(printable(text))
