"""Architectures that cannot be opened, and why."""

PARALLEL = "its attention and feed-forward layer work side by side on one input, and ours one after another"
EXPERTS = "its feed-forward layers choose between experts"
POSITIONS = "some of its layers have no rotary positions"
WINDOWS = "some of its layers attend to a sliding window"
REFUSED = {
    **dict.fromkeys(("phi", "gptj", "gpt_neox", "falcon", "codegen", "cohere"), PARALLEL),
    **dict.fromkeys(
        ("mixtral", "qwen2_moe", "qwen3_moe", "olmoe", "deepseek_v2", "deepseek_v3", "gpt_oss", "llama4_text"), EXPERTS
    ),
    "smollm3": POSITIONS,
    "looped": "a looped model already, which `looped.hf.LoopedForCausalLM.from_pretrained` loads",
    **dict.fromkeys(("gemma2", "gemma3", "gemma3_text", "cohere2", "olmo3"), WINDOWS),
}
"""By `model_type`."""
