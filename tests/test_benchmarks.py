"""The plain reference computes the library's function, and recomputation keeps the memory that it promises."""

import json

import torch
from tolerance import assert_close

from benchmarks.reference import PublishedTMLT, copy_weights
from benchmarks.time_to_accuracy import ROOT, line, table
from benchmarks.training_step import VOCAB, config, peak_states
from looped.models import LoopedTransformer


def test_reference_and_library_agree_in_outputs_and_gradients():
    torch.manual_seed(0)
    reference = PublishedTMLT(VOCAB, 126, 32, 4, 3)
    with torch.no_grad():
        for parameter in reference.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    model = LoopedTransformer(config(3, 32))
    copy_weights(reference, model)
    inputs = torch.randint(VOCAB, (2, 20))
    expected, actual = reference(inputs), model(inputs).logits
    assert expected.std() > 0.1
    assert_close(actual, expected)
    expected.square().sum().backward()
    actual.square().sum().backward()
    found, wanted = dict(model.named_parameters()), dict(reference.named_parameters())
    for ours, theirs in (
        ("core.0.feedforward.up.weight", "block.up.weight"),
        ("modulation.hidden.weight", "hidden.weight"),
        ("head.weight", "head.weight"),
    ):
        actual, expected = found[ours].grad, wanted[theirs].grad
        assert actual is not None
        assert expected is not None
        scale = expected.abs().max()
        assert scale > 0
        assert_close(actual / scale, expected / scale)


def test_without_recomputation_memory_grows_with_the_loops():
    assert peak_states(8, "none") - peak_states(4, "none") > 4 * 15


def test_recomputation_per_loop_keeps_one_state():
    growth = (peak_states(64, "loop") - peak_states(8, "loop")) / 56
    assert 0.9 < growth < 1.2  # the modulation of a loop counts too


def test_nested_recomputation_hardly_grows():
    assert peak_states(64, "nested") < 1.5 * peak_states(8, "nested")


def test_time_to_accuracy_takes_medians_over_seeds():
    def run(version: str, seconds: float, reached: bool) -> dict[str, object]:
        case = {"case": "p-hop-looped", "version": version, "reached": reached}
        return {**case, "cpu_seconds": seconds, "steps": 10 * seconds, "test": 0.5}

    rows = [run("old", t, False) for t in (9, 60, 12)] + [run("new", t, t < 5) for t in (3, 4, 100)]
    assert table(rows) == {
        "p-hop-looped": {
            "target": 0.99,
            "old: runs that reached it": "0 of 3",
            "old: median cpu_seconds": 12,
            "old: median steps": 120,
            "old: median test": 0.5,
            "new: runs that reached it": "2 of 3",
            "new: median cpu_seconds": 4,
            "new: median steps": 40,
            "new: median test": 0.5,
            "old / new": 3.0,
        }
    }


def test_the_notes_state_the_stored_times():
    folder = ROOT / "results/bench"
    notes = (folder / "notes.md").read_text()
    stored = json.loads((folder / "time_to_accuracy.json").read_text())
    medians = table(stored["runs"])
    assert medians == stored["medians"]
    assert all(line(case, values) in notes for case, values in medians.items())
