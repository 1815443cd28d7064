"""Attention over padded prompts against PyTorch's ``scaled_dot_product_attention``."""

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from tangeval.decoding.shared_prefix import by_products, over_prompts


@pytest.mark.parametrize("attend", [over_prompts, by_products])
@pytest.mark.parametrize(("dtype", "most"), [(torch.float32, 2e-6), (torch.bfloat16, 0.03)])
def test_attention_over_prompts_and_the_logarithm_of_its_sum(attend, dtype, most):
    """One prompt is padded by more than a block of the kernel."""
    generator = torch.Generator().manual_seed(0)
    query, keys, values = (torch.randn(3, 2, n, 16, generator=generator) for n in (8, 700, 700))
    seen = torch.arange(700) >= torch.tensor([690, 5, 0])[:, None, None, None]
    unseen = torch.zeros(seen.shape).masked_fill(~seen, -torch.inf)
    output, mass = attend(*(x.to(dtype) for x in (query, keys, values, unseen)), 0.3)
    expected = scaled_dot_product_attention(query, keys, values, seen, scale=0.3)
    assert output.dtype == dtype
    torch.testing.assert_close(output.float(), expected, atol=most, rtol=most)
    scores = (0.3 * query @ keys.transpose(-1, -2)).masked_fill(~seen, -torch.inf)
    torch.testing.assert_close(mass, scores.logsumexp(-1, keepdim=True), atol=most, rtol=most)
