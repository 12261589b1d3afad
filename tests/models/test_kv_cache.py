import dataclasses
import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from model_cases import TINY, build, gradients
from tolerance import assert_close

from looped.models import Cache, Fixed, StateChange, Unchanged
from looped.models.kv_cache import SlotPolicy
from looped.nn.block import TransformerBlock

pytestmark = pytest.mark.usefixtures("one_thread")

CAUSAL = dataclasses.replace(TINY, causal=True, max_seq_len=16, num_loops=3)
MODELS = {
    "learned": CAUSAL,
    "rotary": dataclasses.replace(CAUSAL, positions="rotary"),
    "prelude_coda": dataclasses.replace(
        CAUSAL, prelude_layers=1, core_layers=2, coda_layers=1, positions="rotary", modulation="scale_gate"
    ),
    "inject": dataclasses.replace(CAUSAL, input_injection="concat", positions="sinusoidal", positions_every_loop=True),
    "additive": dataclasses.replace(CAUSAL, input_injection="add", modulation="additive", values="state"),
    "norm_after": dataclasses.replace(CAUSAL, norm_place="after", norm="layer", core_layers=2, modulation="rezero"),
    "first": dataclasses.replace(CAUSAL, cache="first", cache_loops=2, values="state", core_layers=2),
}


def tokens_of(lengths, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(11, (n,), generator=generator) for n in lengths]


def padded(rows, side):
    """A batch of prompts of different lengths, padded on one side, with which are real and at which positions."""
    width = max(map(len, rows))
    inputs = torch.zeros(len(rows), width, dtype=torch.long)
    attention_mask = torch.zeros(len(rows), width, dtype=torch.bool)
    for i, row in enumerate(rows):
        place = slice(width - len(row), width) if side == "left" else slice(0, len(row))
        inputs[i, place], attention_mask[i, place] = row, True
    return inputs, attention_mask, (attention_mask.cumsum(1) - 1).clamp(min=0)


def read_in_chunks(model, cache, inputs, attention_mask, positions, chunks, **how):
    """The logits of all positions, and the loops they took, when the model reads so many tokens at a time."""
    outputs = [
        model(
            inputs[:, start:stop],
            attention_mask=attention_mask[:, start:stop],
            positions=positions[:, start:stop],
            cache=cache,
            **how,
        )
        for start, stop in itertools.pairwise([0, *itertools.accumulate(chunks)])
    ]
    exits = None if outputs[0].loops_taken is None else torch.cat([output.loops_taken for output in outputs], dim=1)
    return torch.cat([output.logits for output in outputs], dim=1), exits


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(list(MODELS)),
    st.lists(st.integers(1, 8), min_size=1, max_size=3),
    st.sampled_from(["left", "right"]),
    st.integers(1, 4),
    st.data(),
)
def test_cached_equals_full_forward_of_every_row_alone(name, lengths, side, loops, data):
    """At every position, loop count and batch size, with padding on either side, in chunks of any size."""
    model, rows = build(MODELS[name]), tokens_of(lengths)
    inputs, attention_mask, positions = padded(rows, side)
    chunks, width = [], inputs.shape[1]
    while sum(chunks) < width:
        chunks.append(data.draw(st.integers(1, width - sum(chunks))))
    with torch.no_grad():
        cache = model.new_cache(len(rows), width + data.draw(st.integers(0, 3)), num_loops=max(loops, 4))
        cached, _ = read_in_chunks(model, cache, inputs, attention_mask, positions, chunks, num_loops=loops)
        for i, row in enumerate(rows):
            alone = model(row[None], num_loops=loops).logits[0]
            assert alone.std() > 1e-2
            assert_close(cached[i, attention_mask[i]], alone)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_cached_equals_full_forward_in_low_precision(dtype):
    model = build(MODELS["prelude_coda"]).float()
    (row,) = tokens_of([12])
    with torch.no_grad(), torch.autocast("cpu", dtype=dtype, enabled=dtype != torch.float32):
        full, cache = model(row[None]).logits, model.new_cache(1, 12)
        assert cache.slots["core"][0].dtype == dtype
        cached = torch.cat([model(token[None, None], cache=cache).logits for token in row], dim=1)
    assert_close(cached.to(dtype), full.to(dtype))


def shared_by_hand(model, row, loops, policy, kept):
    """Token by token, with the keys of earlier tokens in plain dictionaries: what cache policies mean."""
    config = model.config
    assert len(model.core) == 1
    assert not config.prelude_layers + config.coda_layers
    block, earlier, logits = model.core[0], [], []
    assert isinstance(block, TransformerBlock)
    slot = {
        "first": lambda t: min(t, kept - 1),
        "last": lambda t: max(t - (loops - kept), 0),
        "ring": lambda t: t % kept,
        "all": lambda t: t,
    }[policy]
    for i, token in enumerate(row):
        state = model.embed(token) + model.positions.table[i]
        mine = {}
        for t in range(loops):
            q, k, v = block.attention.qkv(block.attention_norm(state)).view(3, config.num_heads, -1)
            if policy != "first" or t < kept:
                mine[slot(t)] = (k, v)
            keys, values = zip(*[others[slot(t)] for others in earlier], mine[slot(t)], strict=True)
            keys, values = torch.stack(keys, dim=1), torch.stack(values, dim=1)
            weights = (torch.einsum("hd,hnd->hn", q, keys) / q.shape[-1] ** 0.5).softmax(-1)
            state = state + block.attention.project(torch.einsum("hn,hnd->hd", weights, values).flatten())
            state = state + block.feedforward(block.feedforward_norm(state)[None, None])[0, 0]
        earlier.append(mine)
        logits.append(model.head(model.norm(state)))
    return torch.stack(logits)


@pytest.mark.parametrize("kept", [None, 1, 2])
@pytest.mark.parametrize("recompute", ["none", "loop", "nested"])
def test_model_whose_later_loops_reuse_keys(kept, recompute):
    """Forward, every gradient, and decoding with the smaller cache, against the definition."""
    policy = "all" if kept is None else "first"
    config = dataclasses.replace(CAUSAL, num_loops=5, cache=policy, cache_loops=kept)
    model, (row,) = build(config), tokens_of([7])
    expected = shared_by_hand(model, row, 5, policy, kept)
    every = build(dataclasses.replace(CAUSAL, num_loops=5))(row[None]).logits[0]
    assert policy == "all" or (expected[1:] - every[1:]).abs().amax(1).min() > 1e-4, "sharing must matter"
    weight = torch.randn(expected.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    gradient = gradients(model, (expected * weight).sum())
    output = model(row[None], recompute=recompute)
    assert_close(output.logits[0], expected)
    for name, value in gradients(model, (output.logits[0] * weight).sum()).items():
        assert_close(value, gradient[name])
    with torch.no_grad():
        cache = model.new_cache(1, 7)
        one_pass = model(row[None, :4], cache=cache).logits
        decoded = torch.cat([one_pass, *(model(token[None, None], cache=cache).logits for token in row[4:])], dim=1)
    assert_close(decoded[0], expected)
    assert cache.bytes == (kept or 5) * 2 * 7 * 16 * 8  # keys and values of 7 tokens, 16 wide, in float64


@pytest.mark.parametrize(
    ("policy", "kept"), [("first", 1), ("first", 2), ("last", 1), ("last", 2), ("ring", 2), ("ring", 3)]
)
@torch.no_grad()
def test_policy_of_a_call_is_exact_and_saves_memory(policy, kept):
    """Another answer than with all slots, but the one of the definition."""
    model, (row,) = build(dataclasses.replace(CAUSAL, num_loops=5)), tokens_of([9])
    expected, full = shared_by_hand(model, row, 5, policy, kept), model(row[None]).logits[0]
    assert (expected[1:] - full[1:]).abs().amax(1).min() > 1e-3, "the policy must matter"
    cache, every = model.new_cache(1, 9, policy=policy, cache_loops=kept), model.new_cache(1, 9)
    assert cache.bytes * 5 == every.bytes * kept
    decoded = torch.cat([model(token[None, None], cache=cache).logits for token in row], dim=1)
    assert_close(decoded[0], expected)
    cache.clear()
    if policy == "first":
        assert_close(model(row[None], cache=cache).logits[0], expected)
    else:  # a token attends to what earlier tokens stored in their last loops, so it comes after them
        with pytest.raises(ValueError, match=f"9 tokens at once: expected one at a time with policy='{policy}'"):
            model(row[None], cache=cache)


@pytest.mark.parametrize("name", list(MODELS))
@pytest.mark.parametrize("rule", ["change", "unchanged"])
def test_exits_work_with_the_cache(name, rule):
    """Tokens that leave at different loops: decoded one by one, in chunks, in a batch and alone, and in one pass."""
    config = MODELS[name]
    if name == "first":
        config = dataclasses.replace(config, cache_loops=3)
    config = dataclasses.replace(config, num_loops=6)
    model, rows = build(config), tokens_of([9, 5, 7])
    inputs, attention_mask, positions = padded(rows, "left")
    with torch.no_grad():
        states = model(rows[0][None], loop_states=True).loop_states[:, 0]
        change = (states[1:] - states[:-1]).norm(dim=-1) / states[:-1].norm(dim=-1)
        exit_rule = (
            Unchanged(per="token", loops=1)
            if rule == "unchanged"
            else StateChange(per="token", threshold=1.001 * change.median().item())
        )
        reads = rule == "unchanged"
        whole = model(inputs, attention_mask=attention_mask, positions=positions, exit_rule=exit_rule)
        assert whole.loops_taken is not None
        assert len(whole.loops_taken[attention_mask].unique()) > 1, "tokens must leave at different loops"
        for chunks in ([1] * 9, [5, 1, 1, 2]):
            cache = model.new_cache(3, 9, every_loop_logits=reads)
            cached, exits = read_in_chunks(model, cache, inputs, attention_mask, positions, chunks, exit_rule=exit_rule)
            assert exits is not None
            assert torch.equal(exits[attention_mask], whole.loops_taken[attention_mask])
            assert_close(cached[attention_mask], whole.logits[attention_mask])
        for i, row in enumerate(rows):
            alone = model(row[None], exit_rule=exit_rule)
            assert alone.loops_taken is not None
            assert torch.equal(alone.loops_taken[0], whole.loops_taken[i, attention_mask[i]])
            assert_close(alone.logits[0], whole.logits[i, attention_mask[i]])


def test_token_that_left_shows_the_keys_of_its_last_loop():
    """One token leaves after a loop; against the definition, by hand."""
    config = dataclasses.replace(CAUSAL, num_loops=4)
    model, (row,) = build(config), tokens_of([2])
    block = model.core[0]
    assert isinstance(block, TransformerBlock)

    def key_value(state):
        return block.attention.qkv(block.attention_norm(state)).view(3, 2, 8)

    start = model.embed(row) + model.positions.table[:2]
    with torch.no_grad():
        first = model(row[None, :1], num_loops=1, loop_states=True).loop_states[0, 0, 0]
        _, k, v = key_value(start[0])
        state = start[1]
        for _ in range(4):
            q, own_k, own_v = key_value(state)
            weights = (torch.stack([(q * k).sum(-1), (q * own_k).sum(-1)]) / 8**0.5).softmax(0)
            state = state + block.attention.project((weights[0, :, None] * v + weights[1, :, None] * own_v).flatten())
            state = state + block.feedforward(block.feedforward_norm(state)[None, None])[0, 0]
        cache = model.new_cache(1, 2)
        one = model(row[None, :1], cache=cache, exit_rule=Fixed(loops=1))
        two = model(row[None, 1:], cache=cache)
    assert_close(one.state[0, 0], first)
    assert_close(two.state[0, 0], state)


def test_sequences_leave_the_cache_and_it_is_used_again():
    model, rows = build(MODELS["rotary"]), tokens_of([6, 6, 6])
    inputs = torch.stack(rows)
    with torch.no_grad():
        expected = model(inputs).logits
        cache = model.new_cache(3, 10)
        model(inputs[:, :4], cache=cache)
        cache.keep(torch.tensor([2, 0]))
        assert_close(model(inputs[[2, 0], 4:], cache=cache).logits, expected[[2, 0], 4:])
        cache.clear()
        assert_close(model(inputs[:2], cache=cache).logits, expected[:2])


def test_cleared_cache_follows_new_weights():
    """The gains and gates that a cache holds on to are of the weights when it was empty."""
    model, (row,) = build(MODELS["prelude_coda"]), tokens_of([6])
    cache = model.new_cache(1, 6)
    with torch.no_grad():
        before = model(row[None], cache=cache).logits
        model.modulation.output.weight += 0.5
        cache.clear()
        after = model(row[None], cache=cache).logits
        assert (after - before).abs().max() > 1e-2
        assert_close(after, model(row[None]).logits)


@pytest.mark.parametrize(
    ("make", "call", "says"),
    [
        ({"length": 17}, {}, "length=17: expected 1 to max_seq_len=16"),
        ({"batch": 0}, {}, "batch=0: expected at least 1"),
        ({"num_loops": 0}, {}, "num_loops=0: expected at least 1"),
        ({"policy": "all", "cache_loops": 2}, {}, "cache_loops=2: expected none with cache='all'"),
        ({"policy": "ring", "cache_loops": -1}, {}, "cache_loops=-1: expected at least 1"),
        ({}, {"num_loops": 4}, "num_loops=4: expected at most the cache's num_loops=3"),
        ({"batch": 2}, {}, "expected one for a batch of 1; this holds 2"),
        ({"length": 5}, {}, r"0 \+ 6 tokens: expected at most its length=5"),
        ({}, {"attention_mask": torch.ones(1, 6, 6, dtype=torch.bool)}, r"attention_mask: expected \(batch, seq\)"),
        ({}, {"loop_logits": "all"}, "every_loop_logits=True"),
        ({}, {"exit_rule": Unchanged()}, "every_loop_logits=True"),
    ],
)
@torch.no_grad()
def test_bad_caches_are_named(make, call, says):
    model = build(MODELS["prelude_coda"])
    with pytest.raises(ValueError, match=says):
        model(torch.zeros(1, 6, dtype=torch.long), cache=model.new_cache(**{"batch": 1, "length": 8} | make), **call)


@torch.no_grad()
def test_cache_of_another_model_is_refused():
    other = build(MODELS["learned"]).new_cache(1, 6)
    with pytest.raises(ValueError, match="another model"):
        build(MODELS["rotary"])(torch.zeros(1, 6, dtype=torch.long), cache=other)
    with pytest.raises(ValueError, match="causal=False"):
        Cache(build(TINY), 1, 6)


def test_a_policy_never_needs_more_slots_than_loops():
    assert (
        SlotPolicy.of("ring", 9, 4).slots
        == SlotPolicy.of("last", 4, 4).slots
        == SlotPolicy.of("all", None, 4).slots
        == 4
    )
    assert [SlotPolicy.of("last", 2, 5).slot(t, 5) for t in range(5)] == [0, 0, 0, 0, 1]
    assert [SlotPolicy.of("ring", 2, 5).slot(t, 5) for t in range(5)] == [0, 1, 0, 1, 0]
    assert [SlotPolicy.of("first", 2, 5).slot(t, 5) for t in range(5)] == [0, 1, 1, 1, 1]
