"""What each token of a tokenizer writes.

In: a tokenizer. Out: a text for each id. Knows nothing of what may be written.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from tangeval.models.tokens import decode_completion


@lru_cache(maxsize=2)
def token_texts(tokenizer: Any) -> tuple[str, ...]:
    """Return what each token adds to a text that it follows: by id, "" where that is nothing or no whole character.

    So a special token and a byte of a character are "". It is asked behind a character, since decoders treat a text's
    beginning in their own ways.
    """
    before = list(tokenizer.encode("山", add_special_tokens=False))
    head = decode_completion(tokenizer, before, cut=False)
    special = set(tokenizer.all_special_ids)
    return tuple(
        "" if token in special else _added(tokenizer, before, token, head) for token in range(len(tokenizer))
    )


def _added(tokenizer: Any, before: Sequence[int], token: int, head: str) -> str:
    text = decode_completion(tokenizer, [*before, token], cut=False)
    return text[len(head) :] if text.startswith(head) and "\ufffd" not in text else ""
