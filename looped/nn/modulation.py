"""What the loop index says to the layers: gains, gates and shifts as functions of the timestep.

Xu & Sato (ICML 2025), section 5. The modulation depends on the timestep alone, never on the batch, so that
it is computed once a forward pass for all loops, as one tensor (loops, signals, d_model).
"""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from looped.config import ModelConfig
from looped.nn.positions import sinusoid

ENCODING_WIDTH = 256
# t / num_loops is spread over 0 .. 1000, the range for which these sinusoids are customary in diffusion models.
FRACTION_SCALE = 1000.0

# The signals of one layer, in the order of the output of W. The published code of the reasoning tasks uses
# (s_a, s_m, g_a, g_m).
SCALES_AND_GATES = ("attention_scale", "feedforward_scale", "attention_gate", "feedforward_gate")
LAYER_SIGNALS: dict[str, tuple[str, ...]] = {
    "none": (),
    "additive": (),  # acts on the state, not on a layer
    "scale_gate": SCALES_AND_GATES,
    "adaln_zero": (*SCALES_AND_GATES, "attention_shift", "feedforward_shift"),
    "table": SCALES_AND_GATES,
    "rezero": ("attention_gate", "feedforward_gate"),
}


class LayerSignals(NamedTuple):
    """What one layer is told in one loop; each is (d_model,), or None where the modulation has no such signal."""

    attention_scale: Tensor | None = None
    feedforward_scale: Tensor | None = None
    attention_gate: Tensor | None = None
    feedforward_gate: Tensor | None = None
    attention_shift: Tensor | None = None
    feedforward_shift: Tensor | None = None


NO_SIGNALS = LayerSignals()


class TimestepEncoding(nn.Module):
    """Sinusoids of the timestep as index, as fraction of the loops, or both: (loops, width)."""

    def __init__(self, kind: str, width: int) -> None:
        super().__init__()
        self.kind = kind
        self.sinusoid_width = width
        self.width = width * (2 if kind == "both" else 1)

    def forward(self, num_loops: int, device: torch.device) -> Float[Tensor, "loops width"]:
        index = torch.arange(num_loops, dtype=torch.float32, device=device)
        times = {"index": [index], "fraction": [index / num_loops * FRACTION_SCALE]}
        times["both"] = times["index"] + times["fraction"]
        return torch.cat([sinusoid(t, self.sinusoid_width) for t in times[self.kind]], dim=-1)


class TimestepModulation(nn.Module):
    """From the number of loops to the signals of all loops.

    scale_gate, adaln_zero: [s, g](t) = W SiLU(W2 SiLU(W1 p(t) + b1) + b2) + b, with W and b zero at first.
    table: a learned row for each of `max_loops` loops, zero at first. rezero: one scalar per sublayer, zero at
    first. In all of these the gain is 1 + s and the gate is gate_offset + g. additive: p(t) of width d_model.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.kind = config.modulation
        self.names = LAYER_SIGNALS[config.modulation]
        self.layers, self.d_model = config.core_layers, config.d_model
        count = self.layers * len(self.names)
        if self.kind == "additive":
            self.encoding = TimestepEncoding(config.timestep, config.d_model)
        elif self.kind in ("scale_gate", "adaln_zero"):
            self.encoding = TimestepEncoding(config.timestep, ENCODING_WIDTH)
            self.hidden = nn.Linear(self.encoding.width, self.d_model)
            self.embed = nn.Linear(self.d_model, self.d_model)
            self.signals = nn.Linear(self.d_model, count * self.d_model)
        elif self.kind == "table":
            assert config.max_loops is not None
            self.table = nn.Parameter(torch.zeros(config.max_loops, count, self.d_model))
        elif self.kind == "rezero":
            self.scalars = nn.Parameter(torch.zeros(count))
        offsets = [1.0 if "scale" in n else float(config.gate_offset) if "gate" in n else 0.0 for n in self.names]
        self.register_buffer("offsets", torch.tensor(offsets).repeat(self.layers)[:, None], persistent=False)
        self.offsets: Tensor

    def forward(self, num_loops: int, device: torch.device) -> Float[Tensor, "loops signals d_model"] | None:
        """The signals of loops 0 .. num_loops-1, or None without modulation.

        Raises:
            ValueError: when a learned table has fewer rows than `num_loops`.
        """
        if self.kind == "none":
            return None
        if self.kind == "additive":
            return self.encoding(num_loops, device)[:, None]
        if self.kind == "table":
            if num_loops > len(self.table):
                raise ValueError(f"num_loops={num_loops}: expected at most the {len(self.table)} rows of the table")
            change = self.table[:num_loops]
        elif self.kind == "rezero":
            change = self.scalars[None, :, None].expand(num_loops, -1, self.d_model)
        else:
            # float32 throughout: a sinusoid of a large index means nothing after rounding to bf16.
            with torch.autocast(device.type, enabled=False):
                encoded = self.encoding(num_loops, device).to(self.hidden.weight.dtype)
                embedded = self.embed(F.silu(self.hidden(encoded)))
                change = self.signals(F.silu(embedded)).unflatten(-1, (-1, self.d_model))
        return change + self.offsets

    def for_layers(self, signals: Float[Tensor, "signals d_model"] | None) -> list[LayerSignals]:
        """The signals of one loop, told to each layer of the core."""
        if signals is None or not self.names:
            return [NO_SIGNALS] * self.layers
        rows = signals.unbind(0)
        width = len(self.names)
        return [
            LayerSignals(**dict(zip(self.names, rows[i * width : (i + 1) * width], strict=True)))
            for i in range(self.layers)
        ]
