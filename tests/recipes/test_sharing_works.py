"""The works on sharing layers: what their runs have equal, and the order of their sizes."""

import pytest

from looped.cli import main
from looped.costs.count import flops, parameters
from looped.recipes import complete, recipe
from looped.recipes.works import WORKS


def size(name: str) -> int:
    return parameters(complete(recipe(name)).model)


@pytest.mark.parametrize("layers", [4, 8])
def test_orders_differ_in_the_order_alone(layers):
    runs = [complete(recipe(f"takase-{order}-{layers}")) for order in ("cycle", "sequence", "reverse")]
    assert len({(parameters(run.model), flops(run.model, 16)) for run in runs}) == 1
    assert len({run.model.layer_order for run in runs}) == 3
    assert all(run.model.core_layers * run.model.num_loops == layers for run in runs)


def test_sizes_of_models_that_share():
    albert = [size(f"albert-{shared}") for shared in ("all", "feedforward", "attention", "none")]
    assert albert == sorted({*albert})
    bae = [size(f"bae-{name}") for name in ("tied", "rank-4", "rank-8", "standard")]
    assert bae == sorted({*bae})
    assert size("takase-cycle-4") == size("takase-cycle-8")


@pytest.mark.parametrize("name", ["takase", "albert", "bae"])
def test_works_are_known_by_name(name, capsys):
    assert main(["reproduce", name, "--seeds", "0", "1", "--dry-run"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 * len({row.words for row in WORKS[name].rows})
    assert {claim.first for claim in WORKS[name].claims} <= {row.words for row in WORKS[name].rows}
