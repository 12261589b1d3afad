"""Generation against a plain loop, and what it refuses."""

import dataclasses

import pytest
import torch
from model_cases import TINY

from looped.models import LoopedTransformer
from looped.models.generation import generate

CONFIG = dataclasses.replace(
    TINY, inputs="tokens", vocab_size=11, output_size=13, max_seq_len=6, causal=True, num_loops=2
)
PROMPT = torch.tensor([3, 1, 4])


@pytest.fixture(scope="module")
def model() -> LoopedTransformer:
    model = LoopedTransformer(CONFIG, seed=2)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.5 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(parameter.numel()))
    return model


def write(model: LoopedTransformer, seed: int = 0, **options) -> list[int]:
    options = {"count": 12, "vocab_size": 11, **options}
    return list(generate(model, PROMPT, generator=torch.Generator().manual_seed(seed), **options))


@pytest.mark.parametrize("loops", [None, 1, 5])
def test_greedy_is_the_most_probable_token_each_time(model: LoopedTransformer, loops: int | None):
    expected = PROMPT.tolist()
    for _ in range(12):
        with torch.no_grad():
            logits = model(torch.tensor([expected[-6:]]), num_loops=loops).logits
        expected.append(int(logits[0, -1, :11].argmax()))
    assert write(model, temperature=0.0, num_loops=loops) == expected[3:]
    assert write(model, temperature=0.0, num_loops=loops, seed=9) == expected[3:]
    assert write(model, top_k=1, num_loops=loops, seed=9) == expected[3:]


def test_the_generator_alone_decides(model: LoopedTransformer):
    state = torch.get_rng_state()
    assert write(model) == write(model) != write(model, seed=1)
    assert torch.equal(torch.get_rng_state(), state)


def test_draws_follow_the_distribution(model: LoopedTransformer):
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        logits = model(PROMPT[None]).logits[0, -1, :11].double()
    kept = logits.topk(4).indices
    chances = torch.zeros(11, dtype=torch.double)
    chances[kept] = (logits[kept] / 0.7).softmax(-1)
    drawn = [
        token
        for _ in range(800)
        for token in generate(model, PROMPT, count=1, generator=generator, temperature=0.7, top_k=4, vocab_size=11)
    ]
    shares = torch.bincount(torch.tensor(drawn), minlength=11) / 800
    assert (chances > 0.05).sum() > 1  # there is something to choose
    assert (shares[chances == 0] == 0).all()
    torch.testing.assert_close(shares.double(), chances, atol=0.06, rtol=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prompt": torch.zeros(0, dtype=torch.long)}, "a prompt of 0 tokens: expected 1 to max_seq_len=6"),
        ({"prompt": torch.zeros(7, dtype=torch.long)}, "a prompt of 7 tokens: expected 1 to max_seq_len=6"),
        ({"count": 0}, "tokens=0: expected at least 1"),
        ({"temperature": -1.0}, "temperature=-1.0: expected at least 0"),
        ({"temperature": float("nan")}, "temperature=nan: expected at least 0"),
        ({"top_k": 0}, "top_k=0: expected at least 1"),
        ({"num_loops": 0}, "num_loops"),
    ],
)
def test_bad_settings(model: LoopedTransformer, options: dict, message: str):
    settings = {"prompt": PROMPT, "count": 1, "generator": torch.Generator(), **options}
    with pytest.raises(ValueError, match=message):
        list(generate(model, settings.pop("prompt"), **settings))


def test_only_a_causal_model_writes():
    with pytest.raises(ValueError, match="expected a causal model"):
        write(LoopedTransformer(dataclasses.replace(CONFIG, causal=False)))
