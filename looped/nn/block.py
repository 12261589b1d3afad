"""One pre-norm transformer layer, with the modulation of the loop that it runs in."""

from jaxtyping import Bool, Float
from torch import Tensor, nn

from looped.config import ModelConfig
from looped.nn.attention import Attention, KeyValueSlot
from looped.nn.feedforward import FeedForward
from looped.nn.modulation import NO_SIGNALS, LayerSignals
from looped.nn.norms import make_norm
from looped.nn.positions import Rotation


class TransformerBlock(nn.Module):
    """x += gate_a * Attention(norm(x) * gain_a + shift_a); x += gate_m * FeedForward(norm(x) * gain_m + shift_m).

    Without signals the gains and gates are one and the shifts zero.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.attention_norm = make_norm(config.norm, config.d_model, gain=config.norm_gain, bias=config.bias)
        self.attention = Attention(config)
        kind = config.norm if config.feedforward_norm else "none"
        self.feedforward_norm = make_norm(kind, config.d_model, gain=config.norm_gain, bias=config.bias)
        self.feedforward = FeedForward(config)
        self.values_from_state = config.values == "state"

    def forward(
        self,
        x: Float[Tensor, "batch seq d_model"],
        mask: Bool[Tensor, "#batch 1 #seq keys"] | None = None,
        signals: LayerSignals = NO_SIGNALS,
        by: Rotation | None = None,
        slot: KeyValueSlot | None = None,
    ) -> Float[Tensor, "batch seq d_model"]:
        """The state after the layer; for `mask`, `by` and `slot` see `Attention.forward`."""
        s = signals
        normed = _scale_and_shift(self.attention_norm(x), s.attention_scale, s.attention_shift)
        attended = self.attention(normed, x if self.values_from_state else normed, mask, by, slot)
        x = x + _gate(attended, s.attention_gate)
        normed = _scale_and_shift(self.feedforward_norm(x), s.feedforward_scale, s.feedforward_shift)
        return x + _gate(self.feedforward(normed), s.feedforward_gate)


def _scale_and_shift(x: Tensor, gain: Tensor | None, shift: Tensor | None) -> Tensor:
    x = x if gain is None else x * gain
    return x if shift is None else x + shift


def _gate(x: Tensor, gate: Tensor | None) -> Tensor:
    return x if gate is None else x * gate
