"""What each token of a tokenizer writes.

In: a tokenizer. Out: a text for each id. Knows nothing of what may be written.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from transformers.convert_slow_tokenizer import bytes_to_unicode

from tangeval.models.tokens import decode_completion

_BYTES = {letter: byte for byte, letter in bytes_to_unicode().items()}


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


def token_name(tokenizer: Any, token: int) -> str:
    """Return what a token writes; its name where that is no text (a special token, or bytes of a character: <0xE6 0x98>).

    Models have rows that no token of the tokenizer uses: <151900>.
    """
    text = tokenizer.decode([token], clean_up_tokenization_spaces=False)
    special = token in tokenizer.all_special_ids
    if text and not special and "\ufffd" not in text:
        return str(text)
    name = str(tokenizer.convert_ids_to_tokens(token) or f"<{token}>")
    # Byte-level vocabularies write each byte as a character of GPT-2's alphabet; others name it <0xE6> themselves.
    written = [_BYTES.get(letter) for letter in name]
    if special or not text or name.startswith("<0x") or None in written:
        return name
    return f"<{' '.join(f'0x{byte:02X}' for byte in written)}>"
