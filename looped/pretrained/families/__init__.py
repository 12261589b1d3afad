"""One file for each family of models."""

from looped.pretrained.families import gpt2, llama, mistral, olmo2, qwen2, qwen3

FAMILIES = tuple(module.FAMILY for module in (llama, mistral, qwen2, qwen3, olmo2, gpt2))
