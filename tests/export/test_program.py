"""Programs of torch.export, loaded without this library."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from export.exporting import bytes_of, dense_model, mask_for, moved, unchecked

from looped.config import ModelConfig
from looped.export.program import export_program
from looped.models import LoopedModel, LoopedOutput, LoopedTransformer

ALONE = """
import sys
sys.modules["looped"] = None
import torch
program = torch.export.load(sys.argv[1]).module()
given = torch.load(sys.argv[2], weights_only=True)
torch.save([program(*arguments) for arguments in given], sys.argv[3])
try:
    program(torch.zeros(1, 13, dtype=torch.int64), torch.ones(1, 13, dtype=torch.bool), torch.tensor(1))
except Exception as error:
    print(error)
"""


def test_any_loop_count_without_this_library(tmp_path: Path) -> None:
    config = ModelConfig(
        vocab_size=20, output_size=20, max_seq_len=12, d_model=128, num_heads=2, num_loops=3, causal=True,
        positions="rotary", modulation="additive", halting="gate", qk_norm="head",
    )  # fmt: skip
    model = moved(LoopedTransformer(config))
    with unchecked():
        assert export_program(model, tmp_path / "x.pt2") < 1e-5
    assert (tmp_path / "x.pt2").stat().st_size <= 1.1 * bytes_of(model)
    arguments, wanted = [], []
    for batch, seq, loops in [(1, 1, 1), (1, 12, 50), (4, 7, 5)]:
        inputs = torch.arange(batch * seq).view(batch, seq) % 20
        mask = mask_for(inputs)
        arguments.append((inputs, mask, torch.tensor(loops)))
        with torch.no_grad():
            wanted.append(model(inputs, attention_mask=mask, num_loops=loops).logits)
    torch.save(arguments, tmp_path / "given.pt")
    command = [sys.executable, "-c", ALONE, *(tmp_path / name for name in ("x.pt2", "given.pt", "found.pt"))]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    for found, expected in zip(torch.load(tmp_path / "found.pt", weights_only=True), wanted, strict=True):
        assert (found - expected).abs().max() <= 1e-4 + 1e-5 * expected.abs().max()
    assert "12" in done.stdout  # the longest sequence is part of the program


def read(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


@pytest.mark.parametrize("loops", [1, 4, 16])
def test_unrolled_loops_share_their_weights(loops: int, tmp_path: Path) -> None:
    model = moved(dense_model(256))
    with unchecked():
        export_program(model, tmp_path / "x.pt2", num_loops=loops)
    assert (tmp_path / "x.pt2").stat().st_size <= 1.1 * bytes_of(model)
    assert not any(str(Path(__file__).parent).encode() in content for content in read(tmp_path / "x.pt2").values())
    inputs = torch.randn(3, 5, 8, generator=torch.Generator().manual_seed(0))
    program = torch.export.load(tmp_path / "x.pt2").module()
    with torch.no_grad():
        wanted = model(inputs, num_loops=loops).logits
    torch.testing.assert_close(program(inputs, torch.ones(3, 5, dtype=torch.bool)), wanted)


def test_training_and_the_model_stay_as_they_were(tmp_path: Path) -> None:
    model = dense_model(16).train()
    with unchecked():
        export_program(model, tmp_path / "x.pt2", num_loops=1)
    assert all(part.training for part in model.modules())
    assert all(weight.requires_grad for weight in model.parameters())


def test_a_program_that_differs_is_not_written(tmp_path: Path) -> None:
    with unchecked(), pytest.raises(ValueError, match="logits differ"):
        export_program(moved(dense_model(16, step=0.5)), tmp_path / "x.pt2")
    assert not any(tmp_path.iterdir())


def test_torch_can_export_and_save_the_model_itself(tmp_path: Path) -> None:
    model: LoopedModel = moved(dense_model(16)).requires_grad_(False)
    inputs = torch.ones(2, 5, 8)
    with unchecked():
        torch.export.save(torch.export.export(model, (inputs,)), tmp_path / "x.pt2")
        found = torch.export.load(tmp_path / "x.pt2").module()(inputs)
    assert isinstance(found, LoopedOutput)
    torch.testing.assert_close(found.logits, model(inputs).logits)
