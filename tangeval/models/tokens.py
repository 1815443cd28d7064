"""Prompts and completions as token ids, for training and evaluation alike.

In: a tokenizer, and a prompt as text, or as messages for the tokenizer's chat template. Out: token
ids of the prompt and of the completion, and the text of a completion. Knows nothing of tasks and
models, and of the tokenizer only its own attributes, never its name.

A completion begins with one space, as Llama 2's format has it, and ends with EOS. The prompt's
tokens are the same whether or not a completion follows.
"""

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from jinja2 import TemplateError

from tangeval.core.errors import TangevalError

#: A prompt: its text without BOS, or messages for the tokenizer's chat template.
Prompt = str | Sequence[dict[str, str]]


def encode_prompt(tokenizer: Any, prompt: Prompt) -> list[int]:
    """Return the prompt's token ids, BOS first where the tokenizer has one of its own.

    A BOS that is also the EOS (GPT-2's) is not put first: such models were not trained so.
    Some tokenizers own a BOS and do not add it (those read from GGUF): it is added here. A chat
    template brings its own.

    Raises:
        TangevalError: messages were given to a tokenizer without a chat template.
    """
    ids = list(tokenizer.encode(prompt_text(tokenizer, prompt), add_special_tokens=False))
    bos = tokenizer.bos_token_id
    plain = isinstance(prompt, str) and bos is not None and bos != tokenizer.eos_token_id
    return [bos, *ids] if plain else ids


def encode_completion(tokenizer: Any, prompt: Prompt, text: str) -> list[int]:
    """Return the token ids of one space, ``text`` and EOS, as they follow the prompt.

    They are what is added to the prompt's ids when both are tokenised as one text: a
    tokenizer of Llama 2's kind puts a space of its own before a text that stands alone.
    Where joining changes the prompt's own tokens, they are tokenised apart.

    Raises:
        TangevalError: the tokenizer has no EOS, so nothing could tell where a text ends.
    """
    if tokenizer.eos_token_id is None:
        raise TangevalError("the tokenizer has no EOS token; set eos_token in tokenizer_config.json")
    before = prompt_text(tokenizer, prompt)
    head = list(tokenizer.encode(before, add_special_tokens=False))
    ids = list(tokenizer.encode(f"{before} {text}", add_special_tokens=False))
    joined = ids[: len(head)] == head
    answer = ids[len(head) :] if joined else tokenizer.encode(f" {text}", add_special_tokens=False)
    return [*answer, tokenizer.eos_token_id]


def prompt_text(tokenizer: Any, prompt: Prompt) -> str:
    """Return the prompt as the text that is tokenised."""
    if isinstance(prompt, str):
        return prompt
    if not getattr(tokenizer, "chat_template", None):
        raise TangevalError("prompt: chat needs a tokenizer with a chat template; use prompt: hw5")
    try:
        text = tokenizer.apply_chat_template(list(prompt), tokenize=False, add_generation_prompt=True)
    except TemplateError:
        # Some templates have no system role (Gemma 2's, Mistral's first): it opens the question then.
        joined = [{"role": "user", "content": "\n\n".join(message["content"] for message in prompt)}]
        try:
            text = tokenizer.apply_chat_template(joined, tokenize=False, add_generation_prompt=True)
        except Exception as error:
            raise _no_template(error) from error
    except Exception as error:  # whatever the template's own expressions raise
        raise _no_template(error) from error
    return str(text)


#: A space between two characters that no ASCII is, as decoders of word pieces put one.
_PARTED = re.compile(r"(?<=[^\x00-\x7f]) (?=[^\x00-\x7f])")


def _no_template(error: Exception) -> TangevalError:
    return TangevalError(
        f"prompt: chat: the tokenizer's chat template fails ({type(error).__name__}: {error}); mend chat_template.jinja (or "
        "chat_template in tokenizer_config.json), or use prompt: hw5"
    )


def decode_completion(tokenizer: Any, ids: Sequence[int], *, cut: bool) -> str:
    """Return a completion's text: special tokens left out, what the decoder parts joined, then as ``completion_text``."""
    text = _decoded(tokenizer, ids)
    return completion_text(_PARTED.sub("", text) if _parts(tokenizer) else text, cut=cut)


def _decoded(tokenizer: Any, ids: Sequence[int]) -> str:
    return str(tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False))


@lru_cache(maxsize=8)
def _parts(tokenizer: Any) -> bool:
    """Whether the tokenizer's decoder puts spaces where the text had none."""
    return bool(
        _PARTED.search(_decoded(tokenizer, tokenizer.encode("山水人，日月。", add_special_tokens=False)))
    )


def spelling_problem(tokenizer: Any, texts: Sequence[str]) -> str:
    """Return which of ``texts`` the tokenizer cannot write, with an example, and the remedy; "" where it can write all."""
    ids = (encode_completion(tokenizer, "", text)[:-1] for text in texts)
    written = [decode_completion(tokenizer, each, cut=False) for each in ids]
    wrong = [(text, other) for text, other in zip(texts, written, strict=True) if text != other]
    if not wrong:
        return ""
    lost = "".join(dict.fromkeys(c for text, other in wrong for c in text if c not in other))
    lacks = f"; it lacks {lost[:12]}{f' and {len(lost) - 12} more' if len(lost) > 12 else ''}" if lost else ""
    means = (
        "no text can be right, and the checks mean nothing"
        if 2 * len(wrong) > len(texts)
        else "their scores suffer"
    )
    return (
        f"the tokenizer cannot write {len(wrong)} of {len(texts)} references as they are: {wrong[0][0]!r} comes back as "
        f"{wrong[0][1]!r}{lacks}; {means}: take a model whose tokenizer spells these texts"
    )


def completion_text(text: str, *, cut: bool) -> str:
    """Return a completion without the space that it begins with.

    ``cut`` says that it ended at max_length: a byte sequence that the cut left unfinished (decoded as
    U+FFFD) is then dropped from its end.
    """
    if cut:
        text = text.rstrip("\ufffd")
    return text.removeprefix(" ")
