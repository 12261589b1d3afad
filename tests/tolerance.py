"""The one table of tolerances: (relative, absolute) for sums of a few thousand products in each type."""

import torch

TOLERANCE = {torch.float64: (1e-9, 1e-11), torch.float32: (1e-4, 1e-5), torch.bfloat16: (3e-2, 3e-2)}


def assert_close(actual: torch.Tensor, expected: torch.Tensor) -> None:
    rtol, atol = TOLERANCE[expected.dtype]
    torch.testing.assert_close(actual, expected, rtol=rtol, atol=atol)
