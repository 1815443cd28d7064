"""Logits → tokens: all sequences of a batch in one shared decode."""

# `kernels` imports Triton, which is there only where PyTorch drives a GPU.
__all__ = ["attention", "engine", "memory", "rows", "sampler"]
