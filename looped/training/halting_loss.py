"""Losses for learned halting: an exit gate, and adaptive computation time."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor


def exit_distribution(halting: Float[Tensor, "loops n"]) -> Float[Tensor, "loops n"]:
    """Probability of exiting after each loop: p_t = lambda_t prod_{j<t} (1 - lambda_j), shape (loops, n).

    `halting` holds the probabilities lambda_t of exiting after loop t if no earlier loop was the exit. The last loop
    gets the remaining probability, so each column sums to 1. Source: PonderNet (Banino et al. 2021), section 2.1.
    """
    halting = torch.cat([halting[:-1], torch.ones_like(halting[-1:])])
    stays = (1 - halting).cumprod(0)
    return halting * torch.cat([torch.ones_like(stays[:1]), stays[:-1]])


def divergence_from_geometric(p: Float[Tensor, "loops n"], prior: float) -> Float[Tensor, " n"]:
    """KL(p || geometric distribution with parameter `prior`) in nats, shape (n,).

    Both distributions end at the last loop, which gets the remaining probability.

    Source: PonderNet, section 2.2, whose loss is sum_t p_t L_t + beta KL(p || p_G).
    """
    halting = torch.full((len(p), 1), prior, dtype=p.dtype, device=p.device)
    tiny = torch.finfo(p.dtype).tiny  # at p = 0 this makes p log p zero and its gradient finite
    return (p * (p.clamp(min=tiny).log() - exit_distribution(halting).log())).sum(0)


def losses(
    loop_logits: Float[Tensor, "loops n output"], targets: Int[Tensor, " n"] | Float[Tensor, " n"]
) -> Float[Tensor, "loops n"]:
    """Loss of each loop and position: cross-entropy in nats; squared error for real targets."""
    if targets.is_floating_point():
        return (loop_logits[..., 0].float() - targets) ** 2
    return F.cross_entropy(loop_logits.float().movedim(-1, 1), targets.expand(loop_logits.shape[:2]), reduction="none")
