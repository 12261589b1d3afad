"""The parts of a modulation by kind. This file imports no torch, because counting weights needs none."""

ENCODING_WIDTH = 256

# The published code of the reasoning tasks orders the output of W as (s_a, s_m, g_a, g_m).
SCALES_AND_GATES = ("attention_scale", "feedforward_scale", "attention_gate", "feedforward_gate")
LAYER_NAMES: dict[str, tuple[str, ...]] = {
    "none": (),
    "additive": ("input_shift",),
    "scale_gate": SCALES_AND_GATES,
    "adaln_zero": (*SCALES_AND_GATES, "attention_shift", "feedforward_shift"),
    "table": SCALES_AND_GATES,
    "rezero": ("attention_gate", "feedforward_gate"),
}
"""The parts of a modulation that each core layer gets; `additive` acts on the first core layer alone."""
