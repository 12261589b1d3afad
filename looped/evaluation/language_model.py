"""A looped model for lm-eval (Gao et al., "The Language Model Evaluation Harness"), at several loop counts.

One forward pass gives the log-likelihoods after all loop counts. Each loop count is an evaluation of its own, which
then finds its answers in `LoopedLM.known`.
"""

import json
from array import array
from collections.abc import Iterator, MutableMapping, Sequence
from hashlib import sha256
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM
from lm_eval.models.utils import handle_stop_sequences, normalize_gen_kwargs, postprocess_generated_text
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window
from rich.console import Console
from rich.progress import track
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from looped.evaluation.scores import LOGITS, passes
from looped.models.exit_rules import ExitRule
from looped.models.generation import Sampling, stream
from looped.models.looped_model import LoopedModel
from looped.tasks.continuation import Tokenizer

MAX_LENGTH = 2048
"""Tokens of a pass, if the model has no limit; as in lm-eval."""
MAX_NEW_TOKENS = 256
"""Tokens of an answer, if its task has no limit; as in lm-eval."""
GENERATION = ("until", "max_gen_toks", "do_sample", "temperature", "top_k", "top_p")


class Loops(NamedTuple):
    """A loop count, or the largest one with an exit rule."""

    num_loops: int
    exit_rule: ExitRule | None = None

    def __str__(self) -> str:
        return f"{self.num_loops} loops" if self.exit_rule is None else f"{self.exit_rule}, {self.num_loops} loops"


class Answer(NamedTuple):
    """The answer to one request."""

    value: Any
    """The log-likelihood in nats, or the generated text."""
    greedy: bool
    """Whether each token of a continuation is the most probable one."""
    loops: float
    """Mean loops of its tokens."""


class Pair(NamedTuple):
    """A continuation, and the tokens that the model reads to predict it."""

    inputs: tuple[int, ...]
    """The context and all of the continuation but its last token, without what is too long on the left."""
    continuation: tuple[int, ...]


class LoopedLM(TemplateLM):
    """A causal model as lm-eval wants it. `loops`, one of `settings`, says whose answers it gives.

    Its answers are those of lm-eval's own model for transformers. Contexts that are too long lose tokens on the left.
    The text of a special token is ordinary text.
    """

    def __init__(
        self,
        model: LoopedModel,
        tokenizer: Tokenizer,
        settings: Sequence[Loops],
        *,
        batch_size: int = 16,
        known: MutableMapping[str, Any] | None = None,
    ) -> None:
        """Exit rules are applied to each token.

        Args:
            settings: the loop counts and exit rules of the evaluations to come.
            batch_size: the largest number of texts in a forward pass.
            known: answers by the hash of model, loops and request, found and kept; None is a new dict.

        Raises:
            ValueError: the model is not causal, or does not read tokens.
        """
        super().__init__()
        self.start: list[int] = getattr(tokenizer, "start", [])
        if not model.causal or getattr(model.embed, "num_embeddings", None) is None:
            raise ValueError("model: expected a causal model of tokens; others do not predict what follows")
        self.model, self.text, self.settings, self.loops = model, tokenizer, list(settings), settings[0]
        self._device: Any = model.device
        self.batch_size, self.known = batch_size, {} if known is None else known
        self.identity = "" if known is None else _hash_of(model)
        self.given: dict[Loops, list[Any]] = {}
        """The values of all answers so far, by loops."""
        self.taken: dict[tuple[Loops, str | None], list[float]] = {}
        """Mean loops of each answer, by loops and task."""
        self.shortened = 0
        """Requests that lost tokens on the left."""

    # What lm-eval asks

    @property
    def max_length(self) -> int:
        return self.model.max_seq_len or MAX_LENGTH

    @property
    def eot_token_id(self) -> int:
        return self.text.end

    @property
    def prefix_token_id(self) -> int:
        return self.start[0] if self.start else self.text.end

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **kwargs: Any) -> list[int]:
        return [*([] if add_special_tokens is False else self.start), *self.text.encode([string])[0]]

    def set_cache_hook(self, cache_hook: Any) -> None:
        raise ValueError("use_cache: lm-eval's cache mixes loop counts; expected `known` of LoopedLM instead")

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        answers: list[Any] = super().loglikelihood(requests, disable_tqdm=True)
        self._note(requests, answers)
        return [(answer.value, answer.greedy) for answer in answers]

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
        windows = [list(self._windows(*request.args)) for request in requests]
        found = iter(self._loglikelihood_tokens([window for of_text in windows for window in of_text]))
        sums = []
        for of_text in windows:
            parts = [next(found) for _ in of_text]
            loops = sum(part.loops for part in parts) / max(len(parts), 1)
            sums.append(Answer(sum(part.value for part in parts), False, loops))
        self._note(requests, sums)
        return [answer.value for answer in sums]

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        found: dict[int, Answer] = {}
        alike: dict[str, list[int]] = {}  # by the arguments of the generation
        for i, request in enumerate(requests):
            _, arguments = request.args
            alike.setdefault(json.dumps(arguments, sort_keys=True), []).append(i)
        for arguments, numbers in alike.items():
            contexts = [requests[i].args[0] for i in numbers]
            texts = self._generate(contexts, arguments, requests[numbers[0]].task_name)
            found |= zip(numbers, texts, strict=True)
        answers = [found[i] for i in range(len(requests))]
        self._note(requests, answers)
        return [answer.value for answer in answers]

    def _note(self, requests: Sequence[Instance], answers: Sequence[Any]) -> None:
        for request, answer in zip(requests, answers, strict=True):
            self.given.setdefault(self.loops, []).append(answer.value)
            self.taken.setdefault((self.loops, request.task_name), []).append(answer.loops)

    def _name(self, loops: Loops, request: str) -> str:
        return f"{self.identity} {loops} {request}"

    # Log-likelihoods

    def _windows(self, text: str) -> Iterator[tuple[None, list[int], list[int]]]:
        """The text as contexts and continuations: each token once, with the longest context."""
        windows = get_rolling_token_windows(self.tok_encode(text), self.prefix_token_id, self.max_length, 1)
        return ((None, *make_disjoint_window(window)) for window in windows)

    def _loglikelihood_tokens(self, requests: Sequence[tuple[Any, list[int], list[int]]], **kwargs: Any) -> Any:
        """The `Answer` to each request, which is a text, the tokens of a context and those of a continuation."""
        pairs = [self._pair(context, continuation) for _, context, continuation in requests]
        hashes = {pair: _hash(pair) for pair in dict.fromkeys(pairs)}
        unknown: dict[tuple[int, ...], list[Pair]] = {}  # by inputs: several continuations may differ in their end
        for pair, request in hashes.items():
            if any(self._name(loops, request) not in self.known for loops in self.settings):
                unknown.setdefault(pair.inputs, []).append(pair)
        for batch in _shown(list(self._batches(unknown)), f"log-likelihoods of {len(pairs):,} continuations"):
            found = [pair for inputs in batch for pair in unknown[inputs]]
            for loops, answers in self._scores(batch, [unknown[inputs] for inputs in batch]):
                for pair, answer in zip(found, answers, strict=True):
                    self.known[self._name(loops, hashes[pair])] = answer
        return [Answer(*self.known[self._name(self.loops, hashes[pair])]) for pair in pairs]

    def _pair(self, context: Sequence[int], continuation: Sequence[int]) -> Pair:
        if not 1 <= len(continuation) <= self.max_length:
            raise ValueError(
                f"a continuation of {len(continuation)} tokens: expected 1 to {self.max_length}, the model's longest"
            )
        whole = (*context, *continuation)
        self.shortened += len(whole) > self.max_length + 1
        return Pair(whole[-self.max_length - 1 : -1], tuple(continuation))

    def _batches(self, pairs: dict[tuple[int, ...], list[Pair]]) -> Iterator[list[tuple[int, ...]]]:
        """Inputs of similar length, the longest first, as many as their logits allow."""
        batch: list[tuple[int, ...]] = []
        most = 0  # positions whose logits the batch needs
        for inputs in sorted(pairs, key=len, reverse=True):
            needed = max(len(pair.continuation) for pair in pairs[inputs])
            most = max(most, needed)
            size = (len(batch) + 1) * most * len(self.settings) * (self.model.output_size or 1)
            if batch and (size > LOGITS or len(batch) == self.batch_size):
                yield batch
                batch, most = [], needed
            batch.append(inputs)
        if batch:
            yield batch

    @torch.no_grad()
    def _scores(
        self, batch: Sequence[tuple[int, ...]], pairs: Sequence[Sequence[Pair]]
    ) -> Iterator[tuple[Loops, list[Answer]]]:
        """For all settings, the answers to the pairs of these inputs, in order."""
        inputs, real = _left_padded(batch)
        last = max(len(pair.continuation) for of_row in pairs for pair in of_row)
        rows, places, tokens = (torch.tensor(x) for x in zip(*_scored_tokens(pairs, last), strict=True))
        lengths = [len(pair.continuation) for of_row in pairs for pair in of_row]
        padded = not bool(real.all())
        positions = (real.cumsum(1) - 1).clamp(min=0)
        for group in self._passes():
            counts = [loops.num_loops for loops in group]
            output = self.model(
                inputs.to(self.model.device),
                attention_mask=real.to(self.model.device) if padded else None,
                positions=positions.to(self.model.device) if padded else None,
                num_loops=counts[-1],
                exit_rule=group[0].exit_rule,
                loop_logits=counts,
                last_logits=last,
            )
            all_logits: Float[Tensor, "loops batch last output"] = output.loop_logits.float()
            taken = output.loops_taken
            for loops, logits in zip(group, all_logits, strict=True):
                nats = logits[rows, places, tokens] - logits.logsumexp(-1)[rows, places]
                best = logits.argmax(-1).cpu()[rows, places] == tokens
                if taken is None:
                    steps = torch.full((len(tokens),), float(loops.num_loops))
                else:
                    steps = taken[:, -last:].cpu()[rows, places].double()
                parts = zip(*(x.cpu().double().split(lengths) for x in (nats, best, steps)), strict=True)
                yield loops, [Answer(n.sum().item(), bool(b.all()), s.mean().item()) for n, b, s in parts]

    def _passes(self) -> Iterator[list[Loops]]:
        """The settings that a forward pass answers together."""
        fixed = sorted(loops.num_loops for loops in self.settings if loops.exit_rule is None)
        yield from ([Loops(count) for count in counts] for counts in passes(self.model, fixed))
        yield from ([loops] for loops in self.settings if loops.exit_rule is not None)

    # Texts

    def _generate(self, contexts: Sequence[str], arguments: str, task: str | None) -> list[Answer]:
        """The answers to the contexts, with the arguments of `generate_until` as JSON."""
        given: dict[str, Any] = dict(normalize_gen_kwargs(json.loads(arguments), MAX_NEW_TOKENS))
        if unknown := [name for name in given if name not in GENERATION]:
            name = unknown[0]
            expected = ", ".join(GENERATION)
            raise ValueError(f"task {task}: generation_kwargs.{name}={given[name]!r}: expected some of {expected}")
        most, sampled = given["max_gen_toks"], given["do_sample"]
        if most >= self.max_length:
            raise ValueError(f"task {task}: max_gen_toks={most}: expected fewer than the model's {self.max_length}")
        prompts = [tuple(self.tok_encode(text)) or (self.prefix_token_id,) for text in contexts]
        self.shortened += sum(len(prompt) > self.max_length - most for prompt in prompts)
        prompts = [prompt[most - self.max_length :] for prompt in prompts]
        if sampled:
            options = {name: given[name] for name in ("temperature", "top_k", "top_p") if name in given}
            return list(self._texts(prompts, given, Sampling(**options)))
        names = {prompt: self._name(self.loops, _hash((prompt, (most,)), arguments)) for prompt in prompts}
        missing = sorted((p for p, name in names.items() if name not in self.known), key=len, reverse=True)
        for prompt, answer in zip(missing, self._texts(missing, given, Sampling(temperature=0.0)), strict=True):
            self.known[names[prompt]] = answer
        return [Answer(*self.known[names[prompt]]) for prompt in prompts]

    def _texts(self, prompts: Sequence[tuple[int, ...]], given: dict[str, Any], sampling: Sampling) -> Iterator[Answer]:
        """The texts that continue the prompts, up to a stop string."""
        until = handle_stop_sequences(given["until"], eos=self.text.decode([self.text.end]))

        def ended(written: Sequence[int]) -> bool:
            text = self.text.decode(written)
            return written[-1] == self.text.end or any(word in text for word in until if word)

        starts = range(0, len(prompts), self.batch_size)
        for start in _shown(starts, f"texts, {self.loops}"):
            part = [torch.tensor(prompt) for prompt in prompts[start : start + self.batch_size]]
            written: list[list[int]] = [[] for _ in part]
            loops: list[list[int]] = [[] for _ in part]
            for token in stream(
                self.model, part, max_new_tokens=given["max_gen_toks"], sampling=sampling, stop=ended, seed=start,
                vocab_size=self.text.vocab_size, num_loops=self.loops.num_loops, exit_rule=self.loops.exit_rule,
            ):  # fmt: skip
                written[token.row].append(token.token)
                loops[token.row].append(token.loops)
            for ids, taken in zip(written, loops, strict=True):
                text = self.text.decode([i for i in ids if i != self.text.end])
                yield Answer(postprocess_generated_text(text, until, None), False, sum(taken) / len(taken))


def _left_padded(rows: Sequence[tuple[int, ...]]) -> tuple[Int[Tensor, "rows seq"], Tensor]:
    """The rows with padding on the left, and where they are real. Their last positions are then together."""
    tokens = [torch.tensor(row) for row in rows]
    real = [torch.ones_like(row, dtype=torch.bool) for row in tokens]
    return pad_sequence(tokens, True, padding_side="left"), pad_sequence(real, True, padding_side="left")


def _scored_tokens(pairs: Sequence[Sequence[Pair]], last: int) -> Iterator[tuple[int, int, int]]:
    """Row, place among the `last` positions, and token of everything that is scored."""
    for row, of_row in enumerate(pairs):
        for pair in of_row:
            first = last - len(pair.continuation)
            yield from ((row, first + i, token) for i, token in enumerate(pair.continuation))


def _shown(parts: Sequence[Any], title: str) -> Any:
    """Iterate with a progress bar on a terminal."""
    console = Console(stderr=True)
    return track(parts, title, console=console, transient=True, disable=not (console.is_terminal and parts))


def _hash(parts: Sequence[Sequence[int]], text: str = "") -> str:
    """A short name for lists of tokens and a text."""
    found = sha256(text.encode())
    for part in parts:
        found.update(array("q", [len(part), *part]).tobytes())
    return found.hexdigest()


def _hash_of(model: LoopedModel) -> str:
    """A short name for a model and its weights."""
    found = sha256(repr(getattr(model, "config", model)).encode())
    for name, tensor in model.state_dict().items():
        found.update(name.encode())
        found.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return found.hexdigest()
