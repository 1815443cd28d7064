"""What runs on a GPU alone: kernels, which import Triton, and compiled layers."""

from functools import cache

import torch

# The kernels import Triton, which is there only where PyTorch drives a GPU.
__all__ = ["compile", "has_kernels"]


@cache
def has_kernels(device: torch.device) -> bool:
    """Say whether Triton compiles for the GPU: Ampere or newer, where its list of supported ones begins (since 3.3)."""
    return torch.cuda.get_device_capability(device) >= (8, 0)
