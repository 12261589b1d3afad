"""Graphs from files of users: edge lists and GraphML."""

import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple
from xml.etree.ElementTree import ParseError

from looped.reading import stream_lines, stream_text
from looped.strict import shown
from looped.theory.graphs import Graph

Weights = Literal["ignored", "at least 0", "any"]
WHOLE = re.compile(r"[+-]?\d{1,18}(\.0*)?")
MOST_XML = 64 << 20  # bytes; the tree of the XML parser is many times as large


class NamedGraph(NamedTuple):
    """A graph, the names of its nodes, and what its file had twice."""

    graph: Graph
    names: list[str]
    parallel: int
    """Edges between the same nodes as an earlier one."""


def read_graph(path: Path, *, undirected: bool, weights: Weights) -> NamedGraph:
    """The graph of a file. Nodes are numbered in the order in which they first appear.

    An edge list has a line `a b weight` or `a b` (weight 1) for an edge, and `a` for a node; # begins a comment. A file
    whose name contains .graphml is GraphML, with weights in the attribute `weight`.

    Raises:
        ValueError: one line with the file, and the line of an edge list, for what is not as above, and for weights that
            are not whole numbers or are negative where they may not be.
    """
    graphml = ".graphml" in path.suffixes
    if graphml and undirected:
        raise ValueError(f"undirected: {path} says itself whether it is directed; expected this option for edge lists")
    number: dict[str, int] = {}
    edges: list[tuple[int, int, int]] = []
    for place, words in _graphml(path) if graphml else _edge_list(path, undirected):
        start, *end = [number.setdefault(name, len(number)) for name in words[:2]]
        if end:
            edges.append((start, end[0], _whole(words[2], weights, place) if weights != "ignored" else 1))
    if not number:
        raise ValueError(f"{path}: no node; expected lines 'a b weight'")
    graph = Graph.of(len(number), edges)
    return NamedGraph(graph, list(number), len(edges) - len(graph.edges))


Row = tuple[str, tuple[Any, ...]]
"""The place in the file, and (node,) or (from, to, weight)."""


def _edge_list(path: Path, undirected: bool) -> Iterator[Row]:
    for line, text in enumerate(stream_lines(path), 1):
        words = text.partition("#")[0].split()
        if len(words) > 3:
            raise ValueError(f"{path}:{line}: {len(words)} words; expected 'a b weight', 'a b' or 'a'")
        if len(words) == 1 and re.search("[,;]", words[0]):
            raise ValueError(f"{path}:{line}: {words[0]!r}; expected words with spaces or tabs between them")
        if words:
            row = (words[0],) if len(words) == 1 else (words[0], words[1], words[2] if len(words) == 3 else 1)
            yield f"{path}:{line}", row
            if undirected and len(row) == 3 and row[0] != row[1]:
                yield f"{path}:{line}", (row[1], row[0], row[2])


def _graphml(path: Path) -> Iterator[Row]:
    import networkx

    text = "".join(stream_text(path, most=MOST_XML))
    if "<!ENTITY" in text:
        raise ValueError(f"{path}: defines entities of XML; expected GraphML without them")
    try:
        with warnings.catch_warnings(action="ignore"):
            graph = networkx.parse_graphml(text)
    except ParseError as error:
        raise ValueError(f"{path}:{error.position[0]}: not XML ({error})") from None
    except Exception as error:  # the parser raises anything for XML that is no GraphML
        raise ValueError(f"{path}: not GraphML ({' '.join(str(error).split()) or type(error).__name__})") from None
    for node in graph.nodes:
        yield str(path), (node,)
    for start, end, weight in graph.edges(data="weight", default=1):
        place = f"{path}: edge from {start} to {end}"
        yield place, (start, end, weight)
        if not graph.is_directed() and start != end:
            yield place, (end, start, weight)


def _whole(value: Any, weights: Weights, place: str) -> int:
    text = str(value)
    if not WHOLE.fullmatch(text):
        raise ValueError(f"{place}: weight {shown(text)}: expected a whole number of at most 18 digits")
    weight = int(text.partition(".")[0])
    if weight < 0 and weights == "at least 0":
        raise ValueError(f"{place}: weight {weight}: expected at least 0; bellman-ford takes negative weights")
    return weight
