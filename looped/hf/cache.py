"""Keys and values of a looped model as a cache of `transformers`."""

from typing import Any

import torch
from torch import Tensor
from transformers import Cache as TransformersCache

from looped.models.kv_cache import Cache
from looped.strict import check


class LoopedCache(TransformersCache):
    """Wraps our own `Cache`, which has slots for each loop. It is allocated by the first call that gets it, and grows.

    Args:
        length: tokens for which memory is allocated at first.
        policy, cache_loops: which loops keep keys and values, see `Cache`. With last and ring a call takes one token
            at a time: `generate(..., prefill_chunk_size=1)`.
    """

    def __init__(self, length: int = 0, *, policy: Any = None, cache_loops: int | None = None) -> None:
        super().__init__(layers=[])
        self.first_length = length
        self.options = {"policy": policy, "cache_loops": cache_loops}
        self.native: Cache | None = None

    def prepare(self, model: Any, batch: int, new: int, *, num_loops: int, every_loop_logits: bool) -> Cache:
        """Our cache, with room for `new` tokens more.

        Raises:
            ValueError: the tokens exceed max_seq_len, or the cache belongs to another model.
        """
        used, limit = self.get_seq_length(), model.max_seq_len
        check(used + new <= limit, "the sequence", used + new, f"at most max_seq_len={limit} tokens")
        native = self.native
        if native is None:
            length = min(limit, max(self.first_length, new))
            options = {"num_loops": num_loops, "every_loop_logits": every_loop_logits, **self.options}
            native = self.native = model.new_cache(batch, length, **options)
        if native.model.embed is not model.embed:
            raise ValueError("cache: expected one of this model; it holds keys and values of another")
        native.model = model  # packed weights make another model of the same modules
        if used + new > native.length:
            native.extend(min(limit, (used + new) * 3 // 2))
        return native

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return 0 if self.native is None else self.native.used

    def get_max_length(self, layer_idx: int | None = None) -> int:
        return -1 if self.native is None or self.native.model.max_seq_len is None else self.native.model.max_seq_len

    def get_mask_sizes(self, query_length: int, layer_idx: int) -> tuple[int, int]:
        return self.get_seq_length() + query_length, 0

    @property
    def batch_size(self) -> int:
        return -1 if self.native is None else self.native.batch

    @property
    def is_initialized(self) -> bool:
        return self.native is not None

    @property
    def is_compileable(self) -> bool:
        return False

    @property
    def is_croppable(self) -> bool:
        return True

    @property
    def is_linear(self) -> list[bool]:
        # Without layers `all(is_linear)` would be true, and `generate` would read known tokens again.
        return [False]

    def __len__(self) -> int:
        return 0 if self.native is None else sum(map(len, self.native.slots.values()))

    def reset(self) -> None:
        if self.native is not None:
            self.native.clear()

    def crop(self, tokens_to_remove: int) -> None:
        """Forget the last tokens; the number is negative."""
        check(tokens_to_remove <= 0, "tokens_to_remove", tokens_to_remove, "at most 0: minus the tokens to forget")
        if self.native is not None:
            self.native.used = max(self.native.used + tokens_to_remove, 0)

    def reorder_cache(self, beam_idx: Tensor) -> None:
        self.batch_select_indices(beam_idx)

    def batch_select_indices(self, indices: Tensor) -> None:
        if self.native is not None:
            self.native.keep(indices)

    def batch_repeat_interleave(self, repeats: int) -> None:
        if self.native is not None:
            rows = torch.arange(self.native.batch, device=self.native.attention_mask.device)
            self.native.keep(rows.repeat_interleave(repeats))
