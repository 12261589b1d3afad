"""The matrices of graph heads: given with a call, or shared by all inputs."""

from collections.abc import Mapping
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from looped.nn.graphs import SharedGraph
from looped.nn.protocols import graph_heads


def share_graphs(model: Any, graphs: Mapping[str, Float[Tensor, "seq seq"]]) -> None:
    """Make a model use these matrices in every call that brings none. They are neither saved nor counted as weights.

    Args:
        model: a `LoopedModel`.
        graphs: at least those of its graph heads, by name, such as `Task.graphs`.

    Raises:
        ValueError: a graph head has no matrix, or a matrix is not square.
    """
    wanted = _graph_heads(model)
    if missing := sorted(wanted - graphs.keys()):
        raise ValueError(f"graphs: have the names {sorted(graphs)}; expected also {missing}, the graph heads")
    shapes = {name: (*graphs[name].shape,) for name in sorted(wanted)}
    for name, shape in shapes.items():
        if len(shape) != 2 or shape != next(iter(shapes.values()))[::-1]:
            raise ValueError(f"graphs: {name!r}: has shape {shape}; expected (seq, seq), as all have")
    model.graphs = nn.ModuleDict({name: SharedGraph(graphs[name].to(model.device)) for name in shapes})


def checked_graphs(
    model: Any, inputs: Tensor, graphs: Mapping[str, Tensor] | None, *, cached: bool = False
) -> Mapping[str, Tensor | SharedGraph]:
    """The matrices of the graph heads; ValueError for other names than the blocks', other shapes, or a cache."""
    wanted = _graph_heads(model)
    if graphs is None and model.graphs:
        shared = dict(model.graphs.items())
        seq = next(iter(shared.values())).seq
        if cached or inputs.shape[1] != seq:
            raise ValueError(f"graphs: are shared; expected {seq} positions and no cache")
        return shared
    graphs = graphs or {}
    if wanted != graphs.keys():
        raise ValueError(f"graphs: have the names {sorted(graphs)}; expected {sorted(wanted)}, the graph heads")
    if graphs and cached:
        raise ValueError("graphs: expected none beside a cache")
    shape = (inputs.shape[0], inputs.shape[1], inputs.shape[1])
    for name, graph in graphs.items():
        if not isinstance(graph, Tensor) or graph.shape != shape or graph.device != inputs.device:
            raise ValueError(f"graphs: {name!r}: expected a tensor {shape} on {inputs.device}")
    return graphs


def _graph_heads(model: Any) -> set[str]:
    """The names of the graphs that the blocks read."""
    return {name for blocks in model.sections.values() for block in blocks for name in graph_heads(block)}
