"""Contextual mapping against counting, on all sequences, with duplicates, exact and in floats."""

import itertools
from collections import Counter

import numpy as np
import pytest
import torch

from looped.theory.arithmetic import exact
from looped.theory.contextual_mapping import contextual_map, sequence_id
from looped.theory.weights import write


def by_counting(tokens, vocabulary):
    """The ID as a number whose digits are the tokens, most frequent value of all first: written with a Counter."""
    digits = [z for z in range(vocabulary - 1, -1, -1) for _ in range(Counter(tokens)[z])]
    return int("".join(np.base_repr(z, vocabulary) for z in digits), vocabulary) if vocabulary > 1 else 0


@pytest.mark.parametrize(("vocabulary", "seq"), [(3, 2), (8, 2), (4, 3), (4, 4), (3, 5), (9, 2), (2, 1), (1, 3)])
def test_all_sequences(vocabulary, seq):
    tokens = np.array(list(itertools.product(range(vocabulary), repeat=seq)))
    expected = np.array([by_counting(row.tolist(), vocabulary) for row in tokens])[:, None].repeat(seq, 1)
    program = contextual_map(vocabulary, seq)
    assert (program.circuit.cost().units, program.circuit.cost().heads, program.loops) == (7, 2, seq)
    assert (program.run(exact(tokens[..., None]))[..., 0] == expected).all()
    assert (program.run(tokens[..., None].astype(float))[..., 0] == expected).all()
    assert (sequence_id(tokens, vocabulary) == expected[:, 0]).all()
    pairs = {(tuple(sorted(row)), z): vocabulary * a[0] + z for row, a in zip(tokens.tolist(), expected, strict=True)
             for z in row}  # fmt: skip
    assert len(set(pairs.values())) == len(pairs)
    assert max(pairs.values()) == vocabulary ** (seq + 1) - 1


@pytest.mark.parametrize("number", [object, float])
def test_many_duplicates_in_long_sequences(number):
    rng = np.random.default_rng(0)
    seq, vocabulary = (16, 50) if number is object else (8, 40)
    tokens = rng.integers(0, vocabulary, (20, seq))
    tokens[:, seq // 2 :] = tokens[:, : seq // 2]
    assert number is float or sequence_id(tokens.astype(object), vocabulary).max() > 2**80
    got = contextual_map(vocabulary, seq).run(exact(tokens[..., None]) if number is object else tokens[..., None] * 1.0)
    assert (got[..., 0] == sequence_id(tokens.astype(object), vocabulary)[:, None]).all()


def test_stays_as_it_is_after_the_last_loop():
    program = contextual_map(5, 3)
    tokens = np.random.default_rng(0).integers(0, 5, (30, 3, 1)) * 1.0
    states = list(program.circuit.states(program.start(tokens), 12))
    acc = program.circuit.registers.index("acc")
    assert not np.array_equal(states[1][..., acc], states[2][..., acc])
    assert all(np.array_equal(states[2][..., acc], state[..., acc]) for state in states[3:])


def test_dropping_all_copies_at_once_would_merge_sequences():
    """Without the count of consumed copies most IDs coincide."""
    multisets = list(itertools.combinations_with_replacement(range(8), 4))
    assert (len(multisets), len({frozenset(m) for m in multisets})) == (330, 162)


def test_softmax_becomes_hardmax():
    vocabulary, seq = 8, 3
    tokens = torch.tensor(list(itertools.product(range(vocabulary), repeat=seq)), dtype=torch.float64)[..., None]
    program = contextual_map(vocabulary, seq)
    hard = write(program, seq)(tokens).logits
    assert torch.equal(hard[:, 0, 0], torch.from_numpy(sequence_id(tokens[..., 0].numpy(), vocabulary)))
    errors = [
        (write(program, seq, inverse_temperature=scale)(tokens).logits - hard).abs().max().item()
        for scale in (5.0, 10.0, 20.0, 40.0)
    ]
    assert errors == sorted(errors, reverse=True)
    assert errors[0] > 1
    assert errors[2] < 1e-4
    assert errors[3] < 1e-9


def test_bad_sizes():
    with pytest.raises(ValueError, match="seq=0"):
        contextual_map(3, 0)
