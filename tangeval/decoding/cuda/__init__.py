"""What runs on a GPU alone: kernels, which import Triton, and compiled layers."""

# `kernels` imports Triton, which is there only where PyTorch drives a GPU.
__all__ = ["compile"]
