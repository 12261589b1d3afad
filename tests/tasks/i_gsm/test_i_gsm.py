import itertools
import re
from collections import Counter

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from looped.tasks.i_gsm import IGSM, IGSMConfig

NAME = r"[A-Z]#[A-Z]"
SMALL = {"levels": 3, "max_entities": 2, "min_parameters": 4, "max_parameters": 6, "min_operations": 2}


def make(**more) -> IGSM:
    return IGSM(IGSMConfig(**{**SMALL, "max_operations": 4, **more}))


def definitions(text: str) -> tuple[dict[str, str], str]:
    *statements, query = text.replace(" ", "").split(".")
    return dict(statement.split(":=") for statement in statements), query.rstrip("?")


def by_substitution(text: str) -> int:
    """Put definitions in place of names until only numbers are left. A multiple without brackets means the sum."""
    known, query = definitions(text)
    wholes = {name: re.sub(r"^(\d)\*([^(].*)$", r"\1*(\2)", expression) for name, expression in known.items()}
    text = query
    while "#" in text:
        text = re.sub(NAME, lambda found: f"({wholes[found[0]]})", text)
    return eval(text) % 7


sizes = st.fixed_dictionaries({
    "levels": st.integers(2, 5),
    "max_entities": st.integers(2, 4),
    "max_parameters": st.integers(6, 18),
    "version": st.sampled_from(["corrected", "published"]),
})  # fmt: skip


@given(sizes, st.integers(0, 2**32))
@settings(deadline=None, max_examples=60)
def test_problems_of_all_sizes(chosen, seed):
    task = make(**chosen)
    config = task.config
    for problem in task.sample("train", 3, np.random.default_rng(seed)):
        text = task.to_text(problem)
        assert int(text["expected"]) == by_substitution(text["input"])
        known, query = definitions(text["input"])
        assert config.min_parameters <= len(known) <= config.max_parameters
        needs = nx.DiGraph((x, name) for name, expression in known.items() for x in re.findall(NAME, expression))
        assert nx.is_directed_acyclic_graph(needs)
        assert config.min_operations <= len(nx.ancestors(needs, query)) <= config.max_operations
        # The entities lie on levels, and every edge leads to the next one.
        entities = nx.DiGraph((name[0], name[2]) for name in known)
        assert config.levels <= len(entities) <= config.levels * config.max_entities
        for part in nx.weakly_connected_components(entities):
            start = next(iter(part))
            level = {start: 0}
            for one, other in nx.bfs_edges(entities.to_undirected(as_view=True), start):
                level[other] = level[one] + (1 if entities.has_edge(one, other) else -1)
            assert all(level[b] == level[a] + 1 for a, b in entities.subgraph(part).edges)
            assert max(level.values()) - min(level.values()) < config.levels


@pytest.mark.parametrize("version", ["corrected", "published"])
def test_groups_and_forms(version):
    task = make(version=version, eval_operations=(5,), max_operations=3)
    assert task.groups == ("2", "3", "5")
    for group in task.groups:
        for problem in task.sample("test", 10, np.random.default_rng(0), group):
            known, query = definitions(task.to_text(problem)["input"])
            needs = nx.DiGraph((x, name) for name, e in known.items() for x in re.findall(NAME, e))
            assert len(nx.ancestors(needs, query)) == int(group)
    drawn = [task.to_text(p)["input"] for p in task.sample("train", 600, np.random.default_rng(1))]
    expressions = [e for text in drawn for e in definitions(text)[0].values() if not e.isdigit()]
    shapes = Counter(re.sub(r"[2-4]\*", "n*", re.sub(NAME, "x", e)) for e in expressions)
    brackets = "()" if version == "corrected" else ("", "")
    multiples = {f"n*{brackets[0]}{total}{brackets[1]}" for total in ("x+x", "x-x", "x+x+x")}
    assert shapes.keys() == {"x", "x+x", "x-x", "x+x+x", "n*x"} | multiples
    assert sum(n for s, n in shapes.items() if "n" in s) / shapes.total() == pytest.approx(1 / 4, abs=0.04)


def test_a_multiple_applies_to_the_whole_sum():
    # The published example: 2 * J#P + H#J + E#I with (4, 1, 4) is 4, and not 2*4 + 1 + 4 = 6 modulo 7.
    values = ". J#P := 4 . H#J := 1 . E#I := 4 . I#N ?"
    published, corrected = (make(version=version) for version in ("published", "corrected"))
    text = "I#N := 2 * J#P + H#J + E#I" + values
    assert published.to_text(published.parse(text))["expected"] == "4" == str(by_substitution(text))
    bracketed = "I#N := 2 * ( J#P + H#J + E#I )" + values
    assert corrected.to_text(corrected.parse(bracketed))["expected"] == "4"
    for task, other in ((corrected, text), (published, bracketed)):
        with pytest.raises(ValueError, match=r"expected 0 to 6, a sum of parameters, or a multiple"):
            task.parse(other)


def test_all_small_expressions():
    """Every form with all values of its parameters, against Python's own arithmetic."""
    task = make()
    forms = {"A#B": 1, "A#B+C#D": 2, "A#B-C#D": 2, "A#B+C#D+E#F": 3, "3*A#B": 1, "4*(A#B-C#D)": 2, "2*(A#B+C#D+E#F)": 3}
    for form, count in forms.items():
        for values in itertools.product(range(7), repeat=count):
            known: dict[str, int] = dict(zip(("A#B", "C#D", "E#F"), values, strict=False))
            expected = eval(re.sub(NAME, lambda found: str(known[found[0]]), form)) % 7  # noqa: B023
            text = "".join(f"{name}:={value}." for name, value in known.items())
            assert task.solve(f"X#Y:={form}.{text}X#Y?") == expected


def test_files_and_impossible_settings():
    task = make()
    good = "A#B := 3 . C#D := 2 * A#B . C#D ?"
    problems, bad = task.read([good, "nonsense", ""], "problems", "skip")
    assert (task.to_text(problems[0]), bad) == ({"input": good, "expected": "6"}, 1)
    for line, reason in [
        ("A#B := 8 . A#B ?", "'8': expected letters A-Z, digits 0-6"),
        ("A#B := 3 . A#B := 4 . A#B ?", "'A#B:=4': expected one definition of each parameter"),
        ("A := 3 . A ?", "'A:=3': expected one definition of each parameter"),
        ("A#B := C#D . A#B ?", "'C#D': has no definition; expected one of every parameter"),
        ("A#B := 3 . C#D ?", "'C#D': has no definition"),
        ("A#B := C#D . C#D := A#B . A#B ?", "A#B, C#D, A#B: each needs the next; expected no such cycle"),
        ("A#B := 3 . A#B", "'A#B': expected a parameter and . at the end"),
        ("A#B := 3 + 4 . A#B ?", "'3.4': expected 0 to 6, a sum of parameters, or a multiple"),
        ("A#B := 3 . " * 30 + "A#B ?", "184 symbols; expected at most 124"),
    ]:
        with pytest.raises(ValueError, match=f"problems, line 2: {reason}"):
            task.read([good, line], "problems", "stop")
    for bad_settings, message in [
        ({"levels": 1}, "levels=1: expected 2 to 26"),
        ({"max_entities": 9}, "max_entities=9: expected at most 8: there are 26 letters"),
        ({"min_parameters": 7}, "min_parameters=7: expected at most max_parameters=6"),
        ({"max_operations": 6}, "max_operations=6: expected 1 to below max_parameters=6"),
        ({"eval_operations": (4,)}, r"eval_operations=\(4,\): expected numbers outside the range of training"),
    ]:
        with pytest.raises(ValueError, match=message):
            make(**bad_settings)
    impossible = make(min_parameters=6, max_entities=2, levels=2)
    with pytest.raises(ValueError, match="found no problem in the train split"):
        impossible.sample("train", 1, np.random.default_rng(0))
