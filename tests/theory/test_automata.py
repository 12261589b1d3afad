"""Automata by doubling and letter by letter, and increasing subsequences, against plain definitions."""

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from looped.cli import main
from looped.commands.theory.serial_steps import PROBLEMS, load_automaton, measure, share_equal
from looped.theory import automata
from looped.theory.automata import Automaton
from looped.theory.circuit import Circuit, Layer
from looped.theory.weights import write

S5 = automata.symmetric_group()


def states_of(machine: Automaton, word: list[int]) -> list[list[int]]:
    """Where each state leads after 0, 1, ... letters."""
    rows = [list(range(len(machine.states)))]
    for letter in word:
        rows.append([int(machine.table[letter, state]) for state in rows[-1]])
    return rows


def longest(numbers: list[int]) -> list[int]:
    """The longest increasing subsequence that ends at each place, by its recurrence."""
    found = []
    for i, number in enumerate(numbers):
        found.append(1 + max((found[j] for j in range(i) if numbers[j] < number), default=0))
    return found


def test_lookup_on_all_small_registers():
    names = ("i", "r0", "r1", "r2", "out")
    circuit = Circuit(names, (Layer(tuple(automata.lookup({"i": 1}, names[1:4], {"out": 2}))),))
    start = np.array([(i, *r, 0) for i in range(3) for r in itertools.product(range(3), repeat=3)])
    (state,) = circuit.states(start[None], 1)
    assert [row[-1] for row in state[0]] == [2 * (row[1 + row[0]] - row[1]) for row in start]


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 7, 8, 13, 16, 31, 32])
def test_doubling_is_right_with_enough_loops_only(n: int):
    words = np.random.default_rng(n).integers(0, 120, (40, n))
    wanted = np.array([states_of(S5, word) for word in words.tolist()])
    tokens, loops = S5.tokens(words), (n - 1).bit_length()
    program = automata.doubling(S5, n)
    assert program.loops == max(loops, 1)
    for enough in (loops, loops + 2):
        assert (program.run(tokens, loops=enough, dtype=np.int64) == wanted).all()
    with torch.no_grad():
        assert (write(program, n + 1)(torch.from_numpy(tokens)).logits.numpy() == wanted).all()
    if loops:
        fewer = program.run(tokens, loops=loops - 1, dtype=np.int64) == wanted
        assert fewer[:, : 2 ** (loops - 1) + 1].all()
        assert fewer[:, -1].all(axis=1).mean() < 0.1


def test_random_automata_by_both_circuits():
    rng = np.random.default_rng(0)
    for case in range(12):
        machine = automata.random_automaton(int(rng.integers(1, 9)), int(rng.integers(1, 5)), case)
        n = int(rng.integers(1, 40))
        words = rng.integers(0, len(machine.letters), (4, n))
        wanted = np.array([states_of(machine, word) for word in words.tolist()])
        assert (machine.maps(words) == wanted).all()
        tokens = machine.tokens(words)
        assert (automata.doubling(machine, n).run(tokens, dtype=np.int64) == wanted).all()
        slow = automata.serial(machine, n)
        for loop, state in enumerate(slow.states(tokens, dtype=np.int64), start=1):
            assert (slow.output(state)[:, : loop + 1, 0] == wanted[:, : loop + 1, 0]).all()
        with torch.no_grad():
            assert (write(slow, n + 1)(torch.from_numpy(tokens)).logits.numpy() == wanted[..., :1]).all()


def test_longest_increasing_subsequence():
    rng = np.random.default_rng(0)
    for n in (1, 2, 3, 6, 17, 30):
        numbers = rng.integers(-n, n + 1, (10, n))
        numbers[0] = np.arange(n)
        wanted = np.array([longest(row) for row in numbers.tolist()])
        program = automata.increasing(n)
        assert (program.run(numbers[..., None])[..., 0] == wanted).all()
        assert (program.run(numbers[..., None], loops=n + 3)[..., 0] == wanted).all()
        if n > 1:
            assert program.run(numbers[:1, :, None], loops=n - 1).max() < n
        with torch.no_grad():
            output = write(program, n)(torch.from_numpy(numbers[..., None]).double()).logits.numpy()
        assert (output[..., 0] == wanted).all()
    with pytest.raises(ValueError, match="does not hold every whole number"):
        automata.increasing(3).run(np.array([[[2.0**52], [1], [0]]]))


def test_sizes():
    for machine in (S5, load_automaton("parity"), automata.random_automaton(7, 2, 0)):
        q = len(machine.states)
        cost = automata.doubling(machine, 100).circuit.cost()
        assert (cost.registers, cost.heads, cost.head_size, cost.units) == (4 + 2 * q, 1, max(2, q), 2 * q * q + 1)
        cost = automata.serial(machine, 100).circuit.cost()
        assert (cost.registers, cost.heads, cost.head_size, cost.units) == (5 + q, 1, 2, 2 * q + 1)
    cost = automata.increasing(100).circuit.cost()
    assert (cost.registers, cost.heads, cost.head_size, cost.units) == (9, 2, 2, 9)


@pytest.mark.parametrize("name", PROBLEMS)
def test_every_problem_needs_its_loops(name: str):
    for n in (4, 8):
        row = measure(name, n, 60, seed=0)
        formulas = {"ceil(log2 n)": (n - 1).bit_length(), "n": n, "2n": 2 * n, "2n + 2": 2 * n + 2}
        assert row["loops"] == formulas[row["formula"]]
        assert row["needed"] == row["loops"] - (2 if name == "shortest paths" else 0)
        assert row["right"][row["needed"] - 1] == 1 > row["right"][row["needed"] - 2]


def test_chance():
    assert share_equal(np.array([[1], [1], [2], [3]])) == pytest.approx(1 / 6)


def test_a_users_automaton(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.chdir(tmp_path)
    Path("turnstile.txt").write_text(
        "# a turnstile\nlocked coin open\nlocked push locked\n\nopen coin open\nopen push locked"
    )
    machine = load_automaton("turnstile.txt")
    assert machine[:2] == (("locked", "open"), ("coin", "push"))
    assert machine.table.tolist() == [[1, 1], [0, 0]]
    assert main(["theory", "automaton", "turnstile.txt", "--length", "9", "--examples", "20", "--out", "o"]) == 0
    facts = json.loads(Path("o/automaton.json").read_text())
    assert (facts["loops"], facts["prefixes"][-1], facts["last"][-1], facts["model_right"]) == (4, 1, 1, 1)
    assert facts["serial_last"][-1] == 1
    assert Path("o/prefixes.svg").read_text().startswith("<?xml")
    assert "turnstile.txt: 2 states, 2 letters; one layer of 8 registers" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a 0 a\na 1", "line 2: 2 words; expected state, letter, next state"),
        ("a 0 a\n\na 0 b", "line 3: a second transition from 'a' with '0'"),
        ("a 0 b", "'a' with '0' leads to 'b', which has no transitions"),
        ("a 0 b\nb 1 a", "no transition from 'a' with '1'; expected one for each state and letter"),
        ("# nothing", "no transition; expected lines"),
        ("\n".join(f"{i} x {i}" for i in range(51)), "51 states; expected at most 50"),
        ("\n".join(f"a {i} a" for i in range(1001)), "1001 letters; expected at most 1000"),
    ],
)
def test_mistakes_in_a_file(text: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "m.txt").write_text(text)
    assert main(["theory", "automaton", str(tmp_path / "m.txt")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("looped: error: ")
    assert error.count("\n") == 1
    assert message in error


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("automaton none.txt", "automaton 'none.txt': expected a text file or one of s5, parity"),
        ("automaton s5 --length 0", "length=0: expected 1 to 2048"),
        ("automaton s5 --examples 0", "examples=0: expected 1 to 1024 for 5 states, 64 letters"),
        ("automaton s5 --examples 999 --length 2048", "examples=999: expected 1 to 193 for 5 states, 2048 letters"),
        ("automaton s5 --seed -1", "seed=-1"),
        ("serial --sizes", "sizes=(): expected numbers from 2 to 256"),
        ("serial --sizes 4 4", "--sizes: 4 is given twice"),
        ("serial --sizes 999", "sizes=(999,)"),
        ("serial --examples 0", "examples=0"),
    ],
)
def test_mistakes_are_one_line(words: str, message: str, capsys: pytest.CaptureFixture[str]):
    assert main(["theory", *words.split()]) == 2
    assert message in capsys.readouterr().err
