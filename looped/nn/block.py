"""One transformer layer, with the modulation of the loop that it runs in."""

from jaxtyping import Float
from torch import Tensor, nn

from looped.config import ModelConfig
from looped.nn.attention import Attention
from looped.nn.feedforward import FeedForward
from looped.nn.native.block import native_block, runs_native
from looped.nn.norms import make_norm
from looped.nn.protocols import Context

ALONE = Context()


class TransformerBlock(nn.Module):
    """x += gate_a * Attention(norm(x) * scale_a + shift_a); x += gate_f * FeedForward(norm(x) * scale_f + shift_f).

    Without modulation the scales and gates are one and the shifts zero. `input_shift` is added to x at the start.
    With norm_place="after" a sublayer is x = norm(x + gate * f(x * scale + shift)).
    """

    modulation_names = (
        "input_shift", "attention_scale", "attention_shift", "attention_gate",
        "feedforward_scale", "feedforward_shift", "feedforward_gate",
    )  # fmt: skip

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.attention_norm = make_norm(config.norm, config.d_model, gain=config.norm_gain, bias=config.bias)
        self.attention = Attention(config)
        kind = config.norm if config.feedforward_norm else "none"
        self.feedforward_norm = make_norm(kind, config.d_model, gain=config.norm_gain, bias=config.bias)
        self.feedforward = FeedForward(config)
        self.values_from_state = config.values == "state"
        self.norm_after = config.norm_place == "after"
        self.graph_heads = config.graph_heads
        self.native = False
        """Whether to compute small blocks in C++ on CPUs, in training and in evaluation."""
        # A cache keeps no graphs, so a layer of graph heads alone cannot be cached.
        self.kv_shape = (config.num_heads, config.head_dim) if config.num_heads else None

    def forward(
        self, x: Float[Tensor, "batch seq d_model"], context: Context = ALONE
    ) -> Float[Tensor, "batch seq d_model"]:
        """The state after the layer."""
        if runs_native(self, x, context):
            return native_block(self, x, context)
        m = context.modulation
        x = _shift(x, m.get("input_shift"))
        given = x if self.norm_after else self.attention_norm(x)
        given = _shift(_scale(given, m.get("attention_scale")), m.get("attention_shift"))
        attended = self.attention(given, x if self.values_from_state else given, context)
        x = x + _scale(attended, m.get("attention_gate"))
        if self.norm_after:
            x = self.attention_norm(x)
        given = x if self.norm_after else self.feedforward_norm(x)
        given = _shift(_scale(given, m.get("feedforward_scale")), m.get("feedforward_shift"))
        x = x + _scale(self.feedforward(given), m.get("feedforward_gate"))
        return self.feedforward_norm(x) if self.norm_after else x


def _scale(x: Tensor, factor: Tensor | None) -> Tensor:
    return x if factor is None else x * factor


def _shift(x: Tensor, offset: Tensor | None) -> Tensor:
    return x if offset is None else x + offset
