"""A study's prompt as a template for one message of a user: in jinja, as tokenizers have it, and in Go's, as Ollama has it.

In: a tokenizer, a prompt for each example, and examples. Out: ``Frame``, which was held against every prompt's own token
ids. Knows nothing of models, settings and files.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tangeval.core.errors import TangevalError
from tangeval.core.types import Example
from tangeval.models.tokens import Prompt, encode_prompt, prompt_text

#: Stands for a message; of Unicode's private characters, which no text has and no filter changes.
_SLOT = "\ue000\ue001"
_ALONE = "this template is a study's prompt: it takes one message, of the user"


@dataclass(frozen=True)
class Frame:
    """What stands around a message: ``parts`` with the message between each two of them.

    ``whole`` says that the message is the whole prompt, not an example's input alone. Without ``parts`` the tokenizer's own
    chat template is asked with the task's messages.
    """

    parts: tuple[str, ...]
    whole: bool
    bos: bool

    def messages(self, prompt: Prompt, example: Example) -> Prompt:
        """Return the messages that an example is asked with."""
        if not self.parts:
            return prompt
        return [{"role": "user", "content": str(prompt) if self.whole else example.input}]

    @property
    def jinja(self) -> str | None:
        """The template for a tokenizer's ``chat_template``; None for the tokenizer's own."""
        if not self.parts:
            return None
        # Backslashes of JSON's strings are jinja's too.
        texts = [json.dumps(part, ensure_ascii=False) for part in self.parts]
        said = " + messages[0]['content'] + ".join(texts)
        wrong = "messages | length != 1 or messages[0]['role'] != 'user'"
        refused = f"{{%- if {wrong} -%}}{{{{- raise_exception({json.dumps(_ALONE)}) -}}}}{{%- endif -%}}"
        return f"{refused}{{{{- {'bos_token + ' * self.bos}{said} -}}}}"

    def go(self, bos: str | None) -> str | None:
        """Return the template for a Modelfile, without the ``bos`` that llama.cpp puts first; None for the model's own."""
        if not self.parts:
            return None
        first, *rest = self.parts
        texts = [first.removeprefix(bos or ""), *rest]
        return "{{ .Prompt }}".join(text.replace("{", '{{ "{" }}') for text in texts)


def frame(tokenizer: Any, prompt: Callable[[Example], Prompt], examples: Sequence[Example]) -> Frame:
    """Return what frames a message so that each of ``examples`` is asked with the study's own token ids.

    The message is an example's input where the prompt is the same around each of them; else it is the whole prompt.

    Raises:
        TangevalError: no template gives the study's tokens.
    """
    asked = [prompt(example) for example in examples]
    wanted, plain = [encode_prompt(tokenizer, one) for one in asked], isinstance(asked[0], str)
    probe = examples[0]
    fields = tuple((name, _SLOT if text == probe.input else text) for name, text in probe.fields)
    around = tuple(prompt_text(tokenizer, prompt(replace(probe, input=_SLOT, fields=fields))).split(_SLOT))
    bos = plain and tokenizer.bos_token_id not in (None, tokenizer.eos_token_id)
    # Behind a special token some tokenizers put the space before a text that they put where it stands alone.
    gaps = ("", " ") if bos else ("",)
    tried = [Frame((gap + around[0], *around[1:]), False, bos) for gap in gaps if len(around) > 1]
    tried += [Frame((gap, ""), True, bos) for gap in gaps] if plain else [Frame((), True, False)]
    for found in tried:
        messages = [found.messages(one, example) for one, example in zip(asked, examples, strict=True)]
        if [tokens(tokenizer, each, found.jinja) for each in messages] == wanted:
            return found
    raise TangevalError(
        f"prompt: no chat template gives this tokenizer ({type(tokenizer).__name__}) the study's token ids, so a folder "
        "would ask otherwise than the study; use prompt: chat in the study"
    )


def tokens(tokenizer: Any, messages: Prompt, template: str | None = None) -> list[int]:
    """Return the token ids of messages by a chat template (default: the tokenizer's own)."""
    how = {"chat_template": template, "add_generation_prompt": True, "return_dict": True}
    return list(tokenizer.apply_chat_template(messages, **how)["input_ids"])
