"""A model as a program of torch.export: tokens and a mask in, logits out. ONNX files are made from the same program."""

import copy
import tempfile
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch._higher_order_ops import while_loop

from looped.files import replacing
from looped.models.forward_pass import Pass
from looped.models.looped_model import Inputs, LoopedModel
from looped.nn.modulation import by_layer
from looped.nn.protocols import graph_heads
from looped.strict import at_least

TRACES = ("stack_trace", "nn_module_stack", "torch_fn", "source_fn_stack", "from_node")
"""torch's notes on the origin of each operation: local paths, and most of a graph's size."""
TOLERANCE = 1e-4, 1e-5
"""Largest difference of an exported model's logits: absolute, and relative to the largest logit."""


class FixedLoops(nn.Module):
    """A model with a fixed number of loops, one after another."""

    def __init__(self, model: LoopedModel, num_loops: int) -> None:
        super().__init__()
        self.model, self.num_loops = model, num_loops

    def forward(self, inputs: Inputs, attention_mask: Bool[Tensor, "batch seq"]) -> Float[Tensor, "batch seq output"]:
        """The logits after the last loop."""
        return self.model(inputs, attention_mask=attention_mask, num_loops=self.num_loops).logits


class AnyLoops(nn.Module):
    """A model with the number of loops as an input. The core is in the program once, in a `while_loop`."""

    def __init__(self, model: LoopedModel) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, inputs: Inputs, attention_mask: Bool[Tensor, "batch seq"], num_loops: Int[Tensor, ""]
    ) -> Float[Tensor, "batch seq output"]:
        """The logits after the last loop."""
        model = self.model
        shared = Pass(model, inputs, attention_mask, None, 1, None, None)
        layers = range(len(model.core))
        vectors: Tensor | None = None
        if model.modulation is not None:
            loops = model.max_loops or num_loops.item()
            torch._check(loops >= 0)
            vectors = model.modulation(loops, inputs.device)

        def unfinished(t: Tensor, state: Tensor) -> Tensor:
            return t < num_loops

        def step(t: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
            of_layers: list[dict[str, Tensor]] = [{} for _ in layers]
            if vectors is not None:
                of_layers = by_layer(vectors.index_select(0, t[None])[0], model.modulation.names)
            contexts = [shared.shared._replace(modulation=of_layer) for of_layer in of_layers]
            return t + 1, model.run_core(state, contexts, layers)

        # Copied, because a loop may not start from a tensor that its body also reads, such as the embedded input.
        start = torch.zeros((), dtype=torch.int64, device=inputs.device), shared.initial.clone()
        _, state = while_loop(unfinished, step, start)
        return shared.decode(state, 0)


class Example(NamedTuple):
    """Inputs of an exported model, and the logits that the model itself gives."""

    arguments: tuple[Tensor, ...]
    num_loops: int
    logits: Float[Tensor, "batch seq output"]


def trace(model: LoopedModel, num_loops: int | None) -> torch.export.ExportedProgram:
    """The model as a program. Batch and length are free, up to the model's max_seq_len.

    Args:
        num_loops: a fixed count; None makes it the third input of the program.

    Raises:
        ValueError: the model has a part that a program cannot contain, or fewer loops.
    """
    check_exportable(model, num_loops)
    plain = copy.deepcopy(model).eval().requires_grad_(False)
    plain.compiled = False
    arguments = next(examples(model, num_loops)).arguments
    longest = model.max_seq_len
    seq = None if longest == 1 else torch.export.Dim("seq", min=1, max=longest)
    dims = {0: torch.export.Dim("batch", min=1), 1: seq}
    wrapped = AnyLoops(plain) if num_loops is None else FixedLoops(plain, num_loops)
    shapes = (dims, dims, None)[: len(arguments)]
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.export.export(wrapped.eval(), arguments, dynamic_shapes=shapes)


def check_exportable(model: LoopedModel, num_loops: int | None) -> None:
    """Raise ValueError for a model that cannot be exported with these loops."""
    at_least(1, num_loops=num_loops)
    blocks = [block for part in model.sections.values() for block in part]
    if any(graph_heads(block) for block in blocks):
        raise ValueError("graph_heads: their matrices come with the input; expected a model without them to export")
    if model.halting == "act":
        raise ValueError("halting='act': every token has its own number of loops; expected 'none' or 'gate' to export")
    if num_loops is not None:
        return
    fixed = "expected a fixed num_loops to export"
    if model.layer_order != "cycle":
        raise ValueError(f"layer_order={model.layer_order!r}: the loops are no repetition of one step; {fixed}")
    if model.kv_loops is not None:
        raise ValueError(f"kv_loops={model.kv_loops}: loops pass on keys and values besides the state; {fixed}")
    if any(hasattr(block, "max_loops") for block in model.core):
        raise ValueError(f"core: has weights of its own in each loop; {fixed}")


def examples(model: LoopedModel, num_loops: int | None) -> Iterator[Example]:
    """Inputs of several sizes, with padding, and with loop counts if they are an input. The first has 2 sequences.

    Raises:
        ValueError: the model cannot run so many loops.
    """
    generator = torch.Generator().manual_seed(0)
    longest = min(model.max_seq_len or 32, 32)
    most = model.max_loops or 8
    counts = [min(n, most) for n in (3, 1, 8, model.num_loops)] if num_loops is None else [num_loops]
    for i, (batch, seq) in enumerate([(2, 5), (1, 1), (3, longest), (1, longest)]):
        size, n = (batch, min(seq, longest)), counts[i % len(counts)]
        if isinstance(model.embed, nn.Embedding):
            inputs = torch.randint(model.embed.num_embeddings, size, generator=generator)
        else:
            weight = model.embed.weight
            inputs = torch.randn(*size, weight.shape[1], generator=generator).to(weight.dtype)
        mask = torch.ones(size, dtype=torch.bool)
        mask[0, : size[1] // 2] = False
        inputs, mask = inputs.to(model.device), mask.to(model.device)
        with torch.no_grad():
            logits = model(inputs, attention_mask=mask, num_loops=n).logits
        yield Example((inputs, mask, *([] if num_loops else [torch.tensor(n)])), n, logits)


def largest_difference(run: Callable[..., Tensor], cases: Iterator[Example], *, exact: bool = True) -> float:
    """The largest difference of logits from the model's, as a share of the largest logit.

    Args:
        run: the exported model.
        exact: refuse more than rounding.

    Raises:
        ValueError: `exact`, and a difference is too large; names the case.
    """
    worst = 0.0
    for case in cases:
        got = run(*case.arguments)
        difference, size = (got - case.logits).abs().max().item(), case.logits.abs().max().item()
        if exact and not difference <= max(TOLERANCE[0], TOLERANCE[1] * size):
            shape = f"batch {case.logits.shape[0]}, length {case.logits.shape[1]} and num_loops={case.num_loops}"
            raise ValueError(
                f"export: logits differ by {difference:.1e} from the model's at {shape}; nothing is written"
            )
        worst = max(worst, difference / max(size, 1e-30))
    return worst


def export_program(model: LoopedModel, path: Path | str, *, num_loops: int | None = None) -> float:
    """Write a program that `torch.export.load(path).module()` reads without this library.

    It is called as `program(inputs, attention_mask)`, and with `num_loops=None` as `program(inputs, attention_mask,
    torch.tensor(8))`. It returns the logits (batch, seq, output).

    Args:
        path: a file .pt2.
        num_loops: a fixed count, unrolled; None makes it an input.

    Returns:
        The largest difference of logits that was seen in a check, as a share of the largest logit.

    Raises:
        ValueError: the model has a part that a program cannot contain, or the program computes something else.
    """
    path = Path(path)
    program = trace(model, num_loops)
    worst = largest_difference(program.module(), examples(model, num_loops))
    forget_traces(program.graph_module)
    with tempfile.TemporaryFile(dir=path.parent) as whole:
        torch.export.save(program, whole)
        with replacing(path) as temporary:
            _compress(whole, temporary)
    return worst


def forget_traces(graph: torch.fx.GraphModule) -> None:
    """Remove what torch notes about the origin of operations, also in the body of a loop."""
    for part in graph.modules():
        for node in part.graph.nodes if isinstance(part, torch.fx.GraphModule) else ():
            for name in TRACES:
                node.meta.pop(name, None)


def _compress(source: Any, target: Path) -> None:
    """Copy an archive of torch with its graph compressed: 60 KB for each layer in each loop become 2 KB."""
    with zipfile.ZipFile(source) as read, zipfile.ZipFile(target, "w") as write:
        for entry in read.infolist():
            kind = zipfile.ZIP_DEFLATED if entry.filename.endswith(".json") else zipfile.ZIP_STORED
            write.writestr(entry.filename, read.read(entry), compress_type=kind)
