"""What runs on a GPU alone: kernels, which import Triton, and compiled layers."""

# The kernels import Triton, which is there only where PyTorch drives a GPU.
__all__ = ["compile"]
