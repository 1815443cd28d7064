"""Whether the rows of a batch are the texts that the model writes one by one.

In: a loaded model, a short and a long text as token ids. Out: the ``Way`` to decode with it, asked once a
checkpoint before its first batch. The model's own ``generate``, one text at a time and unpadded, says what is
right. Knows nothing of sequences, settings and files.
"""

import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from tangeval.core.errors import NOT_NUMBERS, TangevalError, UnusableError
from tangeval.decoding.batch import Shared, Way, Workspace, forget, prefill
from tangeval.decoding.shared_prefix import UnlikeError, bare

#: From the fastest to the one that is nearest to ``generate``.
_WAYS = tuple(Way(shares, pads) for pads in (True, False) for shares in (True, False))


@torch.inference_mode()
def choose_way(model: Any, prompts: Sequence[list[int]], length: int) -> Way:
    """Return the first way whose next two tokens have the model's own logits, after the shortest prompt and the longest text.

    The longest text is the longest prompt and ``length`` tokens after it, in all. Logits differ where the norm of the
    difference is more than 2√ε of that of the logits around their mean, ε being that of what it computes in: half of the
    digits. A way that is not the fastest is warned of.

    Raises:
        UnusableError: every way differs, or the model does not give numbers.
        TangevalError: the model keeps no keys and values.
    """
    ordered, kind = sorted(prompts, key=len), type(bare(model)).__name__
    filler = ordered[-1] * (length // len(ordered[-1]) + 1)
    texts = (ordered[0], ordered[-1] + filler[: max(0, length - 2)])
    own = [_generated(model, text) for text in texts]
    if not all(logits.amax(dim=-1).isfinite().all() for logits, _ in own):
        raise UnusableError(NOT_NUMBERS)
    most, found = 2 * _rounding(model) ** 0.5, []
    forget(model, texts[0])
    plain = model(input_ids=torch.tensor([texts[0]], device=model.device), use_cache=False).logits[0, -1:]
    if (off := _off(plain, own[0][0][:1])) > most:
        raise UnusableError(
            f"{kind}: its own generate and its own forward pass differ by {off:.2g}, so neither can be trusted; use another "
            "version of transformers, or another model"
        )
    for way in _WAYS:
        try:
            shared, off = _difference(model, texts, own, way)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # the model's own too, of rows or masks that it does not expect
            if isinstance(error, TangevalError) and not isinstance(error, UnlikeError):
                raise
            found.append(str(error) or type(error).__name__)
            continue
        if off <= most:
            way = Way(shared, way.pads)
            if found:
                warnings.warn(
                    f"{kind}: {way} (slower): else its logits are not its own ({found[0]})", stacklevel=2
                )
            return way
        found.append(f"they differ by {off:.2g}")
    raise UnusableError(
        f"{kind}: the logits of a batch are not those of its own generate ({found[-1]}), so no text would be its own; use "
        "load.dtype: float32, another version of transformers, or another model"
    )


def _rounding(model: Any) -> float:
    """The ε of what a model computes in; kernels of few bits round to bfloat16 whatever its dtype (bitsandbytes' on a CPU)."""
    dtype = torch.bfloat16 if getattr(bare(model), "is_quantized", False) else model.dtype
    return torch.finfo(dtype).eps


def _generated(model: Any, text: list[int]) -> tuple[Tensor, int]:
    """The logits ``[2, V]`` of the next two tokens of one text by ``generate``, and the first of these tokens."""
    forget(model, text)
    ids = torch.tensor([text], device=model.device)
    result = model.generate(
        input_ids=ids, attention_mask=torch.ones_like(ids), do_sample=False, num_beams=1, max_new_tokens=2,
        min_new_tokens=2, pad_token_id=0, output_logits=True, return_dict_in_generate=True,
    )  # fmt: skip
    return torch.cat(result.logits).float(), int(result.sequences[0, len(text)])


def _difference(
    model: Any, texts: Sequence[list[int]], own: Sequence[tuple[Tensor, int]], way: Way
) -> tuple[bool, float]:
    """Whether rows are shared in ``way``, and the largest difference of their logits to ``own``, relative.

    Each text has a row, and the first of a batch a second one, copied after the prefill.
    """
    off, shared = 0.0, True
    for part in [[0, 1]] if way.pads else [[0], [1]]:
        most = [2, *[1] * (len(part) - 1)]
        first, rows = prefill(model, [texts[n] for n in part], 2, most, Workspace(way=way))
        part.append(part[0])
        place = torch.arange(len(part), device=model.device)
        token = torch.tensor([own[n][1] for n in part], device=model.device)
        second = rows.advance(len(part), place[:1], place[-1:], place, token)
        for number, *pair in zip(part, first[place % len(first)], second, strict=True):
            off = max(off, _off(torch.stack(pair), own[number][0]))
        shared = shared and isinstance(rows, Shared)
    return shared, off


def _off(found: Tensor, expected: Tensor) -> float:
    """The norm of a difference of logits, relative to that of those expected around their mean."""
    seen = expected.isfinite()  # some models ban tokens
    return float((found.float() - expected)[seen].norm() / (expected[seen] - expected[seen].mean()).norm())
