"""A program as a `LoopedTransformer`: its registers are the width, and its forms are the rows of the weights."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from looped.config import ModelConfig
from looped.models.transformer import LoopedTransformer
from looped.nn.block import TransformerBlock
from looped.theory.arithmetic import Array
from looped.theory.circuit import Circuit, Head, Layer, Program, head_size


def model_config(program: Program, seq: int, *, hardmax: bool = True) -> ModelConfig:
    """The configuration of `write`'s model."""
    layers = (*program.prelude, *program.circuit.layers)
    counts = [sum(head.graph is None for head in layer.heads) for layer in layers]
    graphs = {head.graph: None for layer in layers for head in layer.heads if head.graph is not None}
    softmax_or_hardmax = "hardmax" if hardmax else "softmax"
    return ModelConfig(
        inputs="tokens" if program.tokens else "vectors",
        vocab_size=len(program.inputs) if program.tokens else None,
        input_dim=None if program.tokens else len(program.inputs),
        output_size=len(program.output_map), max_seq_len=seq, d_model=len(program.circuit.registers),
        num_heads=max(1, *counts), d_head=head_size(layers), graph_heads=tuple(graphs),
        d_ff=max(1, *(len(layer.units) for layer in layers)), prelude_layers=len(program.prelude),
        core_layers=len(program.circuit.layers), num_loops=program.loops,
        attention="linear" if program.circuit.linear else softmax_or_hardmax, activation="relu", norm="none",
        positions="learned" if program.positions else "none", bias=True,
        modulation="none" if program.eta is None else "table", max_loops=None if program.eta is None else program.loops,
    )  # fmt: skip


@torch.no_grad()
def write(program: Program, seq: int, *, inverse_temperature: float | None = None) -> LoopedTransformer:
    """The program as a float64 `LoopedTransformer` for sequences of at most `seq` tokens.

    L1, the layers and L2 become its weights, and eta(t) the table of feed-forward gates. With an inverse temperature,
    attention is softmax instead of hardmax, and all scores are multiplied by it.

    Raises:
        ValueError: a layer has two heads of the same graph, or an inverse temperature of linear attention.
    """
    if program.circuit.linear and inverse_temperature is not None:
        raise ValueError(f"inverse_temperature={inverse_temperature}: has no meaning for linear attention")
    config = model_config(program, seq, hardmax=inverse_temperature is None)
    # The library divides scores by sqrt(d_head), except with hardmax.
    scale = 1.0 if config.attention == "hardmax" else (inverse_temperature or 1.0) * config.head_dim**0.5
    model = LoopedTransformer(config).double()
    for parameter in model.parameters():
        parameter.zero_()
    circuit = program.circuit
    weight, constant = program.input_weights()
    if program.tokens:
        model.embed.weight.copy_(_tensor(weight.T + constant))
    else:
        _assign(model.embed, weight, constant)
    if program.positions:
        model.positions.table.copy_(_tensor(program.position_table(seq)))
    _assign(model.head, *circuit.matrix(program.output_map))
    blocks = (*model.prelude, *model.core)
    for block, layer in zip(blocks, (*program.prelude, *circuit.layers), strict=True):
        assert isinstance(block, TransformerBlock)
        _write_layer(block, layer, circuit, scale)
    if program.eta is not None:
        # For each layer: attention scale and feed-forward scale (as 1 + s), attention gate, feed-forward gate.
        for layer in range(len(circuit.layers)):
            model.modulation.table[:, 4 * layer + 2] = 1
            model.modulation.table[:, 4 * layer + 3] = _tensor(program.eta)
    return model.eval()


def _write_layer(block: TransformerBlock, layer: Layer, circuit: Circuit, scale: float) -> None:
    attention, feedforward = block.attention, block.feedforward
    units = len(layer.units)
    up, up_bias = circuit.matrix([unit.reads for unit in layer.units])
    feedforward.up.weight[:units], feedforward.up.bias[:units] = _tensor(up), _tensor(up_bias)
    feedforward.down.weight[:, :units] = _tensor(circuit.matrix([unit.writes for unit in layer.units])[0].T)
    feedforward.down.bias.copy_(_tensor(np.array([layer.bias.get(r, 0) for r in circuit.registers], dtype=object)))
    size, heads = attention.head_dim, attention.num_heads
    scored = [head for head in layer.heads if head.graph is None]
    for i, head in enumerate(scored):
        for part, forms in enumerate((head.query, head.key, head.value)):
            first = part * heads * size + i * size
            attention.qkv.weight[first : first + len(forms)] = _tensor(circuit.matrix(forms)[0])
        attention.qkv.weight[i * size : (i + 1) * size] *= scale
        _write_output(attention.project, head, circuit, i * size)
    graphs: Sequence[str] = attention.graph_heads
    of_graphs = [head for head in layer.heads if head.graph is not None]
    if len({head.graph for head in of_graphs}) < len(of_graphs):
        raise ValueError("layer: two heads of the same graph; expected one head with all values")
    for head in of_graphs:
        assert head.graph is not None
        first = graphs.index(head.graph) * size
        attention.graph_values.weight[first : first + len(head.value)] = _tensor(circuit.matrix(head.value)[0])
        _write_output(attention.project, head, circuit, heads * size + first)


def _write_output(project: nn.Linear, head: Head, circuit: Circuit, first: int) -> None:
    for place, name in enumerate(head.writes):
        project.weight[circuit.registers.index(name), first + place] = 1


def _assign(linear: nn.Module, weight: Array, bias: Array) -> None:
    assert isinstance(linear, nn.Linear)
    linear.weight.copy_(_tensor(weight))
    linear.bias.copy_(_tensor(bias))


def _tensor(values: Array) -> Tensor:
    return torch.from_numpy(values.astype(np.float64))
