"""Generation with a causal model: a batch of prompts, one token at a time."""

import dataclasses
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from looped.config import CachePolicy, OutputWeights
from looped.models.exit_rules import ExitRule
from looped.models.kv_cache import Cache
from looped.models.looped_model import LoopedModel, LoopedOutput
from looped.models.packed import PACKING_PAYS, packable, packed
from looped.strict import at_least, check, is_number

Stop = Collection[int] | Callable[[Sequence[int]], bool]
"""Tokens that end a text, or a function of the tokens written so far that returns True at the end."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Sampling:
    """How the next token is drawn from its logits."""

    temperature: float = 1.0
    """Divides the logits; 0 takes the most probable token."""
    top_k: int | None = None
    """Draw among so many of the most probable tokens; None is all."""
    top_p: float | None = None
    """Draw among the fewest tokens that together have this probability (of those that top_k leaves); None is all."""

    def __post_init__(self) -> None:
        finite = is_number(self.temperature) and 0 <= self.temperature < float("inf")
        check(finite, "temperature", self.temperature, "at least 0, and finite")
        at_least(1, top_k=self.top_k)
        if self.top_p is not None:
            check(is_number(self.top_p) and 0 < self.top_p <= 1, "top_p", self.top_p, "above 0, at most 1")

    def probabilities(
        self, logits: Float[Tensor, " vocab"]
    ) -> tuple[Float[Tensor, " candidates"], Int[Tensor, " candidates"]]:
        """The tokens that may be drawn, with their probabilities in float64."""
        if self.top_k is not None and self.top_k < len(logits):
            values, ids = logits.double().topk(self.top_k)
        else:
            values, ids = logits.double(), torch.arange(len(logits))
        chances = ((values - values.max()) / self.temperature).softmax(-1)
        if self.top_p is not None:
            # Tokens below this probability have less than 1 - top_p together. To sort all would take the most time.
            possible = chances >= (1 - self.top_p) / len(chances)
            chances, order = chances[possible].sort(descending=True, stable=True)
            ids = ids[possible][order]
            chances = chances[chances.cumsum(0) - chances < self.top_p]
        return chances / chances.sum(), ids[: len(chances)]

    def draw(self, logits: Float[Tensor, "rows vocab"], generators: Sequence[torch.Generator]) -> Int[Tensor, " rows"]:
        """One token for each row, decided by its own generator (on the cpu; untouched when temperature=0).

        Raises:
            ValueError: the largest logit of a row is not finite.
        """
        if not bool(logits.amax(-1).isfinite().all()):
            raise ValueError("logits: expected finite numbers; the model returned others, so its weights are too large")
        if self.temperature == 0:
            return logits.argmax(-1).cpu()
        drawn = []
        for row, generator in zip(logits.cpu(), generators, strict=True):
            chances, ids = self.probabilities(row)
            sums = chances.cumsum(0)
            point = torch.rand(1, dtype=torch.double, generator=generator) * sums[-1]
            drawn.append(ids[torch.searchsorted(sums, point, right=True).clamp(max=len(ids) - 1)])
        return torch.cat(drawn)


class GeneratedToken(NamedTuple):
    """One token of one text."""

    row: int
    """Number of its prompt."""
    token: int
    loops: int
    """Loops that the model took to choose it."""
    last: bool
    """Whether the text ends with it."""


def stream(
    model: LoopedModel,
    prompts: Sequence[Int[Tensor, " _"]],
    *,
    max_new_tokens: int,
    sampling: Sampling | None = None,
    stop: Stop = (),
    seed: int = 0,
    vocab_size: int | None = None,
    num_loops: int | None = None,
    exit_rule: ExitRule | None = None,
    cache_policy: CachePolicy | None = None,
    cache_loops: int | None = None,
    chunk: int = 512,
    output_weights: OutputWeights = "exact",
    prefix: bool = False,
) -> Iterator[GeneratedToken]:
    """Yield the tokens that continue `prompts`, each drawn given all before it: the next token of every text in turn.

    A text does not depend on the other prompts of its batch. Texts that have ended are dropped from the batch. When a
    text fills the model's positions, its older half is dropped, and the rest is read again.

    Args:
        prompts: at least one token each; their lengths may differ.
        max_new_tokens: of each text.
        sampling: None is Sampling().
        stop: when a text ends early; the token that ends it is still yielded.
        seed: for all draws; each row has a random stream of its own.
        vocab_size: the tokens that exist, if the model's outputs are padded; None is all outputs.
        num_loops: None is the model's.
        exit_rule: lets every token exit by itself, those of the prompts too.
        cache_policy, cache_loops: see `Cache`.
        chunk: tokens of the prompts that are read at a time. It bounds the memory and changes no text.
        output_weights: of a head with a large vocabulary, in float32 on a CPU. int8 reads a quarter of the memory for
            a token. The largest logit stays exact; draws depend on the errors of the others. Greedy texts are exact
            with both settings.
        prefix: whether the tokens of a prompt attend to each other in both directions, for models that were trained so
            (HRM-Text). A prompt is then read at once. When a text fills the positions, its rest is read again from left
            to right.

    Raises:
        ValueError: for a model that is not causal or has no token embedding, no prompt, an empty one or one longer
            than max_seq_len, unknown tokens, settings out of range, and int8 for a head that cannot have it.
    """
    at_least(1, max_new_tokens=max_new_tokens, num_loops=num_loops, chunk=chunk, vocab_size=vocab_size)
    check(isinstance(seed, int), "seed", seed, "a whole number")
    if not isinstance(prompts, Sequence):
        raise ValueError(f"prompts: expected a list of tensors of integers, not {type(prompts).__name__}")
    known = getattr(model.embed, "num_embeddings", None)
    if not model.causal or known is None:
        raise ValueError("model: expected a causal model of tokens; others do not predict what follows")
    limit = model.max_seq_len or max(map(len, prompts), default=0) + max_new_tokens
    if not len(prompts):
        raise ValueError("prompts: expected at least one")
    if model.output_size is not None and (vocab_size or model.output_size) > known:
        outputs = vocab_size or model.output_size
        raise ValueError(f"vocab_size={outputs}: expected at most {known}, the tokens that the model can read")
    for prompt in prompts:
        if (
            not isinstance(prompt, Tensor)
            or prompt.ndim != 1
            or prompt.is_floating_point()
            or prompt.dtype == torch.bool
        ):
            raise ValueError("prompts: expected a list of tensors of integers, each of shape (tokens,)")
        if not 1 <= len(prompt) <= limit:
            raise ValueError(f"a prompt of {len(prompt)} tokens: expected 1 to max_seq_len={limit}")
        low, high = int(prompt.min()), int(prompt.max())
        if not 0 <= low <= high < known:
            wrong = low if low < 0 else high
            raise ValueError(f"prompt: token {wrong}: expected 0 to {known - 1}, the model's vocabulary")
    if isinstance(stop, str) or not (callable(stop) or isinstance(stop, Collection)):
        raise ValueError(f"stop={stop!r}: expected tokens, or a function of the tokens written so far")
    check(output_weights in get_args(OutputWeights), "output_weights", output_weights, "exact or int8")
    if output_weights == "int8" and not packable(model.head):
        raise ValueError("output_weights='int8': expected a linear head in float32, on a CPU with oneDNN, no autocast")
    if exit_rule is not None:
        if not isinstance(exit_rule, ExitRule):
            raise ValueError(f"exit_rule={exit_rule!r}: expected an ExitRule; parse_rule reads one from text")
        exit_rule = dataclasses.replace(exit_rule, per="token")
    ended = stop if callable(stop) else lambda written: written[-1] in stop
    sampling = sampling or Sampling()
    length = min(limit, max(map(len, prompts)) + max_new_tokens)
    # The largest output of an int8 head is exact, and greedy texts need no other.
    greedy = sampling.temperature == 0 and (exit_rule is None or exit_rule.needs != "logits")
    if output_weights == "int8" or max_new_tokens >= PACKING_PAYS:
        model = packed(model, int8_head=greedy or output_weights == "int8", outputs=vocab_size)
    decoder = Decoder(model, length, chunk, num_loops, exit_rule, cache_policy, cache_loops)
    generators = [torch.Generator().manual_seed((seed + 1_000_003 * row) % 2**63) for row in range(len(prompts))]
    rows = list(range(len(prompts)))
    texts = [prompt.tolist() for prompt in prompts]
    written: list[list[int]] = [[] for _ in prompts]
    logits, loops = decoder.read(texts, prefix=prefix)
    while rows:
        tokens = sampling.draw(logits[:, :vocab_size], [generators[row] for row in rows])
        staying = []
        for i, (row, token, loops_taken) in enumerate(zip(rows, tokens.tolist(), loops.tolist(), strict=True)):
            written[row].append(token)
            last = len(written[row]) == max_new_tokens or ended(written[row])
            yield GeneratedToken(row, token, loops_taken, last)
            texts[row].append(token)
            if not last:
                staying.append(i)
        if len(staying) < len(rows) and staying:
            tokens = tokens[staying]
            decoder.keep(staying)
        rows = [rows[i] for i in staying]
        if not rows:
            return
        if decoder.full:
            texts = [text if len(text) <= limit else text[-(limit // 2 + 1) :] for text in texts]
            logits, loops = decoder.read([texts[row] for row in rows])
        else:
            logits, loops = decoder.next(tokens)


def generate(model: LoopedModel, prompts: Sequence[Int[Tensor, " _"]], **options: Any) -> list[list[int]]:
    """The tokens that continue each prompt, as lists; options and errors are those of `stream`."""
    texts: dict[int, list[int]] = {}
    for generated in stream(model, prompts, **options):
        texts.setdefault(generated.row, []).append(generated.token)
    return [texts[row] for row in sorted(texts)]


class Decoder:
    """A model, a cache, and the texts that were read into it."""

    def __init__(
        self,
        model: LoopedModel,
        length: int,
        chunk: int,
        num_loops: int | None,
        exit_rule: ExitRule | None,
        cache_policy: CachePolicy | None,
        cache_loops: int | None,
    ) -> None:
        self.model, self.length, self.chunk, self.device = model, length, chunk, model.device
        self.loop_options: dict[str, Any] = {"num_loops": num_loops, "exit_rule": exit_rule}
        self.cache_options: dict[str, Any] = {
            "num_loops": num_loops,
            "policy": cache_policy,
            "cache_loops": cache_loops,
            "every_loop_logits": exit_rule is not None and exit_rule.needs == "logits",
        }
        self.cache: Cache | None = None

    @property
    def full(self) -> bool:
        return self.cache is not None and self.cache.used == self.cache.length

    @torch.no_grad()
    def read(
        self, texts: Sequence[Sequence[int]], *, prefix: bool = False
    ) -> tuple[Float[Tensor, "rows vocab"], Int[Tensor, " rows"]]:
        """Logits after each of these texts, which replace those read before, and the loops that they took."""
        if self.cache is None or self.cache.batch != len(texts):
            self.cache = self.model.new_cache(len(texts), self.length, **self.cache_options)
        self.cache.clear()
        rows = [torch.tensor(text, device=self.device) for text in texts]
        inputs = pad_sequence(rows, batch_first=True, padding_side="left")
        real = pad_sequence([torch.ones_like(row, dtype=torch.bool) for row in rows], True, padding_side="left")
        positions = (real.cumsum(1) - 1).clamp(min=0)
        self.positions = positions[:, -1:]
        padded = len({len(text) for text in texts}) > 1
        output = None
        chunk = inputs.shape[1] if prefix else self.chunk
        for part in torch.arange(inputs.shape[1]).split(1 if self.cache.one_by_one else chunk):
            span = slice(int(part[0]), int(part[-1]) + 1)
            output = self.model(
                inputs[:, span],
                attention_mask=real[:, span] if padded else None,
                positions=positions[:, span] if padded else None,
                cache=self.cache,
                last_logits=1,
                prefix=real[:, span] if prefix else None,
                **self.loop_options,
            )
        assert output is not None
        return self._last(output)

    @torch.no_grad()
    def next(self, tokens: Int[Tensor, " rows"]) -> tuple[Float[Tensor, "rows vocab"], Int[Tensor, " rows"]]:
        """The same after one more token of each text."""
        assert self.cache is not None
        self.positions = self.positions + 1
        positions = self.positions if self.cache.padded else None
        inputs = tokens[:, None].to(self.device)
        return self._last(self.model(inputs, positions=positions, cache=self.cache, last_logits=1, **self.loop_options))

    def keep(self, rows: Sequence[int]) -> None:
        """Only these texts go on."""
        assert self.cache is not None
        chosen = torch.tensor(rows, device=self.device)
        self.cache.keep(chosen)
        self.positions = self.positions[chosen]

    def _last(self, output: LoopedOutput) -> tuple[Tensor, Tensor]:
        logits, taken = output.logits[:, -1].float(), output.loops_taken
        return logits, torch.full((len(logits),), output.num_loops) if taken is None else taken[:, -1]
