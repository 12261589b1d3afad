"""The inside of the loop as tensors: states, answers, attention and modulation for each loop.

Results have one entry for each loop, and entry 0 is loop 1. The timestep t counts from 0 to num_loops - 1.
`attention_mask` is True at real positions; norms, cosines and principal components use only these.
`looped/analysis/stability.py` compares and differentiates trajectories.
"""

import inspect
from collections.abc import Callable, Collection
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from looped.models.iteration import iterate
from looped.models.looped_model import Loop, LoopedModel
from looped.nn.attention import Attention, dot_product_attention
from looped.nn.protocols import Context


@torch.no_grad()
def states(loop: Loop, num_loops: int, start: Tensor | None = None) -> Float[Tensor, "states batch seq d_model"]:
    """The state before the first loop and after each: (num_loops + 1, batch, seq, d_model).

    Args:
        loop: `model.loop(inputs, attention_mask=attention_mask, num_loops=num_loops)`.
        start: the state before the first loop; None is the model's own.

    Raises:
        ValueError: num_loops is below 1.
    """
    start = loop.initial if start is None else start
    return torch.stack([start, *iterate(loop.step, start, num_loops, keep=range(1, num_loops + 1)).kept.values()])


class Lens(NamedTuple):
    """The answer at each position after each loop, for tasks whose answers are classes."""

    entropy: Float[Tensor, "loops batch seq"]
    """Entropy of the distribution over classes, in nats."""
    final: Float[Tensor, "loops batch seq"]
    """Probability of the last loop's answer."""
    target: Float[Tensor, "loops batch seq"]
    """Probability of the right answer."""
    agrees: Bool[Tensor, "loops batch seq"]
    """Whether the most probable answer is that of the last loop."""


def logit_lens(loop_logits: Float[Tensor, "loops batch seq output"], targets: Int[Tensor, "batch seq"]) -> Lens:
    """Entropy and probabilities of the loop_logits of all loops (`loop_logits="all"`).

    Source: the logit lens (nostalgebraist, 2020), over loops instead of layers.
    """
    log_p = loop_logits.log_softmax(-1)
    answers = log_p.argmax(-1)

    def probability(of: Tensor) -> Tensor:
        return log_p.gather(-1, of.expand_as(answers)[..., None]).squeeze(-1).exp()

    entropy = -torch.special.xlogy(log_p.exp(), log_p.exp()).sum(-1)
    return Lens(entropy, probability(answers[-1]), probability(targets), answers == answers[-1])


class Motion(NamedTuple):
    """Size and direction of the movement of an example's state in each loop."""

    change: Float[Tensor, "loops batch"]
    """|h_{t+1} - h_t| / |h_t|; infinite if h_t is zero, as before loop 1 with input injection."""
    cosine: Float[Tensor, "loops batch"]
    """Cosine between h_t and h_{t+1}; NaN if one of them is zero."""
    turn: Float[Tensor, "turns batch"]
    """Cosine between the step h_{t+1} - h_t of a loop and that of the next loop, for all loops except the last. 1 means
    straight on, -1 means back. NaN if the state does not move."""


def motion(states: Float[Tensor, "states batch seq d_model"], attention_mask: Bool[Tensor, "batch seq"]) -> Motion:
    """Norms and cosines of an example's state, over all its attended positions together."""
    flat = (states * attention_mask[..., None]).flatten(2)
    steps = flat.diff(dim=0)
    return Motion(
        steps.norm(dim=-1) / flat[:-1].norm(dim=-1), cosine(flat[:-1], flat[1:]), cosine(steps[:-1], steps[1:])
    )


def cosine(a: Float[Tensor, "*batch n"], b: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch"]:
    """Cosine of the angle between vectors; NaN if one is zero."""
    return (a * b).sum(-1) / (a.norm(dim=-1) * b.norm(dim=-1))


class Components(NamedTuple):
    """States in the plane (or space) of their largest variance."""

    coordinates: Float[Tensor, "states batch seq components"]
    """In units of the state. Padding has coordinates too, but does not influence the components."""
    explained: Float[Tensor, " components"]
    """Share of the variance along each component."""


def principal_components(
    states: Float[Tensor, "states batch seq d_model"], attention_mask: Bool[Tensor, "batch seq"], components: int = 2
) -> Components:
    """Principal components over all loops, examples and attended positions.

    The largest entry of a component is positive, so equal states give equal coordinates. States that are not finite, of
    a loop that diverges, do not influence the components.
    """
    real = states[:, attention_mask].flatten(0, 1).double()
    real = real[real.isfinite().all(-1)]
    centre = real.mean(0).nan_to_num()
    variances, axes = torch.linalg.eigh((real - centre).T @ (real - centre))
    axes = axes[:, -components:].flip(-1)
    axes = axes * axes.gather(0, axes.abs().argmax(0, keepdim=True)).sign()
    coordinates = ((states.double() - centre) @ axes).to(states.dtype)
    return Components(coordinates, (variances[-components:].flip(0) / variances.sum()).to(states.dtype))


@torch.no_grad()
def attention_maps(
    model: LoopedModel,
    inputs: Tensor,
    *,
    attention_mask: Bool[Tensor, "batch seq"] | Bool[Tensor, "batch seq seq"] | None = None,
    num_loops: int | None = None,
    keep: Collection[int] | None = None,
) -> Float[Tensor, "loops layers batch heads seq seq"]:
    """Attention weights of the core layers: how much each query (fifth axis) attends to each key (sixth), by loop.

    Rows sum to 1. Linear attention gives its scores instead. The maps are recomputed from the inputs of each attention
    layer during an ordinary forward pass. With two states (`TwoStates`) they are those of the update of the answer.

    Args:
        keep: loop numbers from 1, ascending; None is all. Maps are large.

    Raises:
        ValueError: as `LoopedModel.loop` does, and for loop numbers out of range.
    """
    loops = model.num_loops if num_loops is None else num_loops
    kept = list(range(1, loops + 1)) if keep is None else list(keep)
    if loops >= 1 and (not kept or min(kept) < 1 or max(kept) > loops):
        raise ValueError(f"keep={kept}: expected loop numbers from 1 to num_loops={loops}")
    maps: dict[tuple[int, int], Tensor] = {}

    def hook_of(layer: int) -> Callable[[Attention, tuple[Any, ...], dict[str, Any]], None]:
        def hook(module: Attention, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            given = inspect.signature(module.forward).bind(*args, **kwargs).arguments
            if (t := given["context"].loop) + 1 in kept:
                maps[t, layer] = _attention_weights(module, given["x"], given["context"])

        return hook

    # A core of two states applies its layers several times in a loop; the last map stays.
    layers = [layer for block in model.core for layer in getattr(block, "layers", [block])]
    attentions = [(i, m) for i, layer in enumerate(layers) for m in layer.modules() if isinstance(m, Attention)]
    hooks = [module.register_forward_pre_hook(hook_of(i), with_kwargs=True) for i, module in attentions]
    try:
        states(model.loop(inputs, attention_mask=attention_mask, num_loops=loops), loops)
    finally:
        for hook in hooks:
            hook.remove()
    return torch.stack([maps[key] for key in sorted(maps)]).unflatten(0, (len(kept), len(layers)))


def _attention_weights(
    module: Attention, x: Float[Tensor, "batch seq d_model"], context: Context
) -> Float[Tensor, "batch heads seq seq"]:
    projected = F.linear(x, module.qkv.weight, module.qkv.bias)
    q, (k, _) = module.heads(projected, context.rotary)
    # With the identity matrix as values, the output of attention is its weights, for every kind of attention.
    identity = torch.eye(x.shape[1], dtype=x.dtype, device=x.device).expand(*k.shape[:2], -1, -1)
    return dot_product_attention(q, k, identity, context.mask, module.kind)


@torch.no_grad()
def layer_states(
    model: LoopedModel,
    inputs: Tensor,
    *,
    attention_mask: Bool[Tensor, "batch seq"] | Bool[Tensor, "batch seq seq"] | None = None,
    num_loops: int | None = None,
) -> Float[Tensor, "layers batch seq d_model"]:
    """The state after each core layer in the last of `num_loops` loops, in the order in which they are applied.

    `model.loop(...).decode` makes logits of them: the logit lens over layers (nostalgebraist, 2020). With loop_norm,
    the norm that ends a loop is applied to each.

    Raises:
        ValueError: as `LoopedModel.loop` does.
    """
    loops = model.num_loops if num_loops is None else num_loops
    found: list[Tensor] = []

    def hook(module: Any, args: tuple[Any, ...], output: Tensor) -> None:
        if args[1].loop == loops - 1:
            found.append(output)

    hooks = [block.register_forward_hook(hook) for block in model.core]
    try:
        states(model.loop(inputs, attention_mask=attention_mask, num_loops=loops), loops)
    finally:
        for handle in hooks:
            handle.remove()
    return torch.stack([model.norm(state) if model.loop_norm else state for state in found])


@torch.no_grad()
def layer_modulation(model: LoopedModel, num_loops: int) -> dict[str, Float[Tensor, "loops layers d_model"]] | None:
    """The scales, shifts and gates of the core layers in each loop, by name; None without modulation.

    Scales and gates include their offsets. The result is also None if layers have different kinds of modulation, as
    with modulation="additive".

    Raises:
        ValueError: num_loops is larger than the learned table.
    """
    if model.modulation is None:
        return None
    names = [tuple(of_layer) for of_layer in model.modulation.names]
    if len(set(names)) != 1 or names[0] == ("input_shift",):
        return None
    rows = model.modulation(num_loops, model.device).unflatten(1, (len(names), -1))
    return dict(zip(names[0], rows.unbind(2), strict=True))
