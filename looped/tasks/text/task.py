"""Language modelling: predict every next token of a text."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Float, Int, Integer

from looped.lazy import torch
from looped.tasks.base import Batch, Split, Task, TaskSpec, rows_of_part
from looped.tasks.continuation import Tokenizer, continuation
from looped.tasks.registry import register
from looped.tasks.text.config import TextConfig
from looped.tasks.text.corpus import Corpus, corpus_in_memory, open_corpus, without_text
from looped.tasks.text.epochs import epoch_starts
from looped.tasks.text.sources import utf8
from looped.tasks.text.tokenizer import ByteTokenizer, read_tokenizer, write_tokenizer
from looped.tasks.text.tokens import Tokens

SHOWN = 8  # tokens in a visualisation
SAVED_TOKENIZER = "tokenizer.json"


class Window(NamedTuple):
    """Tokens, their next tokens, and the number of scored positions at the end: 0 for a prompt, 1 .. seq for a text."""

    inputs: Integer[np.ndarray, " seq"]
    targets: Integer[np.ndarray, " seq"]
    scored: int


@register("text")
class Text(Task):
    """Windows of `context` tokens; the target at each position is the next token.

    With bytes, the prompt "Hi" becomes an end of text, H, i. The answer is the most probable next byte:

    >>> prompts, skipped = task.read(["Hi"], "example", "stop")  # doctest: +SKIP
    >>> task.encode(prompts).inputs  # doctest: +SKIP
    tensor([[256,  72, 105]])

    The corpus is prepared when the task is made (see `corpus.py`). Training draws windows anywhere in the split, with
    replacement, or takes each token once in an epoch (`order`, see `epochs.py`). The test groups are two ways to
    measure perplexity, exp(mean nats per token):

    - sliding: the whole split. Windows move by `stride`, and each scores the tokens that the previous one did not
      reach. Every token counts exactly once, after at least context - stride others, except near the beginning. The
      same total gives word_perplexity and byte_perplexity, exp(total nats / words between white space) and exp(total
      nats / bytes of UTF-8), which do not depend on the tokenizer. Ends of text are tokens, but not words.
    - published: windows drawn with replacement, all tokens scored, as in the public code of Xu & Sato (ICML 2025).

    The 95% intervals are over windows. They weight windows by their scored tokens and treat them as independent.
    """

    Config = TextConfig

    metric = "perplexity"
    lower_is_better = True
    groups = ("sliding", "published")
    whole_groups = ("sliding",)

    @classmethod
    def example_config(cls, folder: Path) -> TextConfig:
        """A text that always exists: this file."""
        return TextConfig(train_files=(__file__,), document="line", context=24, cache=str(folder))

    @classmethod
    def from_documents(
        cls, config: TextConfig, documents: Mapping[str, Iterable[str]] | Iterable[str], tokenizer: Any = None
    ) -> Text:
        """The task on documents in memory, such as a column of a data set, for a training loop of your own.

        >>> Text.from_documents(TextConfig(context=64), dataset["text"], hugging_face_tokenizer)  # doctest: +SKIP

        Args:
            config: settings that name no text.
            documents: by split (train, validation, test); or all documents, whose content decides their splits.
            tokenizer: a fast tokenizer of transformers, a `tokenizers.Tokenizer`, or an object with the methods of
                `looped.tasks.base.Tokenizer`; None is the tokenizer of the settings.

        Raises:
            ValueError: the settings name a text, there is too little text, or the object is not a tokenizer.
        """
        return cls(config, corpus_in_memory(config, documents, tokenizer))

    def __init__(self, config: TextConfig, corpus: Corpus | None = None) -> None:
        super().__init__(config)
        self.corpus = corpus or open_corpus(config)
        self.tokenizer: Tokenizer = self.corpus.tokenizer  # pyright: ignore[reportIncompatibleVariableOverride]
        self._warned = False  # that the tokenizer loses a part of a prompt
        self.stride = config.stride or max(1, config.context // 2)
        size = self.tokenizer.vocab_size
        self.spec = TaskSpec(vocab_size=size, output_size=size, max_seq_len=config.context, causal=True)

    def __reduce__(self) -> tuple[type[Text], tuple[TextConfig, Corpus]]:
        return Text, (self.config, self.corpus)

    def sources(self) -> dict[str, str]:
        """The sha256 of each text file, or of the files or the fingerprints of a data set."""
        return dict(self.corpus.sources)

    def save(self, folder: Path) -> None:
        """Write the tokenizer with its end of text, unless the tokens are bytes.

        Raises:
            ValueError: the tokenizer is an object without a JSON form.
        """
        if not isinstance(self.tokenizer, ByteTokenizer):
            write_tokenizer(folder / SAVED_TOKENIZER, self.tokenizer)

    @classmethod
    def answering(cls, config: TextConfig) -> Text:
        """The task without its corpus.

        Raises:
            ValueError: the tokenizer cannot be read, or it is trained on the text.
        """
        return cls(config, without_text(config))

    @classmethod
    def load(cls, config: TextConfig, folder: Path) -> Text:
        """The task without its corpus. It answers, but does not sample.

        Raises:
            ValueError: the folder holds no tokenizer.
        """
        tokenizer = ByteTokenizer() if config.tokenizer == "bytes" else read_tokenizer(folder / SAVED_TOKENIZER)
        return cls(config, Corpus(None, tokenizer, tokens={}, counts={}))

    def available(self, split: Split, group: str | None = None) -> int | None:
        """Number of windows of the sliding window; there is no limit for random windows."""
        if group != "sliding":
            return None
        rest = len(self.corpus.tokens[split]) - 1 - self.config.context
        return 1 + -(-rest // self.stride)

    def sample(self, split: Split, size: int, rng: np.random.Generator, group: str | None = None) -> list[Window]:
        """Draw windows; see `Task.sample`.

        Raises:
            ValueError: the group is unknown.
        """
        if group is not None and group not in self.groups:
            raise ValueError(f"group={group!r}: expected one of {', '.join(self.groups)}")
        tokens, context = self.corpus.tokens[split], self.config.context
        last = len(tokens) - 1 - context  # the last position at which a window can begin
        if group == "sliding":
            count = self.available(split, group) or 0
            numbers = np.sort(rng.choice(count, size, replace=size > count))
            starts = np.minimum(numbers * self.stride, last)
            before = np.minimum((numbers - 1) * self.stride, last)
            scored = np.where(numbers == 0, context, starts - before)
        else:
            starts = rng.integers(0, last, size, endpoint=True)
            scored = np.full(size, context)
        return _windows(tokens, context, starts, scored)

    def batch(
        self,
        split: Split,
        step: int,
        size: int,
        *,
        seed: int,
        group: str | None = None,
        part: tuple[int, int] = (0, 1),
    ) -> Batch:
        """The batch of a step; see `Task.batch`. In epochs the windows are numbered through all steps.

        Raises:
            ValueError: a token is not in the vocabulary.
        """
        if self.config.order == "random" or split != "train" or group is not None:
            return super().batch(split, step, size, seed=seed, group=group, part=part)
        rows, tokens, context = rows_of_part(size, part), self.corpus.tokens["train"], self.config.context
        starts = epoch_starts(
            step * size + rows.start, rows.stop - rows.start, tokens=len(tokens) - 1, context=context, seed=seed
        )
        return self.encode(_windows(tokens, context, starts, np.full(len(starts), context)))

    def encode(self, problems: Sequence[Window]) -> Batch:
        """Windows as tokens. Shorter prompts are padded on the right, which causal attention never reaches.

        Raises:
            ValueError: a token is not in the vocabulary, because a file is damaged.
        """
        lengths = np.array([len(problem.inputs) for problem in problems])[:, None]
        scored = np.array([problem.scored for problem in problems])[:, None]
        places = np.arange(lengths.max())
        inputs, targets = np.zeros((2, len(problems), len(places)), np.int64)
        attention_mask = places < lengths
        for row, problem in enumerate(problems):
            inputs[row, : len(problem.inputs)] = problem.inputs
            targets[row, : len(problem.inputs)] = problem.targets
        if (largest := max(inputs.max(), targets.max())) >= self.tokenizer.vocab_size:
            raise ValueError(
                f"{self.corpus.folder}: token {largest} is out of range; expected ids below "
                f"{self.tokenizer.vocab_size}; delete the folder to prepare it again"
            )
        return Batch(
            *map(torch.from_numpy, (inputs, targets, attention_mask & (places >= lengths - scored), attention_mask))
        )

    def score(
        self, batch: Batch, logits: Float[torch.Tensor, "batch seq output"]
    ) -> dict[str, Float[torch.Tensor, " batch"]]:
        """loss: mean cross-entropy in nats over the scored tokens of the window."""
        nats = torch.nn.functional.cross_entropy(
            logits.flatten(0, 1), batch.targets.flatten(), reduction="none"
        ).view_as(batch.targets)
        return {"loss": (nats * batch.mask).sum(1) / batch.mask.sum(1)}

    def weights(self, batch: Batch) -> Float[torch.Tensor, " batch"]:
        """The number of scored tokens of each window."""
        return batch.mask.sum(1).double()

    def reported(self, metric: str, mean: float, split: Split, group: str | None = None) -> dict[str, float]:
        """Perplexities: per token, and for sliding also per word and per byte, if the tokens give the text back."""
        values = {"perplexity": mean}
        if group == "sliding" and not self.corpus.lost:  # a text without what was lost would be easier
            counts = self.corpus.counts[split]
            values |= {f"{part}_perplexity": mean * counts["tokens"] / counts[f"{part}s"] for part in ("word", "byte")}
        # Beyond 700 nats, when nothing was learned, the exponential would overflow.
        return {name: math.exp(min(nats, 700.0)) for name, nats in values.items()}

    # Answering, reading and showing

    def _next(
        self, problem: Window, logits: Float[torch.Tensor, "*loops seq output"]
    ) -> Float[torch.Tensor, "*loops vocab"]:
        """Probabilities of the next token after the prompt. Outputs that belong to no token are cut off."""
        return logits[..., len(problem.inputs) - 1, : self.tokenizer.vocab_size].double().cpu().softmax(-1)

    def _text(self, problem: Window) -> str:
        """The inputs as text, without the end of text at the beginning."""
        return self.tokenizer.decode(self._shown(problem))

    def _shown(self, problem: Window) -> list[int]:
        ids = problem.inputs.tolist()
        return ids[1:] if ids[0] == self.tokenizer.end else ids

    def _word(self, problem: Window, token: int) -> str:
        """The text that a token adds after the inputs."""
        return continuation(self.tokenizer, self._shown(problem), [token])

    def _expected(self, problem: Window) -> str:
        return self._word(problem, int(problem.targets[-1])) if problem.scored else ""

    def answer(self, problem: Window, logits: Float[torch.Tensor, "seq output"]) -> dict[str, Any]:
        """The most probable next token."""
        confidence, token = self._next(problem, logits).max(-1)
        return {"answer": self._word(problem, int(token)), "valid": None, "confidence": float(confidence)}

    def to_text(self, problem: Window) -> dict[str, str]:
        return {"input": self._text(problem), "expected": self._expected(problem)}

    def prompt(self, text: str) -> Int[np.ndarray, " seq"]:
        """The tokens of the beginning of a document: an end of text, then `text`.

        Raises:
            ValueError: the text is empty, is no Unicode, or longer than the context.
        """
        if not text:
            raise ValueError("empty prompt; expected some text to continue")
        try:
            utf8(text)
        except ValueError:
            raise ValueError(f"a prompt that is not UTF-8 text: {text[:40]!a}") from None
        ids = [self.tokenizer.end, *self.tokenizer.encode([text])[0]]
        if len(ids) > self.config.context:
            raise ValueError(
                f"a prompt of {len(ids)} tokens, the end of text before it included; expected at most "
                f"task.context={self.config.context}"
            )
        back = continuation(self.tokenizer, ids[:1], ids[1:])
        if back != text and not self._warned:
            self._warned = True
            print(f"the tokenizer does not give the prompt back: {text[:40]!r} becomes {back[:40]!r}", file=sys.stderr)
        return np.array(ids, np.int64)

    def read(self, lines: Sequence[str], source: str, on_bad_row: Literal["stop", "skip"]) -> tuple[list[Window], int]:
        """Read one prompt a line; blank lines are ignored. The answer to a prompt is the next token.

        Raises:
            ValueError: a bad prompt (on_bad_row=stop), named by `source`, line and reason; or no prompt at all.
        """
        prompts, bad = [], 0
        for number, line in enumerate(lines, start=1):
            if line.strip():
                try:
                    ids = self.prompt(line.removesuffix("\r"))
                    prompts.append(Window(ids, np.zeros_like(ids), 0))
                except ValueError as error:
                    if on_bad_row == "stop":
                        raise ValueError(f"{source}, line {number}: {error}") from None
                    bad += 1
        if not prompts:
            raise ValueError(f"{source}: no prompt in it ({bad} bad rows)")
        return prompts, bad

    def describe(self, problem: Window, logits: Float[torch.Tensor, "seq output"] | None = None) -> str:
        lines = [f"text: {self._text(problem)!r}", f"next token: {self._expected(problem)!r}"]
        if logits is not None:
            answer = self.answer(problem, logits)
            lines.append(f"prediction: {answer['answer']!r} ({answer['confidence']:.0%})")
        return "\n".join(lines)

    def visualise(self, problem: Window, logits: Float[torch.Tensor, "loops seq output"]) -> dict[str, Any]:
        """The next token's distribution after each loop, over the most probable tokens in the order of their ids."""
        probabilities = self._next(problem, logits)
        shown = probabilities.amax(0).topk(min(SHOWN, probabilities.shape[1])).indices.sort().values.tolist()
        words = {token: repr(self._word(problem, token)) for token in shown}
        return {
            "kind": "distribution",
            "title": "next token",
            "input": self._text(problem),
            "answer": repr(self._expected(problem)),
            "loops": [
                {"loop": loop, "probabilities": [[words[token], float(row[token])] for token in shown]}
                for loop, row in enumerate(probabilities, start=1)
            ],
        }


def _windows(
    tokens: Tokens, context: int, starts: Int[np.ndarray, " windows"], scored: Int[np.ndarray, " windows"]
) -> list[Window]:
    """Windows of `context` tokens. Their tokens are only read when they are encoded."""
    windows = (tokens.window(start, context + 1) for start in starts.tolist())
    return [Window(row[:-1], row[1:], n) for row, n in zip(windows, scored.tolist(), strict=True)]
