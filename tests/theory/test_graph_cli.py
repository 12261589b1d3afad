"""`looped theory graph` on files as users have them, and on files that are wrong."""

import gzip
import json
from pathlib import Path

import networkx
import pytest

from looped.cli import main

FILES = {
    "small.txt": "# roads\nnorth south 4\nsouth east 1  # short\nnorth east 9\nnorth east 7\n\nisland\neast east 0\n",
    "debts.txt": "a b 5\nb c -3\na c 4\n",
    "cycle.txt": "a b 1\nb c -3\nc a 1\n",
    "itself.txt": "a b 1\nb b -1\n",
    "far.txt": "a b 1\nc d 1\nd c -2\nd b 1\n",
    "half.txt": "a b 1\nb c 0.5\n",
    "words.txt": "a b 1 2\n",
    "commas.txt": "a,b,3\n",
    "comment.txt": "# nothing\n",
    "blank.txt": "\n",
    "huge.txt": "a b 900000000000000000\nb c 1\n",
    "many.txt": "".join(f"{i} {i + 1}\n" for i in range(60_000)),
    "broken.graphml": "<graphml>\n<graph>\n</graphml>",
    "other.graphml": "<html></html>",
    "entity.graphml": '<!DOCTYPE x [<!ENTITY a "b">]><graphml/>',
}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("graphs")
    for name, text in FILES.items():
        (folder / name).write_text(text)
    (folder / "small.txt.gz").write_bytes(gzip.compress(FILES["small.txt"].encode()))
    return folder


@pytest.fixture
def folder(files: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(files)
    return files


def printed(command: str, capsys: pytest.CaptureFixture[str]) -> dict[str, list[str]]:
    """The rows of the table by node; "say" are the other lines."""
    assert main(["theory", "graph", *command.split()]) == 0
    lines = capsys.readouterr().out.splitlines()
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in lines if line.startswith("│")]
    return {node: cells for node, *cells in rows} | {"say": [line for line in lines if not line.startswith("│")]}


@pytest.mark.parametrize("name", ["small.txt", "small.txt.gz"])
def test_an_edge_list(folder: Path, name: str, capsys: pytest.CaptureFixture[str]):
    found = printed(f"dijkstra {name}", capsys)
    assert " ".join(found["say"][:3]).split("dijkstra from north")[0].rstrip() == (
        "one layer: registers 9, heads 1 + 1 of a graph, head size 2, units 8, nonzero weights 44 "
        "nodes 4, edges 4 (1 parallel ones left out), loops at most 8, numbers up to 1,422"
    )
    assert found["say"][-1].endswith("networkx gives the same for 4 of 4 nodes")
    del found["say"]
    assert found == {"north": ["0", "-"], "south": ["4", "north"], "east": ["5", "south"], "island": ["-", "-"]}


def test_sources_and_directions(folder: Path, capsys: pytest.CaptureFixture[str]):
    found = printed("bfs small.txt --source south", capsys)
    assert [found[node] for node in ("north", "south", "east", "island")] == [["-"], ["0"], ["1"], ["-"]]
    assert printed("bfs small.txt --source south --undirected", capsys)["north"] == ["1"]
    found = printed("dfs small.txt --source east", capsys)
    assert [found[node] for node in ("east", "south", "north", "island")] == [
        ["-", "1"], ["north", "2"], ["-", "3"], ["-", "4"],
    ]  # fmt: skip
    found = printed("scc small.txt --undirected", capsys)
    assert [found[node] for node in ("south", "east", "island")] == [["north"], ["north"], ["island"]]


def test_weights(folder: Path, capsys: pytest.CaptureFixture[str]):
    found = printed("bellman-ford debts.txt", capsys)
    assert found["say"][-1].startswith("3 loops, ")
    assert [found[node] for node in "abc"] == [["0"], ["5"], ["2"]]
    found = printed("bellman-ford far.txt", capsys)  # the cycle of negative weight is not reached
    assert [found[node] for node in "abcd"] == [["0"], ["1"], ["-"], ["-"]]
    assert printed("bfs half.txt", capsys)["c"] == ["2"]  # weights do not count


@pytest.mark.parametrize("directed", [False, True])
def test_graphml(folder: Path, directed: bool, capsys: pytest.CaptureFixture[str]):
    graph = networkx.DiGraph() if directed else networkx.Graph()
    graph.add_weighted_edges_from([("a", "b", 2.0), ("b", "c", 3.0), ("c", "c", 1.0)])
    graph.add_edge("d", "c")
    networkx.write_graphml(graph, folder / "g.graphml")
    found = printed("dijkstra g.graphml", capsys)
    assert [found[node] for node in "bcd"] == [["2", "a"], ["5", "b"], ["-", "-"] if directed else ["6", "c"]]


@pytest.mark.parametrize(("algorithm", "stage"), [("scc", "knows its component"), ("bellman-ford", "distance final")])
def test_files_and_figures(folder: Path, algorithm: str, stage: str, capsys: pytest.CaptureFixture[str]):
    (folder / "cities.txt").write_text("東京 大阪 5\n大阪 京都 1\n京都 大阪 1\n東京 京都 9\n")
    assert main(["theory", "graph", algorithm, "cities.txt", "--out", "out"]) == 0
    assert capsys.readouterr().err == ""
    facts = json.loads((folder / "out/graph.json").read_text())
    assert facts["right"] == facts["nodes"] == len(facts["rows"]) == 3
    for figure in ("timeline.svg", "loops.svg"):
        text = (folder / "out" / figure).read_text()
        assert f">{stage}</text>" in text
        assert ">東京</text>" in text


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("dijkstra debts.txt", "debts.txt:2: weight -3: expected at least 0; bellman-ford takes negative weights"),
        ("bellman-ford cycle.txt", "cycle.txt: has a cycle of negative weight that the source reaches; expected none"),
        ("bellman-ford itself.txt", "itself.txt: has a cycle of negative weight"),
        ("bellman-ford debts.txt --undirected", "debts.txt: has a cycle of negative weight"),
        ("dijkstra half.txt", "half.txt:2: weight '0.5': expected a whole number"),
        ("dijkstra words.txt", "words.txt:1: 4 words; expected 'a b weight'"),
        ("bfs commas.txt", "commas.txt:1: 'a,b,3'; expected words with spaces"),
        ("bfs comment.txt", "comment.txt: no node"),
        ("bfs blank.txt", "blank.txt: empty file"),
        ("bfs none.txt", "none.txt: No such file"),
        ("bfs small.txt --source nort", "source='nort': no such node (did you mean 'north'?)"),
        ("scc small.txt --source north", "source='north': has no effect on scc"),
        ("dijkstra huge.txt", "huge.txt: numbers up to 8.6e+19; expected fewer nodes or smaller weights"),
        ("dijkstra many.txt", "many.txt: 60,001 tokens: needs"),
        ("bellman-ford many.txt", "many.txt: 120,001 tokens: needs"),
        ("bfs broken.graphml", "broken.graphml:3: not XML (mismatched tag"),
        ("bfs other.graphml", "other.graphml: not GraphML ("),
        ("bfs entity.graphml", "entity.graphml: defines entities"),
        ("bfs other.graphml --undirected", "undirected: other.graphml says itself"),
        ("prim small.txt", "prim"),
    ],
)
def test_mistakes_are_one_line(command: str, message: str, folder: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["theory", "graph", *command.split()]) == 2
    error = capsys.readouterr().err
    assert error.startswith("looped: error: ")
    assert error.count("\n") == 1
    assert message in error


def test_random_graphs(folder: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["theory", "graphs", "--count", "0"]) == 2
    assert "count=0: expected at least 1" in capsys.readouterr().err
