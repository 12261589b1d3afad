"""A model as an ONNX file, with the loop count as an input or fixed, in float32 or with 8-bit weights."""

import contextlib
import json
import logging
import tempfile
import warnings
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from looped.export.program import examples, largest_difference, trace
from looped.extras import need
from looped.files import write_atomic
from looped.models.looped_model import LoopedModel
from looped.strict import to_dict

INPUTS = ("inputs", "attention_mask", "num_loops")
LARGEST = 2**31
"""Bytes that an ONNX file can hold."""


def export_onnx(model: LoopedModel, path: Path | str, *, num_loops: int | None = None, int8: bool = False) -> float:
    """Write an ONNX file with the inputs `inputs` and `attention_mask` (batch, seq) and the output `logits`.

    The weights are in the file once. With `num_loops=None` the core is one Loop node, and the int64 number `num_loops`
    is an optional input; the model's is its default. Without loops (0) the prelude's output is decoded. A file of a
    model with a learned table ends with an error of onnxruntime (Gather) if it runs more loops than the table has rows.

    Args:
        num_loops: a fixed count, unrolled; None makes it an input.
        int8: store the weights of all matrix products, and the token embedding, in 8 bits. Products are computed in 8
            bits too; the inputs of each are quantised when it runs.

    Returns:
        The largest difference of logits that was seen in a check against the model, as a share of the largest logit.

    Raises:
        ValueError: the model has a part that a file cannot contain, more than 2 GiB of weights, or other weights than
            float32; a package is missing; the file would compute something else, or have weights that are not 8 bits.
    """
    for package in ("onnx", "onnxscript", "onnxruntime"):
        need(package, "export to ONNX")
    weights = list(model.parameters())
    if kinds := {str(weight.dtype).removeprefix("torch.") for weight in weights} - {"float32"}:
        raise ValueError(f"model: has weights of type {', '.join(sorted(kinds))}; expected float32 for ONNX")
    if (size := sum(weight.nbytes for weight in weights)) > 0.95 * LARGEST:
        raise ValueError(f"model: has {size:,} bytes of weights; expected less than 2 GiB for one ONNX file")
    content = _onnx(model, num_loops).SerializeToString()
    worst = largest_difference(_runner(content), examples(model, num_loops))
    if int8:
        content = quantised(content)
        worst = largest_difference(_runner(content), examples(model, num_loops), exact=False)
    write_atomic(Path(path), content)
    return worst


def _onnx(model: LoopedModel, num_loops: int | None) -> Any:
    """The file's content as an `onnx.ModelProto`."""
    import onnx_ir as ir
    from onnx_ir.passes.common import ClearMetadataAndDocStringPass, CommonSubexpressionEliminationPass
    from onnxscript.optimizer import optimize

    program = trace(model, num_loops)
    names = INPUTS if num_loops is None else INPUTS[:2]
    axes = ({0: "batch", 1: "seq"}, {0: "batch", 1: "seq"}, None)[: len(names)]
    with _quiet():
        exported = torch.onnx.export(
            program, dynamo=True, verbose=False, optimize=False, input_names=names, output_names=["logits"],
            dynamic_shapes=axes,
        )  # fmt: skip
    assert exported is not None
    graph = exported.model
    # A weight that several loops read is transposed once in each. Only one transposition can become part of the weight.
    CommonSubexpressionEliminationPass()(graph)
    optimize(graph)
    ClearMetadataAndDocStringPass()(graph)  # stack traces, which would be larger than a small model
    if num_loops is None:
        count = graph.graph.inputs[2]
        count.const_value = ir.tensor(model.num_loops, dtype=ir.DataType.INT64, name=count.name)
        graph.graph.register_initializer(count)
    graph.producer_name, graph.producer_version = "looped", version("looped")
    if config := getattr(model, "config", None):
        graph.metadata_props["config"] = json.dumps(to_dict(config))
    return ir.to_proto(graph)


def quantised(content: bytes) -> bytes:
    """The same ONNX file with 8-bit weights in all its matrix products, also in the body of a Loop.

    Raises:
        ValueError: a product of weights stays in float32.
    """
    import onnx_ir as ir
    from onnxruntime.quantization import quantize_dynamic
    from onnxruntime.quantization.quant_utils import add_pre_process_metadata

    model = ir.from_proto(_load(content))
    products = [node for graph in model.graphs() for node in graph if node.op_type in ("MatMul", "Gemm")]
    of_activations = [node.name for node in products if not _is_weight(node.inputs[1])]
    proto = _load(content)
    add_pre_process_metadata(proto)  # the exporter has done what the warning about its lack asks for
    with tempfile.TemporaryDirectory() as folder, _quiet():
        path = Path(folder) / "int8.onnx"
        quantize_dynamic(
            proto, path, nodes_to_exclude=of_activations,
            # Weights of a Loop's body lie outside of it. A tied output matrix is the transposed embedding.
            extra_options={"EnableSubgraph": True, "MatMulConstBOnly": False},
        )  # fmt: skip
        content = path.read_bytes()
    nodes = [node.op_type for graph in ir.from_proto(_load(content)).graphs() for node in graph]
    wanted, found = len(products) - len(of_activations), nodes.count("MatMulInteger")
    if found != wanted or not wanted:
        raise ValueError(f"int8: {found} of {wanted} matrix products have 8-bit weights; nothing is written")
    return content


def _is_weight(value: Any) -> bool:
    """Whether a value of a graph is a stored tensor, perhaps transposed."""
    producer = value.producer()
    if producer is not None and producer.op_type == "Transpose":
        return _is_weight(producer.inputs[0])
    return value.is_initializer()


def _load(content: bytes) -> Any:
    import onnx

    return onnx.load_from_string(content)


def _runner(content: bytes) -> Any:
    """The file as a function of tensors, computed by onnxruntime on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])

    def run(*arguments: Tensor) -> Tensor:
        feed = {name: x.cpu().numpy() for name, x in zip(INPUTS, arguments, strict=False)}
        return torch.from_numpy(session.run(["logits"], feed)[0]).to(arguments[0].device)

    return run


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hide what the exporters say about packages that a model does not need, and about themselves."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
