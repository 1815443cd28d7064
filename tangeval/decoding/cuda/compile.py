"""A model's repeated layers with their small operations joined into fewer kernels, by torch.compile.

In: a model. Out: a way to run one decoding step of it so. Compiled is one layer, which serves
all of them (PyTorch calls it regional compilation) and every size of the batch; attention over
shared prompts stays as it is. Knows nothing of rows and sequences.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers import AttentionInterface
from transformers.modeling_layers import GradientCheckpointingLayer

from tangeval.core.errors import TangevalError
from tangeval.decoding.shared_prefix import NAME, attend


class Fused:
    """The compiled layers of ``model``; the model itself is left as it is but within ``running``.

    Raises:
        TangevalError: the model has no layers that transformers marks as repeated.
    """

    def __init__(self, model: Any) -> None:
        # Not where ``attend`` is: what is asked for here takes a second to import.
        AttentionInterface.register(NAME, torch.compiler.disable(attend))
        self.layers = [
            (layer, torch.compile(layer.forward, dynamic=True))
            for layer in model.modules()
            if isinstance(layer, GradientCheckpointingLayer)  # transformers' mark of a repeated layer
        ]
        if not self.layers:
            raise TangevalError(
                f"load.compile: {type(model).__name__} has no layers that repeat, and its steps are not compiled; leave "
                "compile out"
            )

    @contextmanager
    def running(self) -> Iterator[None]:
        """Let the model's layers run compiled.

        Raises:
            TangevalError: PyTorch cannot compile them here.
        """
        for layer, compiled in self.layers:
            layer.forward = compiled
        try:
            yield
        except torch._dynamo.exc.TorchDynamoException as error:
            reason = str(error).strip().splitlines()[0]
            raise TangevalError(
                f"load.compile: PyTorch cannot compile this model's layers here ({reason}); leave compile out, or install "
                "a C++ compiler (on a GPU, Triton)"
            ) from error
        finally:
            for layer, _ in self.layers:
                del layer.forward
