"""`generate` of transformers for looped models: loops, cache and packed weights."""

# transformers says of `self` in these methods that it is of a protocol, which no model satisfies.
# pyright: reportIncompatibleMethodOverride=false, reportAttributeAccessIssue=false

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor
from transformers import GenerationMixin

from looped.hf.cache import LoopedCache
from looped.models.packed import PACKING_PAYS, packed
from looped.strict import check


class LoopedGenerationMixin(GenerationMixin):
    """The steps of `generate` that differ for a looped model."""

    looped: Any
    packed: tuple[Any, ...]
    config: Any
    generate: Any  # its annotation of self excludes every model

    def prepare_inputs_for_generation(
        self,
        input_ids: Tensor,
        next_sequence_length: int | None = None,
        inputs_embeds: Tensor | None = None,
        is_first_iteration: bool = False,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """Arguments of a call. Those for one more token are made in a fraction of the usual time."""
        if is_first_iteration or next_sequence_length != 1 or input_ids.device != self.looped.device:
            options = {"inputs_embeds": inputs_embeds, "is_first_iteration": is_first_iteration, **kwargs}
            return super().prepare_inputs_for_generation(input_ids, next_sequence_length, **options)
        options = {name: value for name, value in kwargs.items() if value is not None and name != "labels"}
        return options | {"input_ids": input_ids[:, -1:]}

    def _prepare_position_ids_for_generation(self, inputs_tensor: Tensor, model_kwargs: dict) -> None:
        """None: the model counts positions by itself, without padding."""

    def _prepare_cache_for_generation(
        self, generation_config: Any, model_kwargs: dict, generation_mode: Any, batch_size: int, max_cache_length: int
    ) -> None:
        """Our cache, and the loops that `generation_config` asks for."""
        for name in ("num_loops", "exit_rule"):
            if getattr(generation_config, name, None) is not None:  # also the one of the call, if it has both
                model_kwargs[name] = getattr(generation_config, name)
        kind = generation_config.cache_implementation
        check(kind is None, "cache_implementation", kind, "none; the caches of transformers have no slots for loops")
        # Prompt lookup reads so many guessed tokens beyond the end.
        longest = max_cache_length + max((generation_config.prompt_lookup_num_tokens or 0) - 1, 0)
        limit = self.config.max_seq_len
        check(longest <= limit, "prompt and new tokens", longest + 1, f"at most {limit + 1} together (max_seq_len)")
        if generation_config.use_cache is not False and model_kwargs.get("cache") is None:
            model_kwargs["cache"] = LoopedCache(max_cache_length)
        elif model_kwargs.get("cache") is not None:
            model_kwargs["cache"]._is_user_defined = True

    def _sample(self, input_ids: Tensor, logits_processor: Any, generation_config: Any, **options: Any) -> Any:
        # An int8 head keeps the largest logit exact, which is all that greedy decoding needs.
        scored = generation_config.output_scores or generation_config.output_logits
        greedy = not (generation_config.do_sample or logits_processor or scored)
        with self._packed(input_ids, generation_config, int8_head=greedy):
            return super()._sample(
                input_ids, logits_processor=logits_processor, generation_config=generation_config, **options
            )

    def _beam_search(self, input_ids: Tensor, generation_config: Any, **options: Any) -> Any:
        with self._packed(input_ids, generation_config):
            return super()._beam_search(input_ids, generation_config=generation_config, **options)

    def _assisted_decoding(
        self, input_ids: Tensor, generation_config: Any, inputs_tensor: Tensor | None = None, **options: Any
    ) -> Any:
        options |= {"generation_config": generation_config, "inputs_tensor": inputs_tensor}
        with self._packed(input_ids, generation_config):
            return super()._assisted_decoding(input_ids, **options)

    @contextmanager
    def _packed(self, input_ids: Tensor, generation_config: Any, *, int8_head: bool = False) -> Iterator[None]:
        """Compute with packed weights, if there are enough new tokens; see `packed`."""
        if generation_config.max_length - input_ids.shape[1] >= PACKING_PAYS:
            self.packed = (packed(self.looped, int8_head=int8_head),)
        try:
            yield
        finally:
            self.packed = ()

    def generate_batch(self, *args: Any, **kwargs: Any) -> Any:
        """Continuous batching needs the paged cache of transformers, which has no slots for loops."""
        raise ValueError("generate_batch, cache_implementation='paged': expected `generate` with a LoopedCache")
