"""Edit distance and LCS as weights against rapidfuzz, in whole numbers and in the library's model."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from rapidfuzz.distance import LCSseq, Levenshtein

from looped.tasks import TASKS
from looped.tasks.base import Task
from looped.theory.circuit import RunnableLayer
from looped.theory.edit_distance import cells, edit_distance, encode, largest_number, lcs, loops_for
from looped.theory.weights import write

ROOT = Path(__file__).resolve().parents[2]
Pair = tuple[str, str]


def random_pairs(seed: int, count: int, longest: int) -> list[Pair]:
    """Pairs of any lengths, a third of them near-copies."""
    rng, pairs = np.random.default_rng(seed), []
    for _ in range(count):
        x, y = ("".join(rng.choice([*"abcxyz"], rng.integers(1, longest + 1))) for _ in range(2))
        at = int(rng.integers(len(x)))
        pairs.append((x, x[:at] + y[:1] + x[at + 1 :] if rng.random() < 1 / 3 else y))
    return pairs


def right(program, pairs: list[Pair], expected: list[int], further: int) -> np.ndarray:
    """Whether the answers in whole numbers are right: (offset, pair), from one loop less than needed to `further`."""
    ids, ends = encode(pairs)
    needed = np.array([loops_for(len(x + y)) for x, y in pairs])
    states = program.states(ids, loops=int(needed.max()) + further, dtype="int64")
    rows = np.arange(len(pairs))
    answers = np.stack([program.output(state[rows, ends][:, None]).argmax(-1)[:, 0] for state in states])
    return np.stack([answers[needed - 1 + offset, rows] == expected for offset in range(-1, further + 1)])


@pytest.mark.parametrize(("gap", "replace"), [(1, 1), (2, 3), (1, 2), (3, 4), (2, 0)])
def test_whole_numbers_of_any_costs(gap, replace):
    pairs = random_pairs(gap * 10 + replace, 40, 11)
    expected = [Levenshtein.distance(*pair, weights=(gap, gap, replace)) for pair in pairs]
    found = right(edit_distance(3 * 40, 1, gap=gap, replace=replace), pairs, expected, 17)
    assert found[1:].all()
    assert not found[0].all()


def test_whole_numbers_of_lcs():
    pairs = random_pairs(0, 40, 12)
    found = right(lcs(20, 1), pairs, [LCSseq.similarity(*pair) for pair in pairs], 17)
    assert found[1:].all()
    assert not found[0].all()


def of_length(name: str, length: int) -> Task:
    return TASKS[name](TASKS[name].Config(length=length))  # pyright: ignore[reportCallIssue]


def test_counts():
    for program, units, weights in (
        (edit_distance(9, 1), 30, 145),
        (lcs(9, 1), 23, 103),
        (edit_distance(9, 1, plateau=True), 43, 224),
    ):
        cost = program.circuit.cost()
        assert (cost.registers, cost.layers, cost.heads, cost.head_size) == (15, 1, 2, 2)
        assert (cost.units, cost.non_zeros) == (units, weights)
        assert sum(layer.non_zeros() for layer in program.prelude) == 24


@pytest.mark.parametrize("name", ["edit_distance", "lcs"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_the_librarys_model_on_its_own_task(name, dtype):
    task = of_length(name, 9)
    batch = task.batch("test", 0, 60, seed=0)
    needed = loops_for(2 * 9 + 2)
    program = (lcs if name == "lcs" else edit_distance)(task.spec.output_size, needed)
    model = write(program, task.spec.max_seq_len).to(dtype)
    with torch.no_grad():
        output = model(batch.inputs, attention_mask=batch.attention_mask, num_loops=needed + 40, loop_logits="all")
    accuracy = [float(task.score(batch, logits)["accuracy"].mean()) for logits in output.loop_logits]
    assert accuracy[needed - 1 :] == [1.0] * 41
    assert accuracy[needed // 2] < 0.5


def test_the_layer_equals_the_circuit():
    """The states of the model are those of the circuit in whole numbers, after every loop."""
    pairs = random_pairs(3, 8, 6)
    ids, _ = encode(pairs)
    program = edit_distance(30, 16)
    with torch.no_grad():
        states = write(program, ids.shape[1])(torch.from_numpy(ids), loop_states=True).loop_states
    assert (states.numpy() == np.stack(list(program.states(ids, dtype="int64")))).all()


def table(x: str, y: str, gap: int, replace: int) -> dict[tuple[int, int], int]:
    """The textbook's table."""
    d = {(0, j): gap * j for j in range(len(y) + 1)} | {(i, 0): gap * i for i in range(len(x) + 1)}
    for i, a in enumerate(x, 1):
        for j, b in enumerate(y, 1):
            d[i, j] = min(d[i - 1, j] + gap, d[i, j - 1] + gap, d[i - 1, j - 1] + replace * (a != b))
    return d


def test_every_cell_is_in_the_state_at_its_loop():
    for x, y in (("kitten", "sitting"), ("abcab", "b"), ("z", "zzzy")):
        ids, _ = encode([(x, y)])
        states = np.stack(list(edit_distance(40, loops_for(len(x + y))).states(ids, dtype="int64")))[:, 0]
        found = list(cells(states, x, y))
        assert {(i, j): value for _, i, j, value in found} == table(x, y, 2, 3)
        assert all(loop == i + j + 1 for loop, i, j, _ in found)


@pytest.mark.parametrize(
    ("costs", "message"),
    [
        ({"gap": 2, "replace": 5}, "replace=5: expected 0 to 4"),
        ({"gap": 0, "replace": 0}, "gap=0: expected 1 to 100"),
        ({"gap": 1, "replace": -1}, "replace=-1: expected 0 to 2"),
        ({"gap": 101, "replace": 1}, "gap=101: expected 1 to 100"),
    ],
)
def test_impossible_costs(costs, message):
    with pytest.raises(ValueError, match=message):
        edit_distance(9, 1, **costs)


def test_largest_number_is_that_of_the_run():
    pair, loops = ("a" * 12, "b" * 11), loops_for(23)
    ids, _ = encode([pair])
    program = edit_distance(9, loops)
    layer = RunnableLayer(program.circuit, program.circuit.layers[0], np.float32, 0)
    state = RunnableLayer(program.circuit, program.prelude[0], np.float32, 0)(program.start(ids, dtype="float32"), {})
    for _ in range(loops):
        state = layer(state, {})
    assert 0.9 * largest_number(ids.shape[1], loops) < layer.largest <= largest_number(ids.shape[1], loops)


def test_softmax_needs_plateaus():
    task = of_length("edit_distance", 16)
    batch = task.batch("test", 0, 24, seed=0)
    right = {}
    for plateau in (True, False):
        program = edit_distance(task.spec.output_size, loops_for(34), plateau=plateau)
        for dtype in (torch.float64, torch.float32):
            model = write(program, task.spec.max_seq_len, inverse_temperature=12.0).to(dtype)
            with torch.no_grad():
                logits = model(batch.inputs, attention_mask=batch.attention_mask).logits
            right[plateau, dtype] = float(task.score(batch, logits)["accuracy"].mean())
    assert right[True, torch.float64] == right[True, torch.float32] == 1
    assert right[False, torch.float64] < 0.9


def test_the_chapter_has_the_stored_numbers():
    stored = json.loads((ROOT / "results/constructions/edit-distance/checks/strings.json").read_text())
    chapter = (ROOT / "docs/constructions.md").read_text()
    assert {"date", "machine", "torch"} <= set(stored["environment"])
    assert all(row["wrong"] == 0 for row in stored["whole"])
    assert sum(row["pairs"] for row in stored["whole"]) == 9000
    assert "9,000 random pairs" in chapter
    assert sum(row["right"] for row in stored["model"] if row["dtype"] == "float64") >= 2500
    for row in stored["model"]:
        assert row["right"] == row["examples"]
        assert f"| {row['length']} | {row['loops']} | {row['right']:,} of {row['examples']:,} |" in chapter
    for row in stored["sizes"]:
        size = edit_distance(9, 1, gap=row["gap"], replace=row["replace"], plateau=row["plateau"]).circuit.cost()
        assert (row["units"], row["non_zeros"]) == (size.units, size.non_zeros)
        assert f"| {row['units']} | {row['non_zeros']} | n + m + 2 |" in chapter
    for row in stored["softmax"]:
        assert f"{100 * row['accuracy']:.1f}" in chapter
        assert not row["plateaus"] or row["inverse_temperature"] < 12 or row["accuracy"] == 1
    for row in stored["bfloat16"]:
        assert f"{100 * row['accuracy']:.1f}% at length {row['length']}" in chapter
    assert f"{largest_number(204, 204):,} at length 100" in chapter
    wavefront = json.loads((ROOT / "results/constructions/edit-distance/wavefront/wavefront.json").read_text())
    assert wavefront["answer"] == 8
    assert {(i, j): value for _, i, j, value in wavefront["cells"]} == table("kitten", "sitting", 2, 3)
