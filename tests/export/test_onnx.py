"""ONNX files, compared with the model itself by onnxruntime."""

import json
from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir
import onnxruntime
import pytest
import torch
from export.exporting import bytes_of, dense_model, mask_for, moved, unchecked
from onnxruntime import quantization
from torch import Tensor

from looped.config import ModelConfig
from looped.export import onnx as exporter
from looped.export.onnx import export_onnx, quantised
from looped.models import LoopedModel, LoopedTransformer
from looped.strict import from_dict

LANGUAGE = ModelConfig(
    vocab_size=200, output_size=200, max_seq_len=30, d_model=128, num_heads=4, num_kv_heads=2, causal=True,
    positions="rotary", tie_embeddings=True, prelude_layers=1, coda_layers=1, num_loops=3, input_injection="concat",
    loop_norm=True, modulation="scale_gate", timestep="both", gate_offset=1,
)  # fmt: skip
VECTORS = ModelConfig(
    inputs="vectors", input_dim=6, output_size=7, max_seq_len=9, d_model=32, num_heads=2, num_loops=4,
    input_injection="add", positions="sinusoidal", positions_every_loop=True, modulation="table", max_loops=9,
    bias=True,
)  # fmt: skip


def run(file: Path | bytes, inputs: Tensor, mask: Tensor, loops: int | None = None) -> Tensor:
    """The logits that onnxruntime computes. It would warn that `num_loops` has a default and is no constant."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(file if isinstance(file, bytes) else str(file), options)
    feed = {"inputs": inputs.numpy(), "attention_mask": mask.numpy()}
    feed |= {} if loops is None else {"num_loops": torch.tensor(loops).numpy()}
    return torch.from_numpy(session.run(None, feed)[0])


def some_inputs(model: LoopedModel, batch: int, seq: int) -> Tensor:
    generator = torch.Generator().manual_seed(100 * batch + seq)
    if isinstance(model.embed, torch.nn.Embedding):
        return torch.randint(model.embed.num_embeddings, (batch, seq), generator=generator)
    return torch.randn(batch, seq, model.embed.in_features, generator=generator)


def compare(model: LoopedModel, file: Path, sizes: list[tuple[int, int]], counts: list[int], given: bool) -> None:
    """Equal to the model at every batch, length and loop count, and the counts differ from one another."""
    for batch, seq in sizes:
        inputs = some_inputs(model, batch, seq)
        mask = mask_for(inputs)
        seen = []
        for n in counts:
            with torch.no_grad():
                wanted = model(inputs, attention_mask=mask, num_loops=n).logits
            found = run(file, inputs, mask, n if given else None)
            assert (found - wanted).abs().max() <= 1e-4 + 1e-5 * wanted.abs().max(), (batch, seq, n)
            assert all((found - other).abs().max() > 1e-2 for other in seen)
            seen.append(found)


def nodes(content: bytes) -> list[str]:
    return [node.op_type for graph in ir.from_proto(onnx.load_from_string(content)).graphs() for node in graph]


@pytest.fixture(scope="module")
def language() -> LoopedTransformer:
    model = moved(LoopedTransformer(LANGUAGE))
    assert isinstance(model, LoopedTransformer)
    return model


@pytest.fixture(scope="module")
def any_loops(language: LoopedTransformer, tmp_path_factory: Any) -> Path:
    path = tmp_path_factory.mktemp("onnx") / "model.onnx"
    with unchecked():
        assert export_onnx(language, path) < 1e-5
    return path


def test_any_loop_count(language: LoopedTransformer, any_loops: Path) -> None:
    compare(language, any_loops, [(1, 1), (1, 30), (2, 7), (5, 12)], [1, 2, 3, 8, 50], given=True)
    inputs = some_inputs(language, 2, 7)
    mask = mask_for(inputs)
    assert torch.equal(run(any_loops, inputs, mask), run(any_loops, inputs, mask, 3))  # the model's, by default
    assert torch.isfinite(run(any_loops, inputs, mask, 0)).all()


def test_one_loop_node_holds_the_weights_once(language: LoopedTransformer, any_loops: Path) -> None:
    content = any_loops.read_bytes()
    assert nodes(content).count("Loop") == 1
    assert len(content) <= 1.1 * bytes_of(language)
    proto = onnx.load_from_string(content)
    onnx.checker.check_model(proto, full_check=True)
    assert [(x.name, [d.dim_param for d in x.type.tensor_type.shape.dim]) for x in proto.graph.input] == [
        ("inputs", ["batch", "seq"]), ("attention_mask", ["batch", "seq"]), ("num_loops", []),
    ]  # fmt: skip
    config = {x.key: x.value for x in proto.metadata_props}["config"]
    assert from_dict(ModelConfig, json.loads(config), "config") == LANGUAGE
    assert proto.producer_name == "looped"
    assert str(Path(exporter.__file__).parent.parent).encode() not in content  # no stack traces


def test_8_bits_in_the_body_of_the_loop(language: LoopedTransformer, any_loops: Path) -> None:
    content = quantised(any_loops.read_bytes())
    # 4 in each of 3 layers, 1 in the injection, 3 in the modulation, and the output
    assert nodes(content).count("MatMulInteger") == 17
    body = next(n for n in onnx.load_from_string(content).graph.node if n.op_type == "Loop").attribute[0].g
    assert [node.op_type for node in body.node].count("MatMulInteger") == 5
    assert len(content) <= 0.35 * bytes_of(language)
    inputs = some_inputs(language, 4, 20)
    mask = mask_for(inputs)
    for n in (1, 3, 8):
        with torch.no_grad():
            wanted = language(inputs, attention_mask=mask, num_loops=n).logits
        error = (run(content, inputs, mask, n) - wanted).norm() / wanted.norm()
        assert 1e-4 < error < 0.05, (n, error)


def test_export_says_how_far_8_bits_are_from_the_model(tmp_path: Path) -> None:
    with unchecked():
        error = export_onnx(moved(dense_model(32)), tmp_path / "x.onnx", num_loops=1, int8=True)
    assert 1e-4 < error < 0.1
    assert "MatMulInteger" in nodes((tmp_path / "x.onnx").read_bytes())


def test_products_that_stay_in_float32_are_refused(any_loops: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without its option, onnxruntime's quantiser leaves out the body of a Loop, and says nothing."""
    plain = quantization.quantize_dynamic
    monkeypatch.setattr(quantization, "quantize_dynamic", lambda proto, path, **options: plain(proto, path))
    with pytest.raises(ValueError, match=r"int8: \d+ of 17 matrix products have 8-bit weights; nothing is written"):
        quantised(any_loops.read_bytes())


def test_a_table_ends_the_run_beyond_its_rows(tmp_path: Path) -> None:
    model = moved(LoopedTransformer(VECTORS), by=0.2)
    with unchecked():
        export_onnx(model, tmp_path / "x.onnx")
    compare(model, tmp_path / "x.onnx", [(1, 9), (3, 4)], [1, 4, 9], given=True)
    inputs = some_inputs(model, 1, 4)
    with pytest.raises(Exception, match="out of data bounds"):
        run(tmp_path / "x.onnx", inputs, mask_for(inputs), 10)


def test_fixed_loops(tmp_path: Path) -> None:
    config = ModelConfig(
        vocab_size=50, output_size=50, max_seq_len=12, d_model=256, num_heads=4, core_layers=2, layer_order="reverse",
        norm="layer", norm_place="after", num_loops=2,
    )  # fmt: skip
    model = moved(LoopedTransformer(config))
    with unchecked():
        export_onnx(model, tmp_path / "x.onnx", num_loops=2)
    compare(model, tmp_path / "x.onnx", [(1, 1), (3, 12)], [2], given=False)
    content = (tmp_path / "x.onnx").read_bytes()
    assert "Loop" not in nodes(content)
    assert len(content) <= 1.1 * bytes_of(model)


@pytest.mark.parametrize("loops", [1, 4, 16])
def test_unrolled_loops_share_their_weights(loops: int, tmp_path: Path) -> None:
    model = moved(dense_model(256))
    with unchecked():
        export_onnx(model, tmp_path / "x.onnx", num_loops=loops)
    compare(model, tmp_path / "x.onnx", [(1, 1), (2, 9)], [loops], given=False)
    content = (tmp_path / "x.onnx").read_bytes()
    assert len(content) <= 1.1 * bytes_of(model)
    content = quantised(content)
    assert nodes(content).count("MatMulInteger") == 2 + 2 * loops
    assert len(content) <= 0.35 * bytes_of(model)


def test_a_file_that_differs_is_not_written(tmp_path: Path) -> None:
    """A block that reads the loop index from its context gets 0 in a Loop node."""
    with unchecked(), pytest.raises(ValueError, match=r"logits differ by .* at batch 2, length 5 and num_loops=3"):
        export_onnx(moved(dense_model(16, step=0.5)), tmp_path / "x.onnx")
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("changes", "loops", "message"),
    [
        ({"layer_order": "reverse", "core_layers": 2}, None, "layer_order='reverse'"),
        ({"cache": "first", "causal": True}, None, "kv_loops=1"),
        ({"lora_rank": 2}, None, "core: has weights of its own in each loop"),
        ({"halting": "act"}, 2, "halting='act'"),
        ({"graph_heads": ("edges",)}, 2, "graph_heads"),
        ({}, 0, "num_loops=0: expected at least 1"),
        ({"modulation": "table", "max_loops": 5}, 6, "num_loops=6: expected at most 5"),
    ],
)
def test_models_that_cannot_be_exported(
    changes: dict[str, Any], loops: int | None, message: str, tmp_path: Path
) -> None:
    model = LoopedTransformer(
        ModelConfig(vocab_size=9, output_size=9, max_seq_len=8, d_model=16, num_loops=3, **changes)
    )
    with pytest.raises(ValueError, match=message) as error:
        export_onnx(model, tmp_path / "x.onnx", num_loops=loops)
    assert "\n" not in str(error.value)
    assert not any(tmp_path.iterdir())


def test_half_precision_is_refused(tmp_path: Path) -> None:
    model = LoopedTransformer(ModelConfig(vocab_size=9, output_size=9, max_seq_len=8, d_model=16)).bfloat16()
    with pytest.raises(ValueError, match="weights of type bfloat16; expected float32"):
        export_onnx(model, tmp_path / "x.onnx")
