"""Programs as models: several layers, a prelude, tokens, positions and graph heads agree with exact arithmetic."""

import numpy as np
import pytest
import torch

from looped import LoopedTransformer, ModelConfig, StateChange
from looped.theory.circuit import Circuit, Head, Layer, Program, Unit
from looped.theory.idioms import clear, is_zero, pointer
from looped.theory.weights import write

# Two layers: the sum of x over the predecessors of a token, then a pointer to the token before it.
OF_GRAPH = Head(({"x": 1}, {"y": 2}), ("sum", "left"), graph="edges")
CIRCUIT = Circuit(
    ("p", "pp", "one", "x", "y", "sum", "left"),
    (
        Layer((*clear("left"), *is_zero({"x": 1, "1": -2}, {"y": 1})), (OF_GRAPH,)),
        Layer((*clear("sum"), Unit({"sum": 1}, {"y": 1})), (pointer({"p": 1, "one": -1}, {"x": "left"}),), {"y": 1}),
    ),
)
PROGRAM = Program(
    CIRCUIT, ("a", "b", "c"), {"one": {"1": 1}, "x": {"b": 1, "c": 2}}, ({"y": 1}, {"left": 1}), 3, bits=0,
    prelude=(Layer((Unit({"x": 1}, {"y": 3}),)),), tokens=True,
    positions={"p": lambda p: p, "pp": lambda p: p * p},
)  # fmt: skip


@torch.no_grad()
def test_model_equals_whole_numbers():
    rng = np.random.default_rng(0)
    tokens, edges = rng.integers(0, 3, (4, 6)), rng.integers(0, 2, (4, 6, 6))
    model = write(PROGRAM, 6)
    assert model.config.graph_heads == ("edges",)
    graphs = {"edges": torch.from_numpy(edges)}
    output = model(torch.from_numpy(tokens), graphs=graphs, loop_states=True)
    for dtype in (np.int64, np.float64, object):
        states = list(PROGRAM.states(tokens, dtype=dtype, graphs={"edges": edges}))
        assert (np.stack(states).astype(float) == output.loop_states.numpy()).all()
        run = PROGRAM.run(tokens, dtype=dtype, graphs={"edges": edges})
        assert (run.astype(float) == output.logits.detach().numpy()).all()
    assert np.stack(states)[-1].any()


def test_graphs_are_checked():
    model = write(PROGRAM, 6)
    tokens, edges = torch.zeros(2, 6, dtype=torch.long), torch.zeros(2, 6, 6)
    with pytest.raises(ValueError, match=r"graphs: have the names \[\]; expected \['edges'\]"):
        model(tokens)
    with pytest.raises(ValueError, match=r"graphs: have the names \['edges', 'more'\]"):
        model(tokens, graphs={"edges": edges, "more": edges})
    with pytest.raises(ValueError, match=r"graphs: 'edges': expected a tensor \(2, 6, 6\)"):
        model(tokens, graphs={"edges": edges[0]})
    config = ModelConfig(vocab_size=3, output_size=2, max_seq_len=6, causal=True, d_model=8, graph_heads=("edges",))
    causal = LoopedTransformer(config)
    with pytest.raises(ValueError, match="graphs: expected none beside a cache"), torch.no_grad():
        causal(tokens, graphs={"edges": edges}, cache=causal.new_cache(2, 6))
    with pytest.raises(ValueError, match="'edges' is missing"):
        PROGRAM.run(tokens.numpy())
    with pytest.raises(ValueError, match="graph_heads"):
        ModelConfig(graph_heads=("a", "a"))


def test_trained_models_may_have_graph_heads():
    """Gradients reach the values of a graph head, and rows that exit early take their graphs along."""
    config = ModelConfig(
        inputs="vectors", input_dim=3, output_size=2, max_seq_len=5, d_model=8, num_heads=2, num_loops=6,
        graph_heads=("edges",),
    )  # fmt: skip
    model = LoopedTransformer(config, seed=0)
    x, edges = torch.randn(4, 5, 3), torch.randint(0, 2, (4, 5, 5))
    model(x, graphs={"edges": edges}).logits.sum().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in model.core.parameters())
    early = model(x, graphs={"edges": edges}, exit_rule=StateChange(threshold=0.3))
    for row, taken in enumerate(early.loops_taken[:, 0].tolist()):
        alone = model(x[row : row + 1], graphs={"edges": edges[row : row + 1]}, num_loops=taken)
        assert torch.allclose(alone.logits[0], early.logits[row], atol=1e-5)


def test_two_heads_of_one_graph_are_refused():
    head = Head(({"x": 1},), ("x",), graph="edges")
    circuit = Circuit(("x",), (Layer(heads=(head, head)),))
    with pytest.raises(ValueError, match="two heads of the same graph"):
        write(Program(circuit, ("x",), {}, ({"x": 1},), 1), 2)
