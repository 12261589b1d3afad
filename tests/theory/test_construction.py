"""The whole construction: semantics, exact weights and the real model agree on every case of one table."""

import time
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from theory_cases import KINDS, NOT_SUPPORTED, SIZES, all_cells, centres, waves

from looped.theory.cells import Cells, check_function, evaluate
from looped.theory.construction import Budget, cells_for, construct, life, loops_of
from looped.theory.continuity import on_grid
from looped.theory.quantization import trifling
from looped.theory.weights import write


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_three_levels_agree_on_all_sequences(size, kind):
    d, seq, n = size
    construction = construct(waves, cells_for(d, seq, n, kind), kind)
    cells = all_cells(d, seq, n)
    x = centres(cells, n)
    meant = construction.semantics(x)
    assert len(np.unique(meant)) >= 3
    some = slice(None) if kind != "modulated" else slice(0, 6)  # labels as fractions are slow
    np.testing.assert_allclose(construction.exact(x[some]), meant[some], atol=1e-15, rtol=0)
    np.testing.assert_allclose(construction(x.astype(float)), meant, atol=3e-16, rtol=0)
    # Independent of the labels' line: at a centre the answer is f, but for half a step or a rounding.
    steps = 0.0
    if kind != "modulated":
        steps = np.array([float(form[f"a{i}"]) for i, form in enumerate(construction.program.output_map)])
    if kind != "tuned":  # which may arrive late after a jump
        assert (np.abs(meant - evaluate(waves, x.astype(float))) <= steps / 2 + 1e-12).all()


@settings(max_examples=12, deadline=None)
@given(
    size=st.sampled_from([(1, 1, 2), (1, 1, 5), (1, 2, 2), (1, 2, 3), (2, 1, 2), (2, 1, 3), (1, 3, 2)]),
    kind=st.sampled_from(KINDS),
    seed=st.integers(0, 1000),
)
def test_three_levels_agree_for_random_functions_and_sizes(size, kind, seed):
    d, seq, n = size
    a, b, c, e = torch.randn(4, d, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)

    def f(x: torch.Tensor) -> torch.Tensor:
        return torch.sin(3 * x @ a) + (x @ b) * (x @ c).amax(1, keepdim=True) + (x @ e).mean(1, keepdim=True)

    check_function(f, d, seq)
    construction = construct(f, cells_for(d, seq, n, kind), kind)
    x = centres(all_cells(d, seq, n), n)[:: 2 if kind == "modulated" else 1]
    meant = construction.semantics(x)
    np.testing.assert_allclose(construction.exact(x), meant, atol=1e-14, rtol=0)
    np.testing.assert_allclose(construction(x.astype(float)), meant, atol=1e-14, rtol=0)
    inside = np.random.default_rng(seed).random((50, seq, d))
    ramps = trifling(inside, n, 2**20).any((1, 2))
    np.testing.assert_allclose(construction(inside)[~ramps], construction.semantics(inside)[~ramps], atol=1e-14, rtol=0)


@pytest.mark.parametrize("size", [(1, 2, 4), (1, 3, 2), (2, 2, 2), (3, 4, 5)])
def test_sizes_and_loops_are_the_formulas(size):
    d, seq, n = size
    line, short = Cells(*size), Cells(*size, gap=False)
    assert loops_of(line, "plain") == 2 * n ** ((seq + 1) * d) + seq - 2
    assert loops_of(short, "modulated") == n ** ((seq + 1) * d) + n + seq - 2
    assert loops_of(short, "radix", 6) == n + seq + 6 * n ** ((seq + 1) * d)
    if size != (3, 4, 5):
        sizes = {
            "plain": ({}, (5 * d + 9, 10 * d + 8)),
            "tuned": ({"fused": True}, (5 * d + 9, 9 * d + 8)),
            "radix": ({}, (5 * d + 10, 7 * d + 12)),
            "modulated": ({}, (3 * d + 9, 2 * d + 9)),
        }
        for kind, (options, expected) in sizes.items():
            construction = construct(waves, cells_for(d, seq, n, kind), kind, **options)
            config = construction.model.config
            assert (config.d_model, config.ff_dim) == expected
            assert (config.num_heads, config.head_dim, config.num_loops) == (2, 1, construction.program.loops)


@pytest.mark.parametrize("size", [(1, 2, 8), (1, 3, 4), (2, 2, 3), (2, 1, 5)])
def test_neighbouring_labels_are_close_because_of_the_gaps(size):
    """The adjacency lemma, exactly: labels and moduli are both taken among the cells' centres."""
    d, seq, n = size

    def jump(f, gap):
        return np.abs(np.diff(Cells(d, seq, n, gap).labels(f), axis=0)).max()

    def allowed(f):
        def at_centres(x):
            return f((x * (n - 1) + 0.5) / n)

        def modulus(kind, cells):
            found = on_grid(at_centres, kind, cells / (n - 1), seq=seq, dim=d, grid=n - 1)
            return found.value

        return modulus("token", d**0.5) + (modulus("contextual", ((seq - 1) * d) ** 0.5) if seq > 1 else 0)

    needed = False
    for seed in range(5):
        a, b = 3 * torch.randn(2, d, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)

        def f(x, a=a, b=b):
            return torch.sin(x @ a) + torch.cos((x @ b).mean(1, keepdim=True))

        assert 0 < jump(f, gap=True) <= allowed(f) + 1e-12
        needed |= bool(jump(f, gap=False) > allowed(f))
    assert needed == (n == 8)  # without gaps the lemma fails as soon as cells are fine


@pytest.mark.parametrize("options", [{"fused": True}, {"paper_size": True}])
def test_other_widths_compute_the_same(options):
    construction = construct(waves, Cells(1, 2, 3), **options)
    if "paper_size" in options:
        assert (construction.model.config.d_model, construction.model.config.ff_dim) == (26, 74)
    x = centres(all_cells(1, 2, 3), 3)
    np.testing.assert_allclose(construction.exact(x), construction.semantics(x), atol=1e-15)
    assert np.array_equal(construction(x.astype(float)), construct(waves, Cells(1, 2, 3))(x.astype(float)))


def test_the_block_is_the_same_for_every_function():
    names = [n for n, _ in construct(waves, Cells(1, 2, 3)).model.core.named_parameters()]
    one, other = (dict(construct(f, Cells(1, 2, 3)).model.named_parameters()) for f in (waves, torch.sqrt))
    assert all(torch.equal(one[f"core.{n}"], other[f"core.{n}"]) for n in names)
    assert not torch.equal(one["embed.bias"], other["embed.bias"])


@pytest.mark.parametrize(("size", "right"), [((1, 2, 2), True), ((1, 3, 2), True), ((1, 2, 3), False)])
def test_float64_alone_is_right_as_long_as_predicted(size, right):
    construction = construct(waves, Cells(*size))
    assert construction.cells.count in (14, 30, 51)
    assert construction.predicted("float64").startswith(f"float64: {'right' if right else 'fails'}")
    x = centres(all_cells(*size), size[2])
    wrong = np.abs(construction(x.astype(float), stream=False) - construction.semantics(x)).max()
    assert (wrong < 1e-12) == right


@pytest.mark.parametrize("kind", KINDS)
def test_hundreds_of_sequences_through_the_real_loop(kind):
    x = np.random.default_rng(0).random((300, 2, 1))
    construction = construct(waves, cells_for(1, 2, 8, kind), kind)
    begin = time.perf_counter()
    got = construction(x)
    assert time.perf_counter() - begin < 60
    np.testing.assert_allclose(got, construction.semantics(x), atol=1e-14, rtol=0)
    error = ((got - evaluate(waves, x)) ** 2).sum((1, 2)).mean() ** 0.5
    expected = {"plain": 0.203, "tuned": 0.164, "radix": 0.126, "modulated": 0.126}[kind]
    assert abs(error - expected) < 0.012
    permuted = construction(x[:100, ::-1])[:, ::-1]
    np.testing.assert_allclose(permuted, got[:100], atol=1e-12)


def test_outputs_stay_among_the_labels_on_the_ramps():
    x = np.random.default_rng(0).random((500, 2, 1))
    for slope in (4, 64):
        construction = construct(waves, Cells(1, 2, 3), slope=slope)
        got = construction(x)
        assert (np.abs(got - construction.semantics(x)) > 1e-6).any()
        low, high = construction.answers.min(), construction.answers.max()
        assert low - 1e-9 <= got.min() <= got.max() <= high + 1e-9


def test_softmax_at_a_low_temperature_does_as_well():
    construction = construct(waves, cells_for(1, 2, 8, "modulated"), "modulated")
    x = torch.rand(50, 2, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    errors = []
    for scale in (5.0, 20.0, 40.0):
        soft = write(construction.program, 2, inverse_temperature=scale)(x).logits.detach().numpy()
        errors.append(np.abs(soft - construction.semantics(x.numpy())).max())
    assert errors[0] > 1e-2
    assert errors[1] < 1e-4
    assert errors[2] < 1e-14


def test_the_life_of_a_token():
    construction = construct(waves, Cells(1, 2, 4))
    names = construction.program.circuit.registers
    x = np.array([[0.3], [0.9]])
    rows = life(construction, x, token=0)
    assert rows.shape == (construction.program.loops + 1, len(names))
    column = {name: rows[:, i] for i, name in enumerate(names)}
    assert column["beta0"][:5].tolist() == [0, 1, 1, 1, 1]
    assert column["acc"][5] == 20 - (4 * 3 + 1)
    assert column["s0"].tolist() == [5 - t for t in range(construction.program.loops + 1)]
    k = int(construction.cells.lookup(x[None])[0, 0])
    assert column["a0"][-1] == column["a0"][5 + k]
    assert len(set(column["a0"][5 : 5 + k])) >= 3
    assert (column["a0"][: 5 + 1] == 0).all()


@pytest.mark.parametrize(("f", "message"), NOT_SUPPORTED.values(), ids=NOT_SUPPORTED)
def test_functions_that_are_refused(f, message):
    with pytest.raises(ValueError, match=message):
        check_function(f, 1, 3)


def test_a_jump_is_warned_about_and_steepness_is_not():
    with pytest.warns(UserWarning, match="seems to jump by 1"):
        check_function(lambda x: torch.floor(2 * x), 1, 2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for f in (waves, torch.sqrt, lambda x: (1000 * (x - 0.5)).clamp(0, 1), torch.zeros_like):
            check_function(f, 1, 2)


def test_too_much_is_refused_with_what_would_fit():
    with pytest.raises(ValueError, match=r"n=99: needs .* loops.* largest n within it is 7 .*plain"):
        construct(waves, Cells(1, 2, 99), budget=Budget(loops=1000))
    construct(waves, Cells(1, 2, 7), budget=Budget(loops=1000))
    with pytest.raises(ValueError, match="bits"):
        construct(waves, Cells(1, 2, 9), budget=Budget(bits=1000))
    with pytest.raises(ValueError, match="bytes"):
        construct(waves, Cells(1, 2, 9, gap=False), "modulated", budget=Budget(memory=1000))
    with pytest.raises(ValueError, match="no n is within it"):
        construct(waves, Cells(3, 9, 9))
    with pytest.raises(ValueError, match="kind='other'"):
        construct(waves, Cells(1, 2, 2), "other")
    for sizes in ((0, 2, 2), (1, 0, 2), (1, 2, 1)):
        with pytest.raises(ValueError, match=r"d=0|N=0|n=1"):
            Cells(*sizes)
