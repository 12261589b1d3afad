"""Timestep modulation: scales, shifts and gates of the core layers as functions of the loop index.

Xu & Sato (ICML 2025), section 5. The vectors depend on the loop index alone, never on the batch. They are computed
once in a forward pass, for all loops, as one tensor (loops, rows, d_model).
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from looped.config import ModelConfig
from looped.nn.layer_names import ENCODING_WIDTH, LAYER_NAMES
from looped.nn.positions import sinusoid
from looped.nn.protocols import Modulation

# t / num_loops is spread over 0 .. 1000, the range for which these sinusoids are customary in diffusion models.
FRACTION_SCALE = 1000.0


class TimestepEncoding(nn.Module):
    """Sinusoids of the timestep t, of t / num_loops, or of both: (loops, width)."""

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


class AdditiveTimestep(nn.Module):
    """p(t), added to the state before the first core layer. Universal Transformer, Dehghani et al. (2019)."""

    def __init__(self, d_model: int, layers: int, *, timestep: str = "index") -> None:
        super().__init__()
        self.names: Sequence[Sequence[str]] = [("input_shift",), *[()] * (layers - 1)]
        self.uses_fraction = timestep != "index"
        self.encoding = TimestepEncoding(timestep, d_model)

    def forward(self, num_loops: int, device: torch.device) -> Float[Tensor, "loops 1 d_model"]:
        return self.encoding(num_loops, device)[:, None]


class LayerModulation(nn.Module):
    """Base of the modulations below: the same names for every layer; scales are 1 + s, gates are gate_offset + g."""

    def __init__(self, names: Sequence[str], layers: int, gate_offset: float) -> None:
        super().__init__()
        self.names: Sequence[Sequence[str]] = [tuple(names)] * layers
        offset = {"scale": 1.0, "gate": gate_offset, "shift": 0.0}
        for name in names:
            if name.rpartition("_")[2] not in offset:
                raise ValueError(f"names: {name!r}: expected an ending _scale, _gate or _shift, which sets its offset")
        self.offset_values = [offset[name.rpartition("_")[2]] for name in names] * layers
        self.register_buffer("offsets", torch.empty(len(self.offset_values), 1), persistent=False)
        self.offsets: Tensor
        self.reset_buffers()

    def reset_buffers(self) -> None:
        """Compute what no checkpoint holds, as after a model was built on `meta`."""
        self.offsets.copy_(torch.tensor(self.offset_values, device=self.offsets.device)[:, None])


class TimestepNetwork(LayerModulation):
    """[s, g](t) = W SiLU(W2 SiLU(W1 p(t) + b1) + b2) + b, with W and b zero at first (the paper's TMLT, DiT)."""

    def __init__(
        self, d_model: int, names: Sequence[str], layers: int, *, gate_offset: float = 0.0, timestep: str = "index"
    ) -> None:
        super().__init__(names, layers, gate_offset)
        self.uses_fraction = timestep != "index"
        self.encoding = TimestepEncoding(timestep, ENCODING_WIDTH)
        self.hidden = nn.Linear(self.encoding.width, d_model)
        self.embed = nn.Linear(d_model, d_model)
        self.output = nn.Linear(d_model, layers * len(names) * d_model)
        self.zero_at_start = list(self.output.parameters())
        for parameter in self.zero_at_start:
            nn.init.zeros_(parameter)

    def forward(self, num_loops: int, device: torch.device) -> Float[Tensor, "loops rows d_model"]:
        # float32 throughout: a sinusoid of a large index means nothing after rounding to bf16.
        with torch.autocast("cpu" if device.type == "meta" else device.type, enabled=False):
            encoded = self.encoding(num_loops, device).to(self.hidden.weight.dtype)
            embedded = self.embed(F.silu(self.hidden(encoded)))
            change = self.output(F.silu(embedded)).unflatten(-1, (len(self.offsets), -1))
        return change + self.offsets


class TimestepTable(LayerModulation):
    """A learned row for each of `max_loops` loops, zero at first."""

    def __init__(
        self, d_model: int, names: Sequence[str], layers: int, max_loops: int, *, gate_offset: float = 0.0
    ) -> None:
        super().__init__(names, layers, gate_offset)
        self.max_loops = max_loops
        self.table = nn.Parameter(torch.zeros(max_loops, layers * len(names), d_model))

    def forward(self, num_loops: int, device: torch.device) -> Float[Tensor, "loops rows d_model"]:
        """Raises ValueError for more loops than the table has rows."""
        if num_loops > self.max_loops:
            raise ValueError(f"num_loops={num_loops}: expected at most the {self.max_loops} rows of the table")
        return self.table[:num_loops] + self.offsets


class ReZero(LayerModulation):
    """One learned number for each sublayer, zero at first, the same in all loops. Bachlechner et al. (2021)."""

    def __init__(self, d_model: int, names: Sequence[str], layers: int, *, gate_offset: float = 0.0) -> None:
        super().__init__(names, layers, gate_offset)
        self.d_model = d_model
        self.scalars = nn.Parameter(torch.zeros(layers * len(names)))

    def forward(self, num_loops: int, device: torch.device) -> Float[Tensor, "loops rows d_model"]:
        return self.scalars[None, :, None].expand(num_loops, -1, self.d_model) + self.offsets


def make_modulation(config: ModelConfig) -> Modulation | None:
    """The modulation that a configuration names."""
    kind, d, layers = config.modulation, config.d_model, config.core_layers
    names, offset = LAYER_NAMES[kind], float(config.gate_offset)
    if kind == "none":
        return None
    if kind == "additive":
        return AdditiveTimestep(d, layers, timestep=config.timestep)
    if kind == "table":
        assert config.max_loops is not None
        return TimestepTable(d, names, layers, config.max_loops, gate_offset=offset)
    if kind == "rezero":
        return ReZero(d, names, layers, gate_offset=offset)
    return TimestepNetwork(d, names, layers, gate_offset=offset, timestep=config.timestep)


def by_layer(
    rows: Float[Tensor, "rows d_model"], names: Sequence[Sequence[str]]
) -> list[dict[str, Float[Tensor, " d_model"]]]:
    """The vectors of one loop as a dictionary for each core layer."""
    vectors = iter(rows.unbind(0))
    return [{name: next(vectors) for name in of_layer} for of_layer in names]
