"""The configuration of a looped transformer in `transformers`: the fields of `ModelConfig`, flat."""

from dataclasses import fields
from difflib import get_close_matches
from typing import Any, ClassVar

from transformers import PreTrainedConfig

from looped.model_config import ModelConfig
from looped.strict import check, from_dict, nearest, to_dict

FIELDS: dict[str, Any] = {
    **{field.name: field.default for field in fields(ModelConfig)},
    **dict.fromkeys(("exit_rule", "weight_loops", "pad_token_id", "bos_token_id", "eos_token_id")),
}
"""The fields of a `LoopedConfig` that others in transformers lack, with their defaults."""


class LoopedConfig(PreTrainedConfig):
    """All fields of `ModelConfig`, with its defaults, and these.

    `num_loops` and `exit_rule` apply to every call that does not name others: `from_pretrained(folder, num_loops=8)`.

    Args:
        exit_rule: an exit rule in text, such as kl:0.01, for calls outside of training; None runs all loops.
        weight_loops: if each loop has weights of its own (core_tied, lora_rank), the loops that have some.
        pad_token_id, bos_token_id, eos_token_id: None is none.

    Raises:
        ValueError: an impossible value, a field without effect, or a misspelled one.
    """

    model_type = "looped"
    attribute_map: ClassVar[dict[str, str]] = {
        "hidden_size": "d_model",
        "num_attention_heads": "num_heads",
        "num_key_value_heads": "num_kv_heads",
        "intermediate_size": "d_ff",
        "max_position_embeddings": "max_seq_len",
        "tie_word_embeddings": "tie_embeddings",
    }
    keys_to_ignore_at_inference: ClassVar[list[str]] = ["cache", "hidden_states", "loops_taken"]

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)  # which calls __post_init__ with all but the fields of transformers

    def __post_init__(self, **kwargs: Any) -> None:
        for name, default in FIELDS.items():
            setattr(self, name, kwargs.pop(name, default))
        # transformers keeps every unknown key as an attribute. A misspelled field would silently have no effect.
        for key in kwargs.keys() - self.attribute_map.keys():
            check(not get_close_matches(key, FIELDS, 1, 0.8), key, kwargs[key], f"a known field{nearest(key, FIELDS)}")
        layers = kwargs.get("num_hidden_layers")
        check(
            layers is None, "num_hidden_layers", layers, "none; prelude, core, loops and coda have fields of their own"
        )
        super().__post_init__(**kwargs)
        if self.output_size == self.vocab_size:
            self.output_size = None  # `vocab_size` then decides both, also after `resize_token_embeddings`
        if self.weight_loops is None and self.model_config().own_weights:
            self.weight_loops = self.num_loops
        self.model_config()

    @classmethod
    def from_model(cls, config: ModelConfig, **settings: Any) -> "LoopedConfig":
        """The configuration of a model; `settings` are further fields, such as exit_rule and eos_token_id."""
        return cls(**{**to_dict(config), **settings})

    def model_config(self) -> ModelConfig:
        """The model that this describes, with as many loops as have weights of their own.

        Raises:
            ValueError: an impossible value, a field without effect, or more loops than have weights.
        """
        values = {field.name: getattr(self, field.name) for field in fields(ModelConfig)}
        if self.output_size is None:
            values["output_size"] = self.vocab_size
        if self.weight_loops is not None:
            limit = f"at most {self.weight_loops}, the loops with weights (weight_loops)"
            check(self.num_loops <= self.weight_loops, "num_loops", self.num_loops, limit)
            values["num_loops"] = self.weight_loops
        return from_dict(ModelConfig, values, "config")

    @property
    def num_hidden_layers(self) -> int:
        """Layers that a token passes through."""
        return self.prelude_layers + self.model_config().core_depth * self.num_loops + self.coda_layers
