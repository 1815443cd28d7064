"""The one prompt: how an example becomes tokens, for training and evaluation alike.

In: an example and a tokenizer. Out: token ids of the prompt and of the completion. Knows
nothing of models, and of the tokenizer only what its own attributes say, never its name.

The prompt ends at ``[/INST]``; the completion begins with one space, as HW5's does, and
ends with EOS. The prompt's tokens are the same whether or not a completion follows.
"""

from typing import Any, Literal

from jinja2 import TemplateError

from tangeval.core.errors import TangevalError
from tangeval.core.types import Example

Template = Literal["hw5", "chat"]

# The wording is the homework's own: a model fine-tuned with it must be asked with it.
SYSTEM = "You are a helpful assistant and good at writing Tang poem. 你是一個樂於助人的助手且擅長寫唐詩。"
HW5 = "[INST] <<SYS>>\n{system}\n<</SYS>>\n\n{instruction}\n{couplet}\n[/INST]"


def prompt_text(example: Example) -> str:
    """Return HW5's prompt for an example, without BOS."""
    return HW5.format(system=SYSTEM, instruction=example.instruction, couplet=example.input)


def chat_messages(example: Example) -> list[dict[str, str]]:
    """Return what a chat template is asked with."""
    question = f"{example.instruction}\n{example.input}"
    return [{"role": "system", "content": SYSTEM}, {"role": "user", "content": question}]


def encode_prompt(tokenizer: Any, example: Example, template: Template) -> list[int]:
    """Return the prompt's token ids, BOS first where the tokenizer has one of its own.

    A BOS that is also the EOS (GPT-2's) is not put first: such models were not trained so.
    Some tokenizers own a BOS and do not add it (those read from GGUF): it is added here.

    Raises:
        TangevalError: ``chat`` was asked of a tokenizer without a chat template.
    """
    ids = list(tokenizer.encode(_before(tokenizer, example, template), add_special_tokens=False))
    bos = tokenizer.bos_token_id
    return ids if template == "chat" or bos is None or bos == tokenizer.eos_token_id else [bos, *ids]


def encode_completion(tokenizer: Any, example: Example, template: Template, text: str) -> list[int]:
    """Return the token ids of one space, ``text`` and EOS, as they follow the example's prompt.

    They are what is added to the prompt's ids when both are tokenised as one text: a
    tokenizer of Llama 2's kind puts a space of its own before a text that stands alone.
    Where joining changes the prompt's own tokens, they are tokenised apart.

    Raises:
        TangevalError: the tokenizer has no EOS, so nothing could tell where a poem ends.
    """
    if tokenizer.eos_token_id is None:
        raise TangevalError("the tokenizer has no EOS token; set eos_token in tokenizer_config.json")
    before = _before(tokenizer, example, template)
    head = list(tokenizer.encode(before, add_special_tokens=False))
    ids = list(tokenizer.encode(f"{before} {text}", add_special_tokens=False))
    joined = ids[: len(head)] == head
    answer = ids[len(head) :] if joined else tokenizer.encode(f" {text}", add_special_tokens=False)
    return [*answer, tokenizer.eos_token_id]


def _before(tokenizer: Any, example: Example, template: Template) -> str:
    """The prompt as text, without BOS under ``hw5``."""
    if template == "hw5":
        return prompt_text(example)
    if not getattr(tokenizer, "chat_template", None):
        raise TangevalError("prompt: chat needs a tokenizer with a chat template; use prompt: hw5")
    asked = chat_messages(example)
    try:
        text = tokenizer.apply_chat_template(asked, tokenize=False, add_generation_prompt=True)
    except TemplateError:
        # Some templates know no system role (Gemma 2's, Mistral's first): it opens the question then.
        asked = [{"role": "user", "content": "\n\n".join(message["content"] for message in asked)}]
        text = tokenizer.apply_chat_template(asked, tokenize=False, add_generation_prompt=True)
    return str(text)


def completion_text(tokenizer: Any, ids: list[int], *, cut: bool) -> str:
    """Return the poem in a completion's ids: special tokens left out, then as ``poem_text``."""
    text = str(tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))
    return poem_text(text, cut=cut)


def poem_text(text: str, *, cut: bool) -> str:
    """Return the poem in a completion's text: the first space left out.

    ``cut`` says that it was cut at max_length: then a byte sequence that the cut left unfinished
    at the end (decoded as U+FFFD) is dropped.
    """
    if cut:
        text = text.rstrip("\ufffd")
    return text.removeprefix(" ")
