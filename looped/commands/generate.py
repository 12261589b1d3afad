"""`looped generate`."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import FlagCreatePairsOff, Positional

from looped.commands.arguments import command
from looped.commands.output import print_text
from looped.config import CachePolicy, Device, OutputWeights
from looped.run_data import answering_task
from looped.run_folder import read_config
from looped.strict import at_least
from looped.tasks.continuation import Tokenizer, common_start, continuation


def generate(
    run: Positional[Path],
    *,
    prompt: tuple[str, ...],
    tokens: int = 100,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    stop: tuple[str, ...] = (),
    seed: int = 0,
    num_loops: int | None = None,
    exit_rule: str | None = None,
    cache: CachePolicy | None = None,
    cache_loops: int | None = None,
    output_weights: OutputWeights = "exact",
    prefix: Annotated[bool, FlagCreatePairsOff] = False,
    checkpoint: Literal["best", "last"] = "best",
    device: Device = "auto",
) -> None:
    """Continue texts with a trained language model: looped generate runs/mine --prompt "Once upon a time".

    A single text is printed while it is generated. Several texts are printed as JSON objects, one a line, as they end.

    Args:
        run: the run folder, of a recipe on text.
        prompt: the beginning of a document, or of several documents.
        tokens: the largest number of new tokens; an end of text ends the text earlier.
        temperature: below 1 favours the most probable tokens; 0 always takes the most probable one.
        top_k: sample only from this many most probable tokens; the default is all.
        top_p: sample only from the most probable tokens that together have this probability; the default is all.
        stop: end a text after one of these strings.
        seed: seed of the sampling.
        num_loops: the default is the recommendation of `looped calibrate`, or else the trained number.
        exit_rule: ends the loop of each token, such as kl:0.01, change:0.1, entropy:0.1, unchanged:2 or none. The
            default is the recommendation.
        cache: loops whose keys and values are kept (all, first, last or ring); the default is as trained. Keeping fewer
            loops than in training needs less memory and changes the text.
        cache_loops: number of loops that the cache keeps; the default is as trained, or 1.
        output_weights: int8 reads a quarter of a large output matrix for each token, on a CPU. The logits of less
            probable tokens then have small errors. With temperature 0 the text is exact and as fast with both settings.
        prefix: read the prompts in both directions, as a model that was trained so needs it (HRM-Text).
        checkpoint: the best by validation, or the last.
        device: where to compute; auto is the fastest available kind.
    """
    import torch

    from looped.models.generation import Sampling, stream
    from looped.runs import loop_setting
    from looped.training.checkpoint import load_run
    from looped.training.devices import find_device

    config = read_config(run)
    task = answering_task(config, run)
    if task.tokenizer is None:
        raise ValueError(f"{run}: trained on {config.task.name}; expected a run on text")
    if not prompt:
        raise ValueError("--prompt: expected at least one text to continue")
    for text in (*prompt, *stop):
        if any("\ud800" <= character <= "\udfff" for character in text):  # how Python keeps bytes that are not UTF-8
            raise ValueError(f"--prompt, --stop: {text!a}: not UTF-8 text")
    if "" in stop:
        raise ValueError("--stop: an empty text; expected some text")
    at_least(1, tokens=tokens, num_loops=num_loops)
    prompts = [torch.from_numpy(task.prompt(text)) for text in prompt]
    config, model, step = load_run(run, checkpoint)
    model.to(find_device(device))
    setting = loop_setting(run, config.model, step, num_loops, exit_rule)
    tokenizer = task.tokenizer
    texts = [Typed(tokenizer, text, stop) for text in prompt]
    for token in stream(
        model,
        prompts,
        max_new_tokens=tokens,
        sampling=Sampling(temperature=temperature, top_k=top_k, top_p=top_p),
        stop=lambda written: written[-1] == tokenizer.end or (bool(stop) and texts[0].has_stop(written)),
        seed=seed,
        vocab_size=tokenizer.vocab_size,
        num_loops=setting.num_loops,
        exit_rule=setting.exit_rule,
        cache_policy=cache,
        cache_loops=cache_loops,
        output_weights=output_weights,
        prefix=prefix,
    ):
        text = texts[token.row]
        if token.token != tokenizer.end:
            text.ids.append(token.token)
        text.loops.append(token.loops)
        if len(prompt) == 1:
            print_text(text.new(token.last), end="\n" if token.last else "")
        elif token.last:
            mean = sum(text.loops) / len(text.loops)
            print(
                json.dumps({"prompt": text.prompt, "text": text.whole(), "tokens": len(text.ids), "mean_loops": mean})
            )
    sys.stdout.flush()


class Typed:
    """A text that is being generated, as it is printed."""

    def __init__(self, tokenizer: Tokenizer, prompt: str, stop: Sequence[str]) -> None:
        self.tokenizer, self.prompt, self.stop = tokenizer, prompt, stop
        (self.prompt_ids,) = tokenizer.encode([prompt])
        self.ids: list[int] = []
        self.loops: list[int] = []
        self.shown = ""

    def has_stop(self, written: Sequence[int]) -> bool:
        text = continuation(self.tokenizer, self.prompt_ids, written)
        return any(word in text for word in self.stop)

    def whole(self) -> str:
        """The prompt and the generated text, up to a stop string."""
        text = continuation(self.tokenizer, self.prompt_ids, self.ids)
        ends = [text.index(word) + len(word) for word in self.stop if word in text]
        return self.prompt + text[: min(ends, default=None)]

    def new(self, last: bool) -> str:
        """New text to print. An incomplete character is held back unless `last`."""
        text = self.whole()
        if text.endswith("\ufffd") and not last:
            return ""
        fresh, self.shown = text[common_start(self.shown, text) :], text
        return fresh


main = command(generate)
