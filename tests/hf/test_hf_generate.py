"""`generate` of transformers writes what `looped` writes, token for token."""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hf.hf_cases import TINY, built, natively, padded, tokens
from transformers import DynamicCache

from looped.hf import LoopedCache, LoopedForCausalLM, to_hf
from looped.models import packed as packing
from looped.models.packed import Int8Linear, PackedLinear

pytestmark = [
    pytest.mark.usefixtures("one_thread", "untyped"),
    pytest.mark.filterwarnings("ignore::FutureWarning:transformers"),
]
QUIET = {"HF_HUB_OFFLINE": "1", "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[2]), *sys.path])}
GREEDY = {"do_sample": False, "max_new_tokens": 8}
MODULATED = dataclasses.replace(TINY, modulation="scale_gate", gate_offset=1, tie_embeddings=False)


@pytest.fixture(scope="module")
def model() -> LoopedForCausalLM:
    return to_hf(built(MODULATED, seed=4, dtype=torch.double))


def texts(model, *args, **options) -> list[list[int]]:
    torch.manual_seed(0)
    return model.generate(*args, **{**GREEDY, **options}).tolist()


def test_cached_uncached_and_native_texts_are_equal_for_50_random_models():
    """In a process of its own, where nothing checks the shapes of these tiny models: ten times as fast."""
    script = Path(__file__).with_name("random_models.py")
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, env={**os.environ, **QUIET})
    assert done.returncode == 0, done.stderr[-2000:]
    assert "50 models, " in done.stdout


@pytest.mark.parametrize(
    "options",
    [
        {"num_beams": 3},
        {"num_beams": 2, "do_sample": True, "num_return_sequences": 2},
        {"do_sample": True, "top_k": 5},
        {"repetition_penalty": 1.3, "exit_rule": "kl:0.5", "num_loops": 5},
    ],
    ids=str,
)
def test_beams_and_samples_do_not_depend_on_the_cache(model, options: dict):
    prompt = padded([tokens(6), tokens(4, seed=1)])
    assert texts(model, **prompt, **options) == texts(model, **prompt, use_cache=False, **options)


def test_guessed_tokens_that_are_wrong_leave_no_trace(model):
    """Prompt lookup and a draft model read tokens beyond the text, and crop the cache by negative counts."""
    prompt = tokens(1, 6).repeat(1, 3)
    draft = to_hf(model.looped)
    draft.config.num_loops = 1
    expected = texts(model, prompt, max_new_tokens=16)
    assert texts(model, prompt, max_new_tokens=16, prompt_lookup_num_tokens=5) == expected
    assert texts(model, prompt, max_new_tokens=16, assistant_model=draft) == expected
    assert texts(draft, prompt, max_new_tokens=16) != expected
    with pytest.raises(ValueError, match=r"new tokens=45: expected at most 41 together \(max_seq_len\)"):
        texts(model, prompt, max_new_tokens=23, prompt_lookup_num_tokens=5)


def test_a_cache_serves_later_calls_chunks_and_rows(model):
    prompt = tokens(2, 6)
    expected = texts(model, prompt, max_new_tokens=16)
    assert len({*expected[0][6:]}) > 4
    begun = model.generate(prompt, return_dict_in_generate=True, **GREEDY)
    assert isinstance(begun.cache, LoopedCache)
    assert begun.cache.get_seq_length() == 6 + 8 - 1
    assert texts(model, begun.sequences, cache=begun.cache) == expected
    assert texts(model, prompt, prefill_chunk_size=4, max_new_tokens=16) == expected
    cache = LoopedCache()
    with torch.no_grad():
        model(prompt[:1], cache=cache)
        cache.batch_repeat_interleave(2)
        assert (cache.batch_size, cache.get_seq_length()) == (2, 6)
        cache.crop(-2)
        cache.batch_select_indices(torch.tensor([1]))
        found = model(prompt[:1, 4:], cache=cache).logits
        torch.testing.assert_close(found, model(prompt[:1]).logits[:, 4:])
        cache.reset()
        torch.testing.assert_close(model(prompt[1:], cache=cache).logits, model(prompt[1:]).logits)
    with pytest.raises(ValueError, match="tokens_to_remove=1: expected at most 0"):
        cache.crop(1)
    with pytest.raises(ValueError, match="cache: expected one of this model"):
        to_hf(built(TINY))(prompt[1:], cache=cache)


@pytest.mark.parametrize("policy", ["last", "ring"])
def test_cache_policies_write_what_they_write_in_looped(model, policy: str):
    prompt = tokens(1, 6)
    how = {"max_new_tokens": 12, "num_loops": 4}
    cache = LoopedCache(policy=policy, cache_loops=2)
    found = texts(model, prompt, cache=cache, prefill_chunk_size=1, **how)
    expected = natively(model.looped, [prompt[0]], 12, num_loops=4, cache_policy=policy, cache_loops=2)
    assert [found[0][6:]] == expected
    assert found != texts(model, prompt, **how)
    with pytest.raises(ValueError, match="one at a time"):
        texts(model, prompt, cache=LoopedCache(policy=policy), **how)


def test_embeddings_may_replace_tokens(model):
    prompt = tokens(2, 6)
    embedded = model.get_input_embeddings()(prompt)
    assert texts(model, inputs_embeds=embedded) == [row[6:] for row in texts(model, prompt)]
    with pytest.raises(ValueError, match="expected either input_ids or inputs_embeds"):
        model(prompt, inputs_embeds=embedded)


def test_hidden_states_are_the_states_after_each_loop(model):
    prompt = tokens(2, 6)
    with torch.no_grad():
        found = model(prompt, num_loops=5, output_hidden_states=True).hidden_states
        expected = model.looped(prompt, num_loops=5, loop_states=True).loop_states
    assert torch.equal(torch.stack(found), expected)
    by_token = model.generate(prompt, output_hidden_states=True, return_dict_in_generate=True, **GREEDY).hidden_states
    assert [tuple(state.shape) for state in by_token[1]] == [(2, 1, 16)] * 3


def test_logits_to_keep_are_those_positions(model):
    prompt = tokens(2, 6)
    with torch.no_grad():
        every = model(prompt).logits
        assert torch.equal(model(prompt, logits_to_keep=2).logits, every[:, -2:])
        assert torch.equal(model(prompt, logits_to_keep=torch.tensor([1, 4])).logits, every[:, [1, 4]])


def test_exits_are_per_token_and_their_loops_are_returned(model):
    prompt = tokens(2, 6)
    with torch.no_grad():
        found = model(prompt, num_loops=6, exit_rule="change:0.5").loops_taken
    assert found.shape == (2, 6)
    assert all(row.unique().numel() > 1 for row in found)


def test_texts_in_one_row_stay_apart(model):
    """Positions that begin again begin a text, as collators without padding write them."""
    first, second = tokens(1, 5), tokens(1, 3, seed=1)
    row, positions = torch.cat([first, second], dim=1), torch.tensor([[0, 1, 2, 3, 4, 0, 1, 2]])
    with torch.no_grad():
        apart = model(row, position_ids=positions).logits
        torch.testing.assert_close(apart[:, 5:], model(second).logits)
        assert not torch.allclose(apart[:, 5:], model(row).logits[:, 5:])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_lops": 3}, r"num_lops"),
        ({"cache_implementation": "static"}, "cache_implementation='static': expected none"),
        ({"cache_implementation": "paged"}, "expected `generate` with a LoopedCache"),
        ({"cache": DynamicCache()}, "cache=DynamicCache: expected a LoopedCache"),
        ({"output_attentions": True, "return_dict_in_generate": True}, "output_attentions=True: expected False"),
        ({"max_new_tokens": 36}, r"prompt and new tokens=42: expected at most 41 together \(max_seq_len\)"),
        ({"num_loops": 1.5}, "num_loops=1.5: expected a whole number"),
        ({"num_loops": 0}, "num_loops=0: expected at least 1"),
        ({"exit_rule": "klo:0.1"}, r"exit rule 'klo:0.1': .*did you mean 'kl'"),
        ({"exit_rule": 3}, "exit_rule=3: expected an ExitRule"),
        ({"attention_mask": torch.eye(2, 5)}, r"attention_mask: has shape \(2, 5\); expected \(2, 6\)"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_call_that_cannot_run_says_why(model, options: dict, message: str):
    with pytest.raises(ValueError, match=message):
        texts(model, tokens(2, 6), **options)


def test_generate_computes_with_packed_weights_and_forgets_them(monkeypatch):
    """Greedy decoding has an int8 head, whose largest logit is exact; a penalty needs all logits."""
    monkeypatch.setattr(packing, "LEAST", 1)
    native = built(MODULATED)
    model, prompt, heads = to_hf(native), tokens(2, 6), []
    run = model.run

    def spy(*args, **kwargs):
        heads.append(type((model.packed or (native,))[0].head))
        return run(*args, **kwargs)

    model.run = spy
    few, many = texts(model, prompt), texts(model, prompt, max_new_tokens=16)
    texts(model, prompt, max_new_tokens=16, repetition_penalty=1.1)
    texts(model, prompt, max_new_tokens=16, num_beams=2)
    assert heads == [torch.nn.Linear] * 8 + [Int8Linear] * 16 + [PackedLinear] * 32
    assert [row[:14] for row in many] == few
    assert model.packed == ()
    assert [row[6:] for row in many] == natively(native, list(prompt), 16)
