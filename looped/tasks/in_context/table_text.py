"""CSV and ARFF text as named columns and rows of cells.

Both are read here, because no library refuses every mistake: scipy knows no sparse rows and no strings, liac-arff reads
`1_2` and Arabic digits as numbers, and pandas takes rows of numbers for names.
"""

import contextlib
import functools
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from reprlib import repr as shown  # cuts what is long
from typing import Literal, NamedTuple

Cell = str | None  # None is missing


class Column(NamedTuple):
    """A column of a table."""

    name: str
    kind: Literal["number", "category", "undeclared"]
    """undeclared: the cells of a CSV say what they are."""
    values: tuple[str, ...] = ()
    """The declared categories; empty if none are declared."""


class Grid(NamedTuple):
    """A table as text."""

    columns: list[Column]
    rows: Iterator[tuple[int, str]]
    """The number of each row's first line, and the row's text."""
    cells: Callable[[str], Sequence[Cell]]
    """The cells of a row's text. It raises ValueError for a damaged row."""
    missing: frozenset[str] = frozenset()
    """Further words, in lower case, for a number that is missing."""


def read_grid(lines: Sequence[str], source: str) -> Grid:
    """The columns and rows of a CSV or an ARFF table. An ARFF file begins with @ or %.

    Raises:
        ValueError: the names or the declarations are damaged; one line names file, line and reason.
    """
    numbered = [(n, line.strip("\ufeff\r\n")) for n, line in enumerate(lines, start=1)]
    numbered = [(n, line) for n, line in numbered if line.strip()]
    if not numbered:
        raise ValueError(f"{source}: empty file")
    grid = (_arff if numbered[0][1].lstrip()[0] in "@%" else _csv)(numbered, source)
    name, uses = Counter(column.name for column in grid.columns).most_common(1)[0]
    if uses > 1:
        raise ValueError(f"{source}: {uses} columns with the name {shown(name)}; expected different names")
    return grid


# CSV

DELIMITERS = {",": "comma", ";": "semicolon", "\t": "tab"}
NO_NUMBER = frozenset({"na", "n/a", "nan", "null", "none"})  # for a class they may be names
INDEX = "Row numbers are no feature: pandas leaves them out with to_csv(index=False), R with row.names=FALSE"


def _csv(numbered: list[tuple[int, str]], source: str) -> Grid:
    number, header = numbered[0]
    place = f"{source}, line {number}"
    outside_quotes = re.sub(r'"[^"]*"', "", header)
    found = [d for d in DELIMITERS if d in outside_quotes]
    if len(found) != 1:
        kinds = " and ".join(DELIMITERS[d] for d in found) or "no delimiter"
        raise ValueError(
            f"{place}: {shown(header)}: {kinds} between the names; expected the names of the features and of the "
            "target in the first line, separated by comma, semicolon or tab"
        )
    cells = _csv_cells(found[0])
    try:
        names = cells(header)
    except ValueError as error:
        raise ValueError(f"{place}: {error}") from None
    for k, name in enumerate(names, start=1):
        if name is None or re.fullmatch(r"Unnamed: \d+", name):
            hint = f". {INDEX}" if k == 1 else ""
            raise ValueError(f"{place}: column {k} has no name; expected a name for every column{hint}")
        if _is_a_float(name):
            raise ValueError(
                f"{place}: the name of column {k} is {shown(name)}; expected the names of the features and of the "
                "target in the first line"
            )
    columns = [Column(str(name), "undeclared") for name in names]
    return Grid(columns, _joined(numbered[1:], cells), cells, NO_NUMBER)


def _csv_cells(delimiter: str) -> Callable[[str], Sequence[Cell]]:
    space = rf"[^\S{delimiter}]*+"
    cell = re.compile(rf'{space}(?:"((?:[^"]|"")*+)"{space}|([^"{delimiter}]*+))({delimiter}|\Z)')

    def cells(text: str) -> Sequence[Cell]:
        """The cells without the white space around them. A quoted cell may hold delimiters and doubled quotes.

        Raises:
            ValueError: an open quote, or a comment.
        """
        if not re.search('["#%]', text):
            return [None if (bare := part.strip()) in ("", "?") else bare for part in text.split(delimiter)]
        found: list[Cell] = []
        at = 0
        while match := cell.match(text, at):
            quoted, bare, more = match.groups()
            if quoted is None and re.search(r"(?:^|\s)[#%]", bare):
                raise ValueError(f"{shown(bare)}: a CSV has no comments; remove it, or quote the cell")
            value = bare.strip() if quoted is None else quoted.replace('""', '"')
            found.append(None if value.strip() in ("", "?") else value)
            if not more:
                return found
            at = match.end()
        raise ValueError(f"{shown(text[at:])}: a quote that is not closed, or one inside a cell")

    return cells


def _joined(numbered: list[tuple[int, str]], cells: Callable[[str], Sequence[Cell]]) -> Iterator[tuple[int, str]]:
    """The rows. A quoted cell may go on in the next lines; if that gives no row, the line stands alone."""
    at = 0
    while at < len(numbered):
        number, text = numbered[at]
        at += 1
        if text.count('"') % 2:
            end = next((k for k in range(at, len(numbered)) if numbered[k][1].count('"') % 2), at - 1) + 1
            joined = "\n".join([text, *(line for _, line in numbered[at:end])])
            with contextlib.suppress(ValueError):
                cells(joined)
                text, at = joined, end
        yield number, text


def _is_a_float(name: str) -> bool:
    with contextlib.suppress(ValueError):
        float(name)
        return True
    return False


# ARFF (https://waikato.github.io/weka-wiki/formats_and_processing/arff_stable/)

TOKEN = re.compile(
    r"""\s*(?:
        (?P<quoted> '(?:[^'\\]|\\.)*+' | "(?:[^"\\]|\\.)*+" ) |
        (?P<bare> [^\s,{}'"%][^\s,{}'"]* ) |
        (?P<mark> [,{}] ) |
        (?P<end> (?:%.*)?\Z )  # a comment
    )""",
    re.VERBOSE | re.DOTALL,
)
ESCAPES = {"n": "\n", "r": "\r", "t": "\t", "b": "\b", "f": "\f"}
NUMBERS, TEXTS = ("numeric", "real", "integer"), ("string", "date")


class Token(NamedTuple):
    """A value (None is `?`), or one of the marks , { }."""

    mark: str
    value: Cell = None


def _arff(numbered: list[tuple[int, str]], source: str) -> Grid:
    columns: list[Column] = []
    content = ((n, line.strip()) for n, line in numbered if not line.lstrip().startswith("%"))
    for number, line in content:
        word, *rest = line.split(None, 1)
        try:
            if word.lower() == "@data" and columns and not _tokens("".join(rest)):
                return Grid(columns, content, functools.partial(_arff_cells, columns=columns))
            if word.lower() == "@attribute":
                columns.append(_declared("".join(rest)))
            elif word.lower() != "@relation":
                raise ValueError(f"{shown(line)}: expected @relation, @attribute or @data")
        except ValueError as error:
            raise ValueError(f"{source}, line {number}: {error}") from None
    raise ValueError(f"{source}: expected a line @data, as ARFF files have")


def _declared(text: str) -> Column:
    """The column that is declared by `NAME TYPE`."""
    tokens = _tokens(text)
    name, kind = tokens[0].value if tokens else None, tokens[1:]
    if not name or not kind:
        raise ValueError(f"@attribute {shown(text)}: expected @attribute NAME TYPE")
    if kind[0].mark == "{" and kind[-1].mark == "}":
        values = tuple("?" if value is None else value for value in _values(kind[1:-1]))
        return Column(name, "category", tuple(dict.fromkeys(values)))
    word = (kind[0].value or "").lower()
    if word in NUMBERS and len(kind) == 1:
        return Column(name, "number")
    if word in TEXTS and len(kind) <= 1 + (word == "date"):
        return Column(name, "category")
    words = " ".join(token.value or token.mark or "?" for token in kind)
    raise ValueError(
        f"@attribute {shown(name)}: the type {shown(words)}; expected {', '.join(NUMBERS + TEXTS)} or {{A, B, ...}}, "
        "with nothing after it in the line"
    )


def _arff_cells(text: str, columns: Sequence[Column]) -> Sequence[Cell]:
    if not re.search(r"""['"{}%]|[^\s,]\s+[^\s,]|,\s*,|,\s*\Z|\A\s*,""", text):  # most rows
        return [None if (value := part.strip()) == "?" else value for part in text.split(",")]
    tokens = _tokens(text)
    if tokens[0].mark != "{":
        return _values(tokens) if any(token.mark for token in tokens) else [token.value for token in tokens]
    if tokens[-1].mark != "}":
        raise ValueError("a sparse row without }")
    given: dict[int, Cell] = {}
    for pair in _fields(tokens[1:-1]):
        index = (pair[0].value if pair else None) or ""
        if len(pair) != 2 or not re.fullmatch("[0-9]{1,9}", index) or int(index) >= len(columns) or int(index) in given:
            shape = " ".join(token.value or "?" for token in pair)
            raise ValueError(
                f"{shown(shape)}: expected COLUMN VALUE, with different columns from 0 to {len(columns) - 1}"
            )
        given[int(index)] = pair[1].value
    return [given[k] if k in given else _left_out(column) for k, column in enumerate(columns)]


def _left_out(column: Column) -> str:
    """The value of a column that a sparse row leaves out."""
    if column.kind == "category" and not column.values:
        raise ValueError(f"a sparse row without column {shown(column.name)}: expected its text")
    return column.values[0] if column.values else "0"


def _values(tokens: Sequence[Token]) -> list[Cell]:
    """Values with commas between them."""
    for field in (fields := _fields(tokens)):
        if len(field) != 1:
            words = " ".join(token.value or "?" for token in field)
            raise ValueError(
                f"{shown(words)}: expected one value between commas (? if missing, quoted if with white space)"
            )
    return [field[0].value for field in fields]


def _fields(tokens: Sequence[Token]) -> list[list[Token]]:
    """The tokens between commas."""
    fields: list[list[Token]] = [[]] if tokens else []
    for token in tokens:
        if token.mark in ("{", "}"):
            raise ValueError(f"{token.mark} inside a row; quote it if it belongs to a value")
        if token.mark:
            fields.append([])
        else:
            fields[-1].append(token)
    return fields


def _tokens(text: str) -> list[Token]:
    """The tokens of a line, up to a comment."""
    tokens: list[Token] = []
    at = 0
    while match := TOKEN.match(text, at):
        kind, part = match.lastgroup, match[0].lstrip()
        at = match.end()
        if kind == "end":
            return tokens
        if kind == "mark":
            tokens.append(Token(part))
        else:
            unquoted = re.sub(r"\\(u[0-9a-fA-F]{4}|[0-7]{1,3}|.)", _unescaped, part[1:-1], flags=re.DOTALL)
            tokens.append(Token("", unquoted if kind == "quoted" else None if part == "?" else part))
    raise ValueError(f"{shown(text[at:])}: a quote that is not closed, or one inside a value")


def _unescaped(match: re.Match[str]) -> str:
    code = match[1]
    if len(code) == 5:
        if code[1:3].lower() in ("d8", "d9", "da", "db", "dc", "dd", "de", "df"):
            raise ValueError(f"{match[0]}: half a character; expected the character itself")
        return chr(int(code[1:], 16))
    return chr(int(code, 8)) if code[0] in "01234567" else ESCAPES.get(code, code)
