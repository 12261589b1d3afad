"""One file for each family of models."""

from looped.pretrained.families import albert, gpt2, hrm_text, huginn, llama, mistral, olmo2, ouro, qwen2, qwen3

FAMILIES = tuple(
    module.FAMILY for module in (llama, mistral, qwen2, qwen3, olmo2, gpt2, ouro, huginn, hrm_text, albert)
)
