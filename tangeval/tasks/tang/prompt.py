"""HW5's prompt: what a couplet is asked with, as text and as messages for a chat template.

In: an example. Out: a prompt as ``models/tokens.py`` takes it. Knows nothing of tokenizers.
"""

from tangeval.core.types import Example
from tangeval.models.tokens import Prompt

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


def asked(example: Example, template: str) -> Prompt:
    """Return the prompt of an example, as a template of the study's has it."""
    return chat_messages(example) if template == "chat" else prompt_text(example)
