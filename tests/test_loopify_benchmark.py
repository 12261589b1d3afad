"""The benchmarks of looped pretrained models: layers left out, block influence, and the tables of a training."""

import csv
import dataclasses
import itertools
import json
from types import SimpleNamespace

import pytest
import torch
from model_cases import TINY, build, inputs_for

from benchmarks.healing import BEGIN, END, table
from benchmarks.loopify import block_influence, perplexity, ways, without
from looped.nn.protocols import Context

STANDARD = dataclasses.replace(TINY, core_layers=14, num_loops=1, causal=True, output_size=11)


@torch.no_grad()
def test_layers_are_left_out_and_their_influence_measured():
    model, tokens = build(STANDARD), inputs_for(STANDARD)[0][0]
    x = model.embed(tokens[None, :-1]) + model.positions.table[: len(tokens) - 1]
    states = [x]
    mask = torch.ones(len(tokens) - 1, len(tokens) - 1, dtype=torch.bool).tril()
    context = Context(mask=mask[None, None])
    for block in model.core:
        states.append(block(states[-1], context))
    cosines = [torch.cosine_similarity(a, b, dim=-1).mean() for a, b in itertools.pairwise(states)]
    assert block_influence(model, tokens) == pytest.approx([1 - float(cosine) for cosine in cosines], abs=1e-6)
    assert min(cosines) < 0.99

    kept = without(model, range(2, 14))
    assert kept.config.core_layers == 2
    expected = model.head(model.norm(states[2]))
    torch.testing.assert_close(kept(tokens[None, :-1]).logits, expected.float(), rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_the_last_way_of_full_rank_is_the_source():
    model, tokens = build(STANDARD).float(), inputs_for(STANDARD)[0][0]
    *_, (name, core, loops, made) = ways(model)
    assert (name, core, loops) == ("average, rank 16", range(4, 10), 2)
    assert perplexity(made, tokens) == pytest.approx(perplexity(model, tokens), rel=1e-4)


def test_tables_of_two_trainings(tmp_path, capsys):
    for name, scores in (("source", (30.0, 20.0, 10.0)), ("looped", (40.0, 25.0))):
        (tmp_path / name).mkdir()
        rows = [
            {"cpu_minutes": 3.5 * i, "minutes": 9.0 * i, "steps": i, "tokens": 512 * i, "validation_perplexity": score}
            for i, score in enumerate(scores)
        ]
        (tmp_path / name / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "source/end.json").write_text(json.dumps({"test_perplexity": {"1": 11.0, "2": 12.0}}))
    notes = tmp_path / "notes.md"
    notes.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    folders = [tmp_path / "source", tmp_path / "looped"]
    for _ in range(2):
        table(SimpleNamespace(folders=folders, out=tmp_path / "healing.csv", notes=notes, step=3))  # type: ignore[arg-type]
    text = notes.read_text()
    assert text.startswith(f"before\n{BEGIN}\n| minutes of the processor | source | looped |")
    assert text.endswith(f"{END}\nafter\n")
    assert "old" not in text
    for line in ("| 0 | 30.0 | 40.0 |", "| 3 | 20.0 | 25.0 |", "| 6 | 10.0 |  |", "|  | 11.0 | 12.0 |"):
        assert line in text
    with (tmp_path / "healing.csv").open() as file:
        assert [row["run"] for row in csv.DictReader(file)] == ["source"] * 3 + ["looped"] * 2
