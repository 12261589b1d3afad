"""Published numbers of GPUs, in machines of eight that are joined by a network."""

from dataclasses import dataclass

NODE = 8
"""GPUs in a machine."""


@dataclass(frozen=True, kw_only=True)
class GPU:
    """The published limits of one GPU."""

    flops: float
    """FLOPs a second of dense matrix products in bf16."""
    memory: int
    """Bytes."""
    bandwidth: float
    """Bytes a second from and to its memory."""
    nvlink: float
    """Bytes a second to the other GPUs of the machine, in one direction."""
    network: float
    """Bytes a second to other machines, in one direction."""


# Data sheets of NVIDIA: A100 80GB (SXM), H100 (SXM), H200 (SXM) and DGX B200. Products are without sparsity, and NVLink
# is half of the printed sum of both directions. The network is that of DGX A100 (200 Gbit/s a GPU), DGX H100, DGX H200
# and DGX B200 (400 Gbit/s a GPU).
GPUS = {
    "a100": GPU(flops=312e12, memory=80 * 10**9, bandwidth=2.039e12, nvlink=300e9, network=25e9),
    "h100": GPU(flops=989.4e12, memory=80 * 10**9, bandwidth=3.35e12, nvlink=450e9, network=50e9),
    "h200": GPU(flops=989.4e12, memory=141 * 10**9, bandwidth=4.8e12, nvlink=450e9, network=50e9),
    "b200": GPU(flops=2250e12, memory=180 * 10**9, bandwidth=8e12, nvlink=900e9, network=50e9),
}
