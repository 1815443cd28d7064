"""The largest logits in order, against PyTorch's stable sort."""

import pytest
import torch

from tangeval.decoding.ordering import descending


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("size", [40, 2003, 2048])
def test_order_is_that_of_a_stable_sort_ties_by_falling_id(size, dtype):
    generator = torch.Generator().manual_seed(size)
    logits = (torch.randn(20, size, generator=generator) * 3 * 64).round().div(64).to(dtype)
    logits[:, ::7] = torch.tensor([-torch.inf, -0.0, 0.0, 4.0], dtype=dtype)[torch.arange(20) % 4, None]
    values, ids = (found.flip(1) for found in logits.sort(dim=1, stable=True))
    for count in (1, 32, 64, 1024, size):
        found = descending(logits, count := min(count, size))
        assert torch.equal(found[0], values[:, :count].float())
        assert torch.equal(logits.gather(1, found[1]).float(), found[0])
        certain = found[0] > found[0][:, -1:] if count < size else slice(None)
        assert torch.equal(found[1][certain], ids[:, :count][certain])
