"""`looped inspect`: its numbers against evaluation and the tensors they are made of, its page, and mistakes."""

import json
import re
import shlex
from pathlib import Path

import pytest
import torch

from looped.analysis.measure import MEASURES, other_starts, take_sample
from looped.analysis.states import motion, states
from looped.cli import main
from looped.evaluation.scores import evaluate
from looped.tasks import TASKS
from looped.training import load_run

SMALL = (
    "--model.d-model 16 --model.num-heads 2 --optim.warmup-steps 2 --optim.learning-rate 0.02 --train.steps 20 "
    "--train.batch-size 8 --train.eval-examples 8 --train.device cpu --train.precision fp32 --train.compile False "
    "--train.workers 0 "
)
RUNS = {
    "strings": "edit-distance-small --task.length 4 --model.num-loops 3 --model.modulation table --model.max-loops 5 "
    "--model.gate-offset 1",
    "fraction": "lcs-looped@cpu --task.length 4 --model.num-loops 3 --model.modulation scale_gate "
    "--model.timestep fraction --model.core-layers 2",
    "boards": "sudoku-looped@cpu --task.pool 200 --model.num-loops 2 --model.attention linear",
    "points": "in-context-tree-looped@cpu --task.dim 3 --task.start-dim 3 --task.points 6 --task.start-points 6 "
    "--model.num-loops 2",
    "text": "language-standard --task.bpe-size 300 --task.train-files text.txt --task.context 16 --model.core-layers 1",
}
FIGURES = {"attention", "change", "cosines", "jacobian", "lens", "paths", "score", "starts_answers", "starts_distance"}

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("home")
    (folder / "text.txt").write_text("".join(f"{n} men and {n} boats\n\n" for n in range(300)))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name, words in RUNS.items():
            assert main(["train", *shlex.split(f"{words} {SMALL}"), "--out", name]) == 0
    return folder


@pytest.fixture(autouse=True)
def at_home(home: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(home)


def inspected(words: str) -> tuple[dict, str, set[str]]:
    """inspect.json, report.md and the names of the figures, after `looped inspect`."""
    assert main(["inspect", *shlex.split(words), "--out", "out"]) == 0
    out = Path("out")
    visualisations = {path.stem for path in out.glob("figures/*.png")}
    page = (out / "report.html").read_text()
    text = (out / "report.md").read_text()
    found = json.loads((out / "inspect.json").read_text(), parse_constant=lambda name: pytest.fail(f"{name} in JSON"))
    shown = set(re.findall(r"figures/(\w+)\.png", text))
    assert shown <= visualisations
    assert page.count('role="img"') == len(shown)
    for word in ("nan", "None", "inf "):
        assert word not in text
    return found, text, shown


def test_strings(capsys: pytest.CaptureFixture[str]):
    found, text, shown = inspected("strings --examples 40 --group 4")
    assert capsys.readouterr().out == "out/report.html\n"
    assert shown == FIGURES | {"entropy", "keys", "modulation"}
    assert (found["loops"], found["trained_loops"], found["examples"]) == (5, 3, 40)  # the table has 5 rows

    config, model, _ = load_run(Path("strings"))
    task = TASKS[config.task.name](config.task)
    rows = list(evaluate(model, task, loops=range(1, 6), examples=40, groups=["4"]))
    assert found["score"]["value"] == [row["value"] for row in rows]
    assert found["score"]["low"] == [row["low"] for row in rows]

    batch = task.batch("test", 0, 40, seed=0, group="4")
    loop = model.loop(batch.inputs, attention_mask=batch.attention_mask, num_loops=5)
    h = states(loop, 5)
    change = motion(h, batch.attention_mask).change
    assert change.min() > 0
    assert found["motion"]["change"]["middle"] == pytest.approx(change.median(1).values.tolist(), rel=0.02)
    logits = torch.stack([loop.decode(state)[batch.mask] for state in h[1:]])
    same = (logits.argmax(-1) == logits[-1].argmax(-1)).double().mean(1)
    assert found["answers"]["agrees"] == pytest.approx(same.tolist())
    right = logits.softmax(-1)[:, range(40), batch.targets[batch.mask]].mean(1)
    assert found["answers"]["target"] == pytest.approx(right.tolist(), rel=1e-4)
    assert len(found["attention"]["maps"]) == len(found["attention"]["shown"]) == 3  # loops 1, 3, 5
    assert found["jacobian"]["loop"] == [1, 2, 3, 4, 5]

    wanted = f"In loop 3, the last of training, the state still moves by {found['motion']['change']['middle'][2]:.0%}"
    assert wanted in text
    for part in ("group 4: 40 examples", "A disturbed input", "with noise of 0.1, ", "Modulation by loop"):
        assert part in text


def test_other_initial_states_only_with_input_injection():
    found, text, shown = inspected("points --examples 30")
    assert shown == FIGURES | {"keys"}
    assert found["loops"] == 8
    assert "## Other initial states" in text
    assert "Asymptotic alignment after loop 8: " in text
    starts = [row["start"] for row in found["starts"]["rows"]]
    assert starts == ["a Gaussian state", "the last state of another example"]
    assert found["motion"]["change"]["middle"][0] is None  # from zero
    assert all(value > 0 for value in found["motion"]["change"]["middle"][1:])
    config, model, _ = load_run(Path("points"))
    task = TASKS[config.task.name](config.task)
    sample = take_sample(model, task, loops=8, examples=30, group=None)
    loop = sample.loop(sample.batch)
    usual = states(loop, 8)
    other = states(loop, 8, usual[-1].roll(1, 0))
    mine, others = (loop.decode(h[1])[sample.batch.mask][:, 0] for h in (usual, other))
    expected = (mine - others).norm() / mine.norm()
    assert expected > 0
    assert found["starts"]["rows"][1]["answers"][0] == pytest.approx(expected.item(), rel=1e-3)


def test_a_fraction_of_the_loops_is_inspected_as_trained():
    found, text, shown = inspected("fraction --examples 5 --split validation --seed 3")
    assert (found["loops"], found["split"], found["seed"], found["group"]) == (3, "validation", 3, None)
    assert "training distribution: 5 examples of the validation split" in text
    assert found["attention"]["rows"] == ["layer 1", "layer 2"]
    assert len(found["modulation"]["attention_gate"]) == 2
    assert found["score"]["beyond"] == [0, 0]
    assert "layers" in shown
    assert "After layer 1 of 2 in loop 3, " in text or "After layer 2 of 2 in loop 3, 100% of the answers" in text
    assert found["layers"]["agrees"][-1] == 1
    for name in ("target", "entropy"):  # the last layer's answers are those of the last loop of training
        assert found["layers"][name][-1] == pytest.approx(found["answers"][name][2])
        assert found["layers"][name][0] != pytest.approx(found["answers"][name][2])


def test_boards_and_one_example():
    found, text, shown = inspected("boards --examples 1 --loops 20")
    assert shown == FIGURES | {
        "entropy"
    }  # linear attention has no shares, and without modulation that figure is absent
    assert found["attention"]["kind"] == "linear"
    assert found["jacobian"]["loop"][0] == 1
    assert found["jacobian"]["loop"][-1] == 20
    assert 2 in found["jacobian"]["loop"]
    assert len(found["components"]["paths"]) == 6
    assert found["score"]["beyond"] == [None, None]
    assert "these examples do not show whether" in text


def test_text_and_a_single_loop():
    found, text, _ = inspected("text --examples 4 --loops 1")
    assert found["trained_loops"] == 1
    assert len(found["score"]["value"]) == 1
    assert found["motion"]["turn"]["middle"] == []
    assert re.search(r"Test perplexity: [\d.]+ after loop 1, the only one of training\.", text)


def test_fewer_loops_than_in_training_into_the_run_folder():
    assert main(["inspect", "strings", "--loops", "2", "--examples", "9", "--seed", "5"]) == 0
    text = Path("strings/inspect/report.md").read_text()
    assert "2 loops (3 in training)" in text
    assert "last of training" not in text
    found = json.loads(Path("strings/inspect/inspect.json").read_text())
    config, model, _ = load_run(Path("strings"))
    sample = take_sample(model, TASKS[config.task.name](config.task), loops=2, examples=9, group=None, seed=5)
    for measure in MEASURES.values():  # the same again
        numbers = measure(sample)
        assert json.loads(json.dumps(numbers)) == {name: found[name] for name in numbers}
    assert main(["report", "strings", "--out", "page"]) == 0  # what lies in the folder is in nobody's way


def test_noise_is_relative_to_the_input():
    config, model, _ = load_run(Path("strings"))
    sample = take_sample(model, TASKS[config.task.name](config.task), loops=3, examples=16, group=None)
    rows = other_starts(sample)["starts"]["rows"]
    first = [row["distance"]["middle"][0] for row in rows]
    assert [row["start"] for row in rows] == ["noise of 0.01", "noise of 0.1", "noise of 1"]
    assert 5 < first[1] / first[0] < 20


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("nowhere", ("nowhere: not a run folder",)),
        ("empty", ("empty: no checkpoint yet",)),
        ("strings --loops 0", ("loops=0", "1 to 5, for which the model has weights")),
        ("strings --loops 6", ("loops=6", "1 to 5, for which the model has weights")),
        ("boards --loops 0", ("loops=0: expected at least 1",)),
        ("strings --examples 0", ("examples=0: expected at least 1",)),
        ("strings --examples 9999999999", ("examples=9999999999: expected at least 1, at most 100000",)),
        ("strings --group 9", ("group='9': expected one of 4",)),
        ("strings --split train", ("--split", "'train'")),
        ("strings --out text.txt", ("text.txt", "a file; expected a folder")),
    ],
)
def test_mistakes_are_one_clear_line(words: str, says: tuple[str, ...], capsys: pytest.CaptureFixture[str]):
    Path("empty").mkdir(exist_ok=True)
    Path("empty/config.json").write_text(Path("strings/config.json").read_text())
    assert main(["inspect", *words.split()]) == 2
    out, error = capsys.readouterr()
    assert out == ""
    assert error.startswith("looped: error: ")
    assert error.count("\n") == 1
    for part in says:
        assert part in error
