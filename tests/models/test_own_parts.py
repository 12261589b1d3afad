"""Your own block, modulation, injection and exit rule in the loop: they run, train, exit and decode, or are refused."""

import copy
import dataclasses
import pickle
from dataclasses import dataclass

import jaxtyping
import pytest
import torch
from model_cases import TINY, build
from tolerance import assert_close
from torch import nn

from looped.config import ModelConfig
from looped.evaluation.calibration import calibrate
from looped.evaluation.scores import evaluate
from looped.models import Entropy, ExitRule, KLDivergence, LoopedModel, Observation, StateChange, parse_rule
from looped.models.exit_rules import RULES
from looped.models.generation import Sampling, generate
from looped.nn.block import TransformerBlock
from looped.nn.modulation import TimestepNetwork, make_modulation
from looped.nn.protocols import Context
from looped.tasks import TASKS
from looped.tasks.edit_distance import EditDistanceConfig

pytestmark = pytest.mark.usefixtures("one_thread")
D, VOCAB = 8, 11


class ConvBlock(nn.Module):
    """Mixes neighbours; has no keys and values; reads one factor of its own name."""

    modulation_names = ("strength",)

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv1d(D, D, 3, padding=1)

    def forward(self, x, context: Context):
        return x + context.modulation.get("strength", 1.0) * self.conv(x.mT).mT.tanh()


class RunningMean(nn.Module):
    """Attends uniformly to all tokens so far: one head, whose keys are unused."""

    kv_shape = (1, D)

    def __init__(self):
        super().__init__()
        self.value, self.out = nn.Linear(D, D), nn.Linear(D, D)

    def forward(self, x, context: Context):
        v = self.value(x)[:, None]
        if context.kv is not None:
            kv = context.kv
            v = (kv.write(torch.stack([v, v])) if kv.computes else kv.read())[1]
        mask = torch.ones(1, 1, x.shape[1], v.shape[2], dtype=torch.bool) if context.mask is None else context.mask
        weights = mask / mask.sum(-1, keepdim=True)
        return x + self.out((weights.to(v.dtype) @ v)[:, 0]).tanh()


class Decaying(nn.Module):
    """strength = exp(-rate * t), the same for all channels."""

    def __init__(self, layers: int = 1):
        super().__init__()
        self.names = [("strength",)] * layers
        self.rate = nn.Parameter(torch.tensor(0.5))

    def forward(self, num_loops: int, device: torch.device):
        t = torch.arange(num_loops, device=device)
        return (-self.rate * t).exp()[:, None, None].expand(-1, len(self.names), D)


class Half(nn.Module):
    """Starts from the input and adds half of it again in every loop."""

    adds_positions = False

    def initial(self, embedded):
        return embedded

    def forward(self, state, context: Context):
        assert context.embedded is not None
        return state + 0.5 * context.embedded


@dataclass(frozen=True, kw_only=True, slots=True)
class Norm(ExitRule):
    """Done when the state is longer than a limit."""

    limit: float

    def __call__(self, observation: Observation):
        return observation.after.norm(dim=-1) > self.limit, None


def model_of(block: nn.Module, **options) -> LoopedModel:
    torch.manual_seed(0)
    for parameter in block.parameters():
        nn.init.normal_(parameter, std=0.7)
    parts = {"embed": nn.Embedding(VOCAB, D), "core": [block], "head": nn.Linear(D, VOCAB), "num_loops": 4}
    return LoopedModel(**(parts | options)).double()


TOKENS = torch.tensor([[3, 1, 4, 1, 5], [9, 2, 6, 5, 3]])


def test_own_block_modulation_and_injection_equal_a_loop_written_out():
    model = model_of(ConvBlock(), modulation=Decaying(), injection=Half())
    embedded = state = model.embed(TOKENS)
    conv = model.core[0].get_submodule("conv")
    for t in range(4):
        state = state + 0.5 * embedded
        state = state + (-model.modulation.rate * t).exp() * conv(state.mT).mT.tanh()
    expected = model.head(state)
    expected.square().sum().backward()
    gradient = {name: p.grad for name, p in model.named_parameters()}
    assert all(g is not None and g.abs().max() > 0 for g in gradient.values())
    for recompute in ("none", "loop", "nested"):
        model.zero_grad()
        output = model(TOKENS, recompute=recompute)
        assert_close(output.logits, expected)
        output.logits.square().sum().backward()
        for name, p in model.named_parameters():
            torch.testing.assert_close(p.grad, gradient[name])


def test_block_that_cannot_be_cached_is_refused_a_cache_and_token_exits():
    model = model_of(ConvBlock(), causal=True, max_seq_len=9)
    says = r"core\[0\] \(ConvBlock\) cannot be cached; expected a block with a kv_shape"
    with pytest.raises(ValueError, match=f"a cache: {says}"):
        model.new_cache(2, 9)
    with pytest.raises(ValueError, match=f"exit_rule=change:0.1/token: {says}"):
        model(TOKENS, exit_rule=StateChange(threshold=0.1, per="token"))
    with pytest.raises(ValueError, match=f"kv_loops: {says}"):
        model_of(ConvBlock(), kv_loops=1)


def test_modulation_that_a_block_does_not_read_is_refused():
    with pytest.raises(ValueError, match=r"core\[0\] \(RunningMean\) does not read strength"):
        model_of(RunningMean(), modulation=Decaying())
    with pytest.raises(ValueError, match="has names for 2 layers; expected 1"):
        model_of(ConvBlock(), modulation=Decaying(layers=2))


@pytest.mark.parametrize("shape", [(4, 2, D), (3, 1, D), (4, 0, D), (4, 1, D + 1), (4, D)])
def test_modulation_of_a_wrong_shape_is_named(shape):
    model = model_of(ConvBlock(), modulation=Decaying())
    model.modulation.forward = lambda num_loops, device: torch.ones(shape, dtype=torch.float64)
    with pytest.raises(ValueError, match=r"modulation: returned shape .*; expected \(4, 1, 8\)"):
        model(TOKENS)


@torch.no_grad()
def test_own_block_with_keys_is_cached_generates_and_exits_by_token():
    model = model_of(RunningMean(), causal=True)
    full = model(TOKENS).logits
    cache = model.new_cache(2, 5)
    cached = torch.cat([model(TOKENS[:, i : i + 1], cache=cache).logits for i in range(5)], dim=1)
    assert_close(cached, full)
    seen = TOKENS[0].tolist()
    for _ in range(6):
        seen.append(int(model(torch.tensor([seen])).logits[0, -1].argmax()))
    assert generate(model, [TOKENS[0]], max_new_tokens=6, sampling=Sampling(temperature=0.0)) == [seen[5:]]
    limit = model(TOKENS, loop_states=True).loop_states[1].norm(dim=-1).median().item()
    rule = Norm(limit=limit, per="token")
    exits = model(TOKENS, exit_rule=rule)
    assert len(exits.loops_taken.unique()) > 1, "tokens must exit at different loops"
    cache.clear()
    stepped = [model(TOKENS[:, i : i + 1], cache=cache, exit_rule=rule) for i in range(5)]
    assert torch.equal(torch.cat([s.loops_taken for s in stepped], dim=1), exits.loops_taken)
    assert_close(torch.cat([s.logits for s in stepped], dim=1), exits.logits)


@torch.no_grad()
def test_own_exit_rule_has_a_text_and_can_have_a_name():
    model = model_of(ConvBlock())
    states = model(TOKENS, loop_states=True).loop_states
    limit = states[1].norm(dim=-1).amin(1).mean().item()
    output = model(TOKENS, exit_rule=Norm(limit=limit))
    expected = [next((n for n, s in enumerate(states, 1) if (s[i].norm(dim=-1) > limit).all()), 4) for i in range(2)]
    assert len(set(expected)) == 2, "examples must exit at different loops"
    assert output.loops_taken[:, 0].tolist() == expected
    assert str(Norm(limit=2.0)) == "Norm(per='sequence', min_loops=1, limit=2.0)"
    gated = build(dataclasses.replace(TINY, halting="act"))
    with pytest.raises(ValueError, match=r"exit_rule=Norm\(per='sequence', min_loops=1, limit=2.0\): expected act"):
        gated(TOKENS, exit_rule=Norm(limit=2.0))


def test_a_name_makes_an_own_rule_text():
    @dataclass(frozen=True, kw_only=True, slots=True)
    class Named(Norm):
        name = "norm"
        argument = "limit"

    RULES["norm"] = Named
    try:
        assert parse_rule("norm:2.5/token") == Named(limit=2.5, per="token")
        assert str(Named(limit=2.5, min_loops=3)) == "norm:2.5/min:3"
        with pytest.raises(ValueError, match=r"limit=-1\.0: expected a positive number"):
            parse_rule("norm:-1")
    finally:
        del RULES["norm"]


def test_weights_travel(tmp_path):
    one, other = model_of(ConvBlock(), modulation=Decaying()), model_of(ConvBlock(), modulation=Decaying())
    with torch.no_grad():
        one.modulation.rate += 1
    one.save(tmp_path / "mine")
    assert not torch.equal(one(TOKENS).logits, other(TOKENS).logits)
    other.load_weights(tmp_path / "mine")
    assert torch.equal(one(TOKENS).logits, other(TOKENS).logits)
    with pytest.raises(ValueError, match=r"of another architecture: core\.0\.conv\.bias is \(8,\) here and absent"):
        model_of(RunningMean()).load_weights(tmp_path / "mine")


def test_initial_state_continues_a_loop():
    model = build(dataclasses.replace(TINY, input_injection="add"))
    inputs = torch.arange(12).reshape(2, 6) % 11
    first = model(inputs, num_loops=3)
    assert_close(model(inputs, num_loops=2, initial_state=first.state).logits, model(inputs, num_loops=5).logits)


def test_attention_mask_of_integers_and_padding():
    model, inputs = build(TINY), torch.arange(12).reshape(2, 6) % 11
    mask = torch.tensor([[1, 1, 1, 1, 0, 0], [1, 1, 1, 1, 1, 1]])
    assert not torch.equal(model(inputs).logits, model(inputs, attention_mask=mask).logits)
    assert torch.equal(model(inputs, attention_mask=mask.bool()).logits, model(inputs, attention_mask=mask).logits)


def test_composed_model_is_evaluated_and_calibrated_like_ours():
    task = TASKS["edit_distance"](EditDistanceConfig(length=4, max_letters=3))
    torch.manual_seed(0)
    parts = {"embed": nn.Embedding(task.spec.vocab_size or 0, D), "core": [ConvBlock()], "num_loops": 2}
    model = LoopedModel(**parts, head=nn.Linear(D, task.spec.output_size), modulation=Decaying())
    rows = evaluate(model, task, loops=[1, 3], examples=16, early=(3, StateChange(threshold=1e-9)))
    cost = {row["num_loops"]: row["flops_per_example"] for row in rows if "exit_rule" not in row}
    width = task.spec.max_seq_len
    loop, head = 2 * 3 * D * D * width, 2 * D * task.spec.output_size * width
    assert cost == {1: loop + head, 3: 3 * loop + head}
    assert [row["flops_per_example"] for row in rows if "exit_rule" in row] == [3 * loop + head]
    found = calibrate(model, task, loops=[1, 2, 4], examples=16)
    assert found["trained_loops"] == 2
    assert {row["num_loops"] for row in found["rows"] if row["exit_rule"] is None} == {1, 2, 4}


@pytest.mark.parametrize(
    ("forward", "says"),
    [
        (lambda x, context: x[:, -1:], r"core: its blocks returned \(2, 1, 8\); expected .* \(2, 5, 8\)"),
        (lambda x, context: (x, x), "core: its blocks returned tuple"),
        (lambda x, context: None, "core: its blocks returned NoneType"),
    ],
)
def test_block_that_changes_the_shape_is_named(forward, says):
    block = ConvBlock()
    block.forward = forward
    with pytest.raises(ValueError, match=says):
        model_of(block)(TOKENS)


def test_names_that_are_strings_are_named():
    modulation = Decaying()
    modulation.names = ("strength",)  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(ValueError, match=r"names=\('strength',\); expected a tuple of names for each core layer"):
        model_of(ConvBlock(), modulation=modulation)
    block = ConvBlock()
    block.modulation_names = "strength"  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(ValueError, match=r"ConvBlock\.modulation_names='strength': expected a tuple"):
        model_of(block, modulation=Decaying())
    with pytest.raises(ValueError, match="'decay': expected an ending _scale, _gate or _shift"):
        TimestepNetwork(D, ["decay"], 1)


def test_library_modulation_composes_and_starts_as_the_identity():
    config = ModelConfig(d_model=D, num_heads=2, modulation="scale_gate")
    model = model_of(TransformerBlock(config), modulation=make_modulation(config))
    states = model(TOKENS, loop_states=True).loop_states
    assert all(torch.equal(state, model.embed(TOKENS)) for state in states)


@torch.no_grad()
def test_own_block_whose_later_loops_reuse_keys():
    shared, plain = (model_of(RunningMean(), causal=True, kv_loops=kv_loops) for kv_loops in (1, None))
    assert (shared(TOKENS).logits - plain(TOKENS).logits).abs().max() > 1e-3, "sharing must matter"
    cache = shared.new_cache(2, 5)
    cached = torch.cat([shared(TOKENS[:, i : i + 1], cache=cache).logits for i in range(5)], dim=1)
    assert_close(cached, shared(TOKENS).logits)


class Stubborn(RunningMean):
    """Writes in every loop, also where it may only read."""

    def forward(self, x, context: Context):
        if context.kv is not None:
            context.kv.write(torch.zeros(2, len(x), 1, x.shape[1], D, dtype=x.dtype))
        return x


class Forgetful(RunningMean):
    """Says that it stores keys, and does not."""

    def forward(self, x, context: Context):
        return x + x.cumsum(1)


@torch.no_grad()
def test_block_that_misuses_its_slot_is_named():
    with pytest.raises(ValueError, match=r"context\.kv\.write: this loop has no keys and values of its own"):
        model_of(Stubborn(), causal=True, kv_loops=1)(TOKENS)
    model = model_of(Forgetful(), causal=True)
    with pytest.raises(ValueError, match=r"core\[0\] \(Forgetful\) has a kv_shape but never called"):
        model(TOKENS, cache=model.new_cache(2, 5))


def test_a_cache_is_refused_where_gradients_are_wanted():
    model = model_of(RunningMean(), causal=True)
    with pytest.raises(ValueError, match=r"cache: carries no gradient; expected a call under torch\.no_grad"):
        model(TOKENS, cache=model.new_cache(2, 5))


def test_copies_of_a_compiled_model_run_their_own_weights():
    model = build(TINY)
    copy_before = copy.deepcopy(model)
    model.compile_core()
    copied = copy.deepcopy(model)
    for module in (copy_before, copied):
        with torch.no_grad():
            for parameter in module.core.parameters():
                parameter.zero_()
    assert copied.compiled
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        inputs = torch.arange(12).reshape(2, 6) % 11
        assert not torch.allclose(model(inputs).logits, copied(inputs).logits), "the weights must matter"
        assert_close(copied(inputs).logits, copy_before(inputs).logits)
        assert_close(pickle.loads(pickle.dumps(copied))(inputs).logits, copy_before(inputs).logits)
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)


def test_refused_weights_change_nothing(tmp_path):
    build(TINY).save(tmp_path)
    model = build(dataclasses.replace(TINY, core_layers=2), seed=5)
    before = {name: p.clone() for name, p in model.named_parameters()}
    with pytest.raises(ValueError, match=r"core\.1\.\S+ is absent here"):
        model.load_weights(tmp_path)
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())
    tied = build(dataclasses.replace(TINY, tie_embeddings=True, output_size=11), seed=3)
    tied.save(tmp_path / "tied")
    other = build(dataclasses.replace(TINY, tie_embeddings=True, output_size=11), seed=4)
    other.load_weights(tmp_path / "tied")
    assert torch.equal(other.head.weight, tied.head.weight)
    assert other.head.weight is other.embed.weight


@pytest.mark.parametrize(
    ("call", "says"),
    [
        ({"attention_mask": torch.ones(6)}, r"attention_mask: has shape \(6,\); expected \(2, 6\)"),
        ({"attention_mask": torch.ones(2, 1, 6, 6)}, r"attention_mask: has shape \(2, 1, 6, 6\)"),
        ({"attention_mask": torch.zeros(2, 6) - torch.inf}, "expected booleans, or 1 at real positions"),
        ({"initial_state": torch.zeros(1, 6, 16)}, r"initial_state: has shape \(1, 6, 16\); expected \(2, 6, 16\)"),
        ({"last_logits": 0}, "last_logits=0: expected at least 1"),
        ({"loop_logits": 2}, "loop_logits=2: expected last, all, or loop numbers from 1 to 5"),
        ({"loop_logits": "al"}, "loop_logits='al': expected last, all"),
    ],
)
def test_arguments_of_a_wrong_kind_are_named(call, says):
    with pytest.raises((ValueError, TypeError), match=says):
        vars(LoopedModel.forward)["__wrapped__"](build(TINY), torch.arange(12).reshape(2, 6) % 11, **call)


@torch.no_grad()
def test_exit_masks_of_integers_count_as_booleans():
    model, inputs = build(dataclasses.replace(TINY, num_loops=8)), torch.arange(12).reshape(2, 6) % 11
    mask = torch.tensor([[2, 0, 0, 0, 0, 0]] * 2)
    states = model(inputs, loop_states=True).loop_states
    change = (states[1:] - states[:-1]).norm(dim=-1) / states[:-1].norm(dim=-1)
    rule = StateChange(threshold=1.001 * change[3, :, 0].max().item())
    taken = model(inputs, exit_rule=rule, exit_mask=mask.bool()).loops_taken
    assert not torch.equal(taken, model(inputs, exit_rule=rule).loops_taken), "the mask must matter"
    found = vars(LoopedModel.forward)["__wrapped__"](model, inputs, exit_rule=rule, exit_mask=mask).loops_taken
    assert torch.equal(found, taken)


@torch.no_grad()
def test_impossible_classes_do_not_keep_a_rule_from_exiting():
    model = build(dataclasses.replace(TINY, bias=True))
    model.head.bias[0] = -torch.inf
    for rule in (Entropy(threshold=50.0), KLDivergence(threshold=50.0)):
        assert model(torch.arange(6)[None], exit_rule=rule).num_loops <= 2
