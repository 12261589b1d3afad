"""Mistral (Jiang et al., 2023): Llama with a sliding window, which newer versions do not use."""

from looped.model_config import ModelConfig
from looped.pretrained.families.llama import llama_config, llama_weights
from looped.pretrained.family import Family
from looped.pretrained.settings import Given, unbound_window


def config(given: Given) -> ModelConfig:
    """Raises ValueError if the window is shorter than the longest input."""
    unbound_window(given, given.get("sliding_window", 4096))
    return llama_config({"num_key_value_heads": 8, **given})


FAMILY = Family("mistral", ("mistral",), config, llama_weights, prefix="model.")
