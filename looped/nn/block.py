"""One transformer layer, with the modulation of the loop that it runs in."""

from collections.abc import Callable, Mapping

from jaxtyping import Float
from torch import Tensor, nn

from looped.config import ModelConfig
from looped.nn.attention import Attention
from looped.nn.feedforward import FeedForward
from looped.nn.native.block import native_block, runs_native
from looped.nn.norms import make_norm
from looped.nn.protocols import Context

ALONE = Context()
NO_NORMS: Mapping[str, Callable[[Tensor], Tensor]] = dict.fromkeys(("before", "branch", "after"), lambda x: x)


class TransformerBlock(nn.Module):
    """x += gate_a * Attention(norm(x) * scale_a + shift_a); x += gate_f * FeedForward(norm(x) * scale_f + shift_f).

    Without modulation the scales and gates are one and the shifts zero. `input_shift` is added to x at the start.
    `ModelConfig.norm_place` puts norms after the sum or on the branch, before the gate. Two places have two norms.
    """

    modulation_names = (
        "input_shift", "attention_scale", "attention_shift", "attention_gate",
        "feedforward_scale", "feedforward_shift", "feedforward_gate",
    )  # fmt: skip

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.attention_norm = make_block_norm(config)
        self.attention = Attention(config)
        self.feedforward_norm = make_block_norm(config) if config.feedforward_norm else nn.Identity()
        self.feedforward = FeedForward(config)
        self.norm_place = config.norm_place
        if "_" in self.norm_place:
            self.attention_output_norm, self.feedforward_output_norm = make_block_norm(config), make_block_norm(config)
        self.values_from_state = config.values == "state"
        self.graph_heads = config.graph_heads
        self.native = False
        """Whether to compute small blocks in C++ on CPUs, in training and in evaluation."""
        # A cache keeps no graphs, so a layer of graph heads alone cannot be cached.
        self.kv_shape = (config.kv_heads, config.head_dim) if config.num_heads else None

    def forward(
        self, x: Float[Tensor, "batch seq d_model"], context: Context = ALONE
    ) -> Float[Tensor, "batch seq d_model"]:
        """The state after the layer."""
        if runs_native(self, x, context):
            return native_block(self, x, context)
        m = context.modulation
        x = _shift(x, m.get("input_shift"))
        norms = self._norms("attention")
        given = _shift(_scale(norms["before"](x), m.get("attention_scale")), m.get("attention_shift"))
        attended = self.attention(given, x if self.values_from_state else given, context)
        x = norms["after"](x + _scale(norms["branch"](attended), m.get("attention_gate")))
        norms = self._norms("feedforward")
        given = _shift(_scale(norms["before"](x), m.get("feedforward_scale")), m.get("feedforward_shift"))
        return norms["after"](x + _scale(norms["branch"](self.feedforward(given)), m.get("feedforward_gate")))

    def _norms(self, sublayer: str) -> Mapping[str, Callable[[Tensor], Tensor]]:
        """The norms of a sublayer by their place: before it, on its branch, after the sum."""
        first, _, second = self.norm_place.partition("_")
        norms = {**NO_NORMS, first: getattr(self, f"{sublayer}_norm")}
        return {**norms, second: getattr(self, f"{sublayer}_output_norm")} if second else norms


def make_block_norm(config: ModelConfig) -> nn.Module:
    """A norm of the kind that the layers have."""
    return make_norm(config.norm, config.d_model, epsilon=config.norm_epsilon, gain=config.norm_gain, bias=config.bias)


def _scale(x: Tensor, factor: Tensor | None) -> Tensor:
    return x if factor is None else x * factor


def _shift(x: Tensor, offset: Tensor | None) -> Tensor:
    return x if offset is None else x + offset
