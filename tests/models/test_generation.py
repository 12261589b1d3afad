"""Generation against a plain loop without a cache, and what it refuses."""

import copy
import dataclasses

import jaxtyping
import pytest
import torch
from model_cases import TINY

from looped.models import KLDivergence, LoopedTransformer, StateChange, Unchanged, parse_rule
from looped.models.generation import Sampling, generate, stream

pytestmark = pytest.mark.usefixtures("one_thread")

CONFIG = dataclasses.replace(
    TINY, inputs="tokens", vocab_size=11, output_size=13, max_seq_len=6, causal=True, num_loops=2
)
VARIANTS = {
    "learned": CONFIG,
    "rotary": dataclasses.replace(CONFIG, positions="rotary", coda_layers=1, prelude_layers=1),
    "trained_sharing": dataclasses.replace(CONFIG, num_loops=3, cache="first", cache_loops=2),
}
PROMPT = torch.tensor([3, 1, 4])
GREEDY = Sampling(temperature=0.0)


def built(config) -> LoopedTransformer:
    model = LoopedTransformer(config, seed=2).double()
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(parameter.numel() + 2))
            parameter += 0.5 * noise
    return model


@pytest.fixture(scope="module")
def model() -> LoopedTransformer:
    return built(CONFIG)


def write(model: LoopedTransformer, prompt: torch.Tensor = PROMPT, **options) -> list[int]:
    return generate(model, [prompt], **{"max_new_tokens": 12, "vocab_size": 11, **options})[0]


def plainly(model: LoopedTransformer, prompt: torch.Tensor, count: int, **how) -> list[int]:
    """A full forward pass for every token; of a text of 6 tokens, which fills the positions, half is forgotten."""
    seen, written = prompt.tolist(), []
    for _ in range(count):
        with torch.no_grad():
            logits = model(torch.tensor([seen]), **how).logits
        written.append(int(logits[0, -1, :11].argmax()))
        seen = [*(seen[-3:] if len(seen) == 6 else seen), written[-1]]
    return written


@pytest.mark.parametrize("name", list(VARIANTS))
@pytest.mark.parametrize("loops", [None, 1, 5])
def test_greedy_is_the_most_probable_token_each_time(name: str, loops: int | None):
    model = built(VARIANTS[name])
    expected = plainly(model, PROMPT, 12, num_loops=loops)
    assert len(set(expected)) > 1
    assert write(model, num_loops=loops, sampling=GREEDY, seed=9) == expected
    assert write(model, num_loops=loops, sampling=Sampling(top_k=1), seed=9) == expected
    assert write(model, sampling=GREEDY, num_loops=loops, chunk=2) == expected


@pytest.mark.parametrize("name", list(VARIANTS))
@pytest.mark.parametrize("sampling", [GREEDY, Sampling(temperature=0.8, top_p=0.9)])
def test_a_text_does_not_depend_on_the_others_of_its_batch(name: str, sampling: Sampling):
    """Prompts of different lengths, that end at different times, and fill the positions at different times."""
    model = built(VARIANTS[name])
    prompts = [torch.tensor(ids) for ids in ([3, 1, 4], [1, 5, 9, 2, 6, 5], [3], [5, 8])]
    options = {"max_new_tokens": 14, "sampling": sampling, "vocab_size": 11, "stop": [7, 8], "seed": 1}
    together = generate(model, prompts, **options)
    assert len({len(text) for text in together}) > 1, "some must end early"
    assert max(map(len, together)) > 6, "some must fill the positions"
    for row, text in enumerate(together):
        before = [torch.tensor([0])] * row  # a row of the same number has the same draws
        assert generate(model, [*before, prompts[row]], **options)[row] == text


@pytest.mark.parametrize("policy", ["first", "last", "ring"])
def test_a_text_depends_neither_on_chunks_nor_on_its_batch_with_any_cache_policy(policy: str):
    model = built(dataclasses.replace(CONFIG, max_seq_len=24, num_loops=4))
    prompts = [torch.arange(n) % 11 for n in (2, 7, 1, 12)]
    options = {"max_new_tokens": 30, "sampling": GREEDY, "vocab_size": 11}
    texts = [generate(model, prompts, **options, cache_policy=policy, chunk=chunk) for chunk in (1, 4, 99)]
    assert texts[0] == texts[1] == texts[2] != generate(model, prompts, **options), "the policy must matter"
    assert texts[0] == [generate(model, [prompt], **options, cache_policy=policy)[0] for prompt in prompts]


EVERY = {
    "plain": dataclasses.replace(CONFIG, max_seq_len=12, num_loops=3),
    "sections": dataclasses.replace(
        CONFIG, max_seq_len=12, positions="rotary", prelude_layers=1, coda_layers=1, modulation="scale_gate"
    ),
}


@pytest.fixture
def unchecked():
    """Checks of types in every call would take most of the time."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("policy", [None, "first", "last", "ring"])
@pytest.mark.parametrize("rule", [None, "kl:0.05/token"])
@pytest.mark.parametrize("name", list(EVERY))
def test_every_policy_rule_and_chunk_writes_the_text_of_each_prompt_alone(name: str, rule: str | None, policy):
    """Padding, other loops than in training, texts that end early and texts that fill the positions; and the loops."""
    model = built(EVERY[name])
    prompts = [torch.arange(n) * 7 % 11 for n in (1, 5, 12)]
    ends = lambda written: len(written) > 2 and written[-1] < written[-2]  # noqa: E731
    kept = 2 if policy in ("last", "ring") else None
    for loops, sampling in ((6, GREEDY), (2, Sampling(temperature=0.9, top_p=0.9))):
        options = {
            "max_new_tokens": 5, "sampling": sampling, "vocab_size": 11, "stop": ends, "seed": 2, "num_loops": loops,
            "exit_rule": rule and parse_rule(rule), "cache_policy": policy, "cache_loops": kept,
        }  # fmt: skip

        def texts(prompts, chunk, options=options):
            written = [[] for _ in prompts]
            for token in stream(model, prompts, chunk=chunk, **options):
                written[token.row].append((token.token, token.loops))
            return written

        alone = [texts([torch.tensor([0])] * row + [prompt], 1)[row] for row, prompt in enumerate(prompts)]
        for chunk in (1, 4):
            assert texts(prompts, chunk) == alone


@pytest.mark.parametrize("name", ["learned", "rotary"])
@pytest.mark.parametrize("rule", [StateChange(threshold=0.6), Unchanged(), KLDivergence(threshold=0.05)])
def test_exits_decide_each_token(name: str, rule):
    model = built(dataclasses.replace(VARIANTS[name], max_seq_len=16))
    each = dataclasses.replace(rule, per="token")
    seen, expected = PROMPT.tolist(), []
    for _ in range(10):
        with torch.no_grad():
            output = model(torch.tensor([seen]), num_loops=8, exit_rule=each)
        expected.append((int(output.logits[0, -1, :11].argmax()), int(output.loops_taken[0, -1])))
        seen.append(expected[-1][0])
    assert len({loops for _, loops in expected}) > 1, "tokens must differ in their loops"
    prompts = [PROMPT, torch.tensor([9, 9, 1, 2])]
    options = {"max_new_tokens": 10, "sampling": GREEDY, "vocab_size": 11, "num_loops": 8, "exit_rule": rule}
    written = [w for w in stream(model, prompts, **options) if w.row == 0]
    assert [(w.token, w.loops) for w in written] == expected
    assert [w.last for w in written] == [False] * 9 + [True]


def test_stop_ends_a_text_with_a_token_or_a_condition(model: LoopedTransformer):
    whole = write(model)
    token = whole[5]
    assert write(model, stop=[token]) == whole[: whole.index(token) + 1]
    assert write(model, stop=lambda written: len(written) == 3) == whole[:3]


def test_the_seed_alone_decides(model: LoopedTransformer):
    state = torch.get_rng_state()
    assert write(model) == write(model) != write(model, seed=1)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    "sampling", [Sampling(temperature=0.7), Sampling(temperature=0.7, top_k=4), Sampling(temperature=0.7, top_p=0.8)]
)
def test_draws_follow_the_distribution(model: LoopedTransformer, sampling: Sampling):
    with torch.no_grad():
        model = copy.deepcopy(model)
        model.head.weight *= 0.2  # so that several tokens are probable
        logits = model(PROMPT[None]).logits[0, -1, :11].double()
    kept = logits.topk(sampling.top_k or 11).indices
    if sampling.top_p:
        order = logits.argsort(descending=True)
        total = (logits / 0.7).softmax(-1)[order].cumsum(0)
        kept = order[: int((total < 0.8).sum()) + 1]
    chances = torch.zeros(11, dtype=torch.double)
    chances[kept] = (logits[kept] / 0.7).softmax(-1)
    texts = generate(model, [PROMPT] * 2000, max_new_tokens=1, sampling=sampling, vocab_size=11)
    shares = torch.bincount(torch.tensor(texts).flatten(), minlength=11) / 2000
    assert (chances > 0.05).sum() > 1  # there is something to choose
    assert len(kept) < 11 or sampling == Sampling(temperature=0.7)
    assert (shares[chances == 0] == 0).all()
    torch.testing.assert_close(shares.double(), chances, atol=0.04, rtol=0)


@pytest.mark.parametrize("top_k", [None, 1, 7, 5000])
@pytest.mark.parametrize("top_p", [None, 1e-9, 0.3, 0.95, 1.0])
def test_probabilities_are_those_of_the_tokens_that_may_be_drawn(top_k: int | None, top_p: float | None):
    for size, spread, temperature in ((1, 1, 1.0), (11, 1, 0.5), (300, 5, 1.0), (300, 0, 1.0), (1000, 0.1, 2.0)):
        logits = spread * torch.randn(size, generator=torch.Generator().manual_seed(size))
        chances, ids = Sampling(top_k=top_k, top_p=top_p, temperature=temperature).probabilities(logits)
        values, order = (logits.double() / temperature).sort(descending=True, stable=True)
        expected = values[:top_k].softmax(-1)
        kept = max(1, int((expected.cumsum(0) - expected < (1.1 if top_p is None else top_p)).sum()))
        found = torch.zeros(size, dtype=torch.double).scatter(0, ids, chances)
        if spread:  # equal logits may be chosen in any order
            wanted = torch.zeros(size, dtype=torch.double)
            wanted[order[:kept]] = expected[:kept] / expected[:kept].sum()
            torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-12)
        assert abs(int((found > 0).sum()) - kept) <= (0 if spread else 1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prompts": []}, "prompts: expected at least one"),
        ({"prompts": [torch.zeros(0, dtype=torch.long)]}, "a prompt of 0 tokens: expected 1 to max_seq_len=6"),
        ({"prompts": [torch.zeros(7, dtype=torch.long)]}, "a prompt of 7 tokens: expected 1 to max_seq_len=6"),
        ({"prompts": [torch.tensor([3, 11])]}, "token 11: expected 0 to 10"),
        ({"max_new_tokens": 0}, "max_new_tokens=0: expected at least 1"),
        ({"num_loops": 0}, "num_loops=0: expected at least 1"),
        ({"chunk": 0}, "chunk=0: expected at least 1"),
        ({"cache_loops": 2, "cache_policy": "all"}, "cache_loops=2"),
        ({"vocab_size": None}, "vocab_size=13: expected at most 11, the tokens that the model can read"),
    ],
)
def test_bad_settings(model: LoopedTransformer, options: dict, message: str):
    settings = {"prompts": [PROMPT], "max_new_tokens": 1, "vocab_size": 11, **options}
    with pytest.raises(ValueError, match=message):
        list(stream(model, settings.pop("prompts"), **settings))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": float("inf")}, "temperature=inf: expected at least 0, and finite"),
        ({"temperature": -1.0}, "temperature=-1.0: expected at least 0"),
        ({"temperature": float("nan")}, "temperature=nan: expected at least 0"),
        ({"top_k": 0}, "top_k=0: expected at least 1"),
        ({"top_p": 0.0}, "top_p=0.0: expected above 0"),
    ],
)
def test_bad_sampling(options: dict, message: str):
    with pytest.raises(ValueError, match=message):
        Sampling(**options)


def test_a_temperature_near_zero_takes_the_most_probable_token(model: LoopedTransformer):
    assert write(model, sampling=Sampling(temperature=1e-310)) == write(model, sampling=GREEDY)


@pytest.mark.parametrize("sampling", [GREEDY, Sampling()])
def test_logits_that_are_not_finite_choose_no_token(model: LoopedTransformer, sampling: Sampling):
    model = copy.deepcopy(model)
    with torch.no_grad():
        model.head.weight.mul_(1e308)
    with pytest.raises(ValueError, match="logits: expected finite numbers"):
        write(model, sampling=sampling)


def test_only_a_causal_model_writes():
    with pytest.raises(ValueError, match="expected a causal model"):
        write(LoopedTransformer(dataclasses.replace(CONFIG, causal=False)))
