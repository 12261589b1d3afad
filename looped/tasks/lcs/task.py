"""Longest common subsequence of two strings."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

from looped.tasks.lcs.config import LCSConfig
from looped.tasks.registry import register
from looped.tasks.strings import StringTask, Tokens, corrected_tokens


@register("lcs")
class LongestCommonSubsequence(StringTask):
    """The length of the longest string that both strings contain, gaps allowed.

    Example: `kitten` and `sitting` share `ittn`, so the answer is 4. The input is
    `k i t t e n | s i t t i n g <sep>`, and the target at `<sep>` is class 4.

    Pairs: the first string has n letters from an alphabet drawn for the pair. In 40% of draws the second string has
    independent letters; otherwise it is a copy after e//3 .. e-1 edits (e uniform in 1 .. n). Half of the edits are
    deletions, the others insertions. In the published version these "insertions" replace. Equal strings, and copies
    whose length is not in n-3 .. n+2, are drawn again. The order of a pair is random.
    """

    Config = LCSConfig
    title = "Longest common subsequence"
    shorter_first = False

    def __init__(self, config: LCSConfig) -> None:
        super().__init__(config)
        self.edits = ("delete", "insert" if config.version == "corrected" else "replace")

    def _tokens(self) -> Tokens:
        n = self.longest
        num_answers = n + 2  # two strings of n+1 letters may be read
        if self.version == "corrected":
            return corrected_tokens(num_answers)
        # pad 0, sep 1, eos 2, | 3, a-z 4..29, k = 30 + k; 2n + 10 tokens, the last is no input. The public size 2n + 4
        # omits the 26 letters, and is smaller than its own ids below n = 28.
        size = max(2 * n + 4, 30 + num_answers)
        return Tokens(
            bar=3, letter_a=4, first_answer=30, num_answers=num_answers, vocab_size=size, output_size=size, extra=7
        )

    def answers(self, pairs: Sequence[tuple[str, str]]) -> Int[np.ndarray, " pairs"]:
        from rapidfuzz.distance import LCSseq  # imported here because the list of tasks does not need it

        return np.array([LCSseq.similarity(first, second) for first, second in pairs], np.int64)

    def _num_edits(self, strength: Int[np.ndarray, " pairs"], rng: np.random.Generator) -> Int[np.ndarray, " pairs"]:
        return rng.integers(strength // 3, strength)
