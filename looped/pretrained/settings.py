"""Settings that many families share in their config.json, as fields of a `ModelConfig`."""

from collections.abc import Mapping
from typing import Any, Literal

from looped.strict import check

Given = Mapping[str, Any]
"""The content of config.json."""
Activation = Literal["gelu", "gelu_tanh", "silu", "relu", "swiglu"]
ACTIVATIONS: dict[str, Activation] = {
    "gelu": "gelu", "gelu_new": "gelu_tanh", "gelu_fast": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu", "silu": "silu", "swish": "silu",
}  # fmt: skip
"""Names of transformers, and ours."""


def activation(given: Given, name: str, default: str) -> Activation:
    """The activation of a feed-forward layer without a gate."""
    value = given.get(name, default)
    check(value in ACTIVATIONS, name, value, f"one of {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[value]


def swiglu(given: Given) -> Activation:
    """The activation of a feed-forward layer with a gate, which must be silu."""
    value = given.get("hidden_act", "silu")
    check(value in ("silu", "swish"), "hidden_act", value, "silu, the only activation of a gate that we have")
    return "swiglu"


def absent(given: Given, *names: str, why: str) -> None:
    """Raises ValueError for a switch that is on, because we have no form for it."""
    for name in names:
        check(not given.get(name), name, given.get(name), f"false: {why}")


def rotary(given: Given) -> dict[str, Any]:
    """Positions by rotation. transformers 5 writes `rope_parameters`, older versions `rope_theta` and `rope_scaling`.

    Raises:
        ValueError: a scaling other than linear or llama3, or angles for a part of each head only.
    """
    rope = {**(given.get("rope_scaling") or {}), **(given.get("rope_parameters") or {})}
    kind = rope.get("rope_type", rope.get("type", "default"))
    check(kind in ("default", "linear", "llama3"), "rope_type", kind, "default, linear or llama3")
    part = rope.get("partial_rotary_factor", given.get("partial_rotary_factor", 1.0))
    check(part == 1, "partial_rotary_factor", part, "1: our rotation turns whole heads")
    fields = {"positions": "rotary", "rope_theta": float(rope.get("rope_theta", given.get("rope_theta", 10_000.0)))}
    if kind != "default" and rope["factor"] != 1:
        fields["rope_factor"] = float(rope["factor"])
        if kind == "llama3":
            names = "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"
            fields["rope_bands"] = tuple(float(rope[name]) for name in names)
    return fields


def unbound_window(given: Given, window: int | None) -> None:
    """Raises ValueError if sliding-window attention would hide earlier tokens, because we attend to all of them."""
    longest = given["max_position_embeddings"]
    check(
        window is None or longest <= window,
        "sliding_window",
        window,
        f"at least max_position_embeddings={longest}: our attention has no window; with "
        f"max_position_embeddings={window} in config.json the model opens, for inputs up to that length",
    )
