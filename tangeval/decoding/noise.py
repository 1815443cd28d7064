"""Keyed Gumbel noise: common random numbers for every setting and checkpoint.

In: keys (one for each seed, example and sample), the step, token ids. Out: standard Gumbel noise,
a pure function of these. Knows nothing of logits.
"""

import hashlib

import torch
from torch import Tensor

_GOLDEN = 0x9E3779B97F4A7C15 - 2**64  # splitmix64's increment, as a signed integer
_MIX_1, _MIX_2 = 0xBF58476D1CE4E5B9 - 2**64, 0x94D049BB133111EB - 2**64
_BITS = 23  # (integer + 1/2) / 2**23 is exact in float32 and never 0 or 1


def noise_key(seed: int, example_id: str, sample: int) -> int:
    """Return the 64-bit key (signed) of one sample's noise; stable across machines and runs."""
    text = f"{seed}\0{example_id}\0{sample}".encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little", signed=True)


def gumbel(keys: Tensor, step: int, tokens: Tensor) -> Tensor:
    """Return standard Gumbel noise for ``keys`` ``[N]`` at ``tokens``, ``[N, M]`` or for all ``[1, M]``: float32 ``[N, M]``.

    A counter-based generator: splitmix64's finaliser (Steele et al., OOPSLA 2014) on key and
    step, then on that and the token. Noise lies between -2.9 and 16.7.
    """
    bits = _mix(step_seeds(keys, step)[:, None] ^ ((tokens + 1) * _GOLDEN))
    uniform = bits.bitwise_right_shift_(64 - _BITS).bitwise_and_(2**_BITS - 1).to(torch.float32)
    return uniform.add_(0.5).mul_(-(2.0**-_BITS)).log1p_().neg_().log_().neg_()


def step_seeds(keys: Tensor, step: int) -> Tensor:
    """Return ``keys`` ``[N]`` with the step mixed in: what the noise of its tokens is made from."""
    return _mix(_mix(keys.clone()) + torch.full_like(keys, step) * _GOLDEN)


def _mix(x: Tensor) -> Tensor:
    """splitmix64's finaliser on int64, in place; products wrap, shifts are made logical."""
    x.bitwise_xor_((x >> 30).bitwise_and_(2**34 - 1)).mul_(_MIX_1)
    x.bitwise_xor_((x >> 27).bitwise_and_(2**37 - 1)).mul_(_MIX_2)
    return x.bitwise_xor_((x >> 31).bitwise_and_(2**33 - 1))
