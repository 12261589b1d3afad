"""Text for terminals: what could change one, or begin a line, is an escape."""

import pytest

from looped.printing import one_line, printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("naïve 数独 🙂 a\u00a0b", "naïve 数独 🙂 a\u00a0b"),
        ("\x1b[31m\x07\x7f\x9b", r"\x1b[31m\x07\x7f\x9b"),
        ("a\tb\r", r"a\tb\r"),
        ("a\u202eb\u200b", r"a\u202eb\u200b"),
        ("a\u2028b\u2029c\x85d", r"a\u2028b\u2029c\x85d"),
        ("\ud800", r"\ud800"),
    ],
)
def test_printable(text: str, shown: str):
    assert printable(text) == shown
    assert len(one_line(text).splitlines()) == 1


def test_one_line():
    assert one_line(" a\n b\u2028\x1b c\n") == r"a b \x1b c"
    assert printable("a\nb\tc\r", keep="\n\t") == "a\nb\tc\\r"
