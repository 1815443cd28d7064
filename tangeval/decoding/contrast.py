"""Logits against those of another model on the same rows: what training changed, and more of it.

In: the logits of two models. Out: (1 + γ)·own − γ·other. Knows nothing of how models are run and of who chooses from it.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from tangeval.core.errors import UnusableError
from tangeval.decoding.batch import Workspace


class Reader(NamedTuple):
    """A model that reads the rows, and what it keeps of them."""

    model: Any
    workspace: Workspace


def contrasted(own: Tensor, other: Tensor, gamma: float) -> Tensor:
    """Return (1 + γ)·own − γ·other in float32; what ``own`` forbids stays forbidden.

    Contrastive decoding (O'Brien & Lewis, 2023, arXiv:2309.09117, their β) without its mask.

    Raises:
        UnusableError: the models have other vocabularies.
    """
    if own.shape != other.shape:
        raise UnusableError(
            f"decoding.contrast: the checkpoint has {own.shape[1]} tokens, the base model {other.shape[1]}; leave it out"
        )
    mixed = (1 + gamma) * own.float() - gamma * other.float()
    return mixed.masked_fill_(own.isneginf(), -torch.inf)
