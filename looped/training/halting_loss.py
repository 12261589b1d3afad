"""Losses that teach a model when to leave the loop: of an exit gate, and of adaptive computation time."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor


def exit_distribution(halting: Float[Tensor, "loops n"]) -> Float[Tensor, "loops n"]:
    """p_t = lambda_t prod_{j<t} (1 - lambda_j), from the probabilities lambda of leaving; the last loop takes the rest.

    PonderNet (Banino et al. 2021), section 2.1.
    """
    halting = torch.cat([halting[:-1], torch.ones_like(halting[-1:])])
    stays = (1 - halting).cumprod(0)
    return halting * torch.cat([torch.ones_like(stays[:1]), stays[:-1]])


def divergence_from_geometric(p: Float[Tensor, "loops n"], prior: float) -> Float[Tensor, " n"]:
    """KL(p || geometric distribution with parameter `prior`) in nats, that distribution cut off like p.

    PonderNet, section 2.2: the loss is sum_t p_t L_t + beta KL(p || p_G).
    """
    halting = torch.full((len(p), 1), prior, dtype=p.dtype, device=p.device)
    tiny = torch.finfo(p.dtype).tiny  # p log p is 0 at p = 0, its gradient finite
    return (p * (p.clamp(min=tiny).log() - exit_distribution(halting).log())).sum(0)


def losses(
    loop_logits: Float[Tensor, "reads n output"], targets: Int[Tensor, " n"] | Float[Tensor, " n"]
) -> Float[Tensor, "reads n"]:
    """Of each readout and position: cross-entropy in nats, for real targets the squared error."""
    if targets.is_floating_point():
        return (loop_logits[..., 0].float() - targets) ** 2
    return F.cross_entropy(loop_logits.float().movedim(-1, 1), targets.expand(loop_logits.shape[:2]), reduction="none")
