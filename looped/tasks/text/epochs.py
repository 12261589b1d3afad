"""Training windows in epochs: every window of the text once, in an order that is computed and never stored."""

import zlib
from math import isqrt

import numpy as np
from jaxtyping import Int

ROUNDS = 16  # with 8, the permutations of 5 or 6 windows are not equally probable
STREAM = zlib.crc32(b"epochs")  # keeps these random numbers apart from those of `Task.rng`


def epoch_starts(first: int, size: int, *, tokens: int, context: int, seed: int) -> Int[np.ndarray, " size"]:
    """The first tokens of the windows `first` to `first + size - 1` of a training.

    Each epoch cuts the ring of tokens (see `Tokens`) into windows at another place, and has its own order. Every token
    is then a target once in an epoch, except fewer than `context` that are left between the last window and the first.

    Args:
        first: number of a window, counted from 0 at the beginning of the training.
        size: number of windows.
        tokens: number of tokens that are targets: all but the first, at least `context`.
        context: number of tokens in a window.
    """
    windows = tokens // context
    parts = []
    for epoch in range(first // windows, -(-(first + size) // windows)):
        begin = epoch * windows
        numbers = np.arange(max(first, begin), min(first + size, begin + windows)) - begin
        rng = np.random.default_rng([seed, epoch, STREAM])
        parts.append((rng.integers(tokens) + context * permuted(numbers, windows, rng)) % tokens)
    return np.concatenate(parts)


def permuted(numbers: Int[np.ndarray, " some"], size: int, rng: np.random.Generator) -> Int[np.ndarray, " some"]:
    """The places of some numbers below `size` in a pseudo-random permutation of all of them, which `rng` decides.

    A Feistel network over pairs of numbers below a and b, where a * b is hardly more than `size`. It is repeated for
    the few places that lie beyond (Black and Rogaway, 2002, "Ciphers with arbitrary finite domains").
    """
    a = isqrt(size - 1) + 1
    b = -(-size // a)
    keys = rng.integers(1 << 64, size=ROUNDS, dtype=np.uint64)

    def network(places: np.ndarray) -> np.ndarray:
        left, right = np.divmod(places, np.uint64(b))
        for number, key in enumerate(keys):
            if number % 2:
                right = (right + mixed(left + key)) % np.uint64(b)
            else:
                left = (left + mixed(right + key)) % np.uint64(a)
        return left * np.uint64(b) + right

    places = network(numbers.astype(np.uint64))
    while (beyond := places >= size).any():
        places[beyond] = network(places[beyond])
    return places.astype(np.int64)


def mixed(values: np.ndarray) -> np.ndarray:
    """Hash each uint64 (the finaliser of SplitMix64; Steele et al., 2014). The products overflow on purpose."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
