"""Requests for completions in the dialects of several servers, and the texts in their replies.

In: a prompt, knobs, a seed. Out: the body of a request; of a reply, the texts with their tokens and
how they ended. Knows nothing of connections, files, batches or studies.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tangeval.core.errors import TangevalError
from tangeval.core.knobs import COMMON, KNOB, KNOBS, Value
from tangeval.engines.base import Output
from tangeval.engines.client import Choice, Reply

_LOGPROBS: tuple[Mapping[str, Any], ...] = ({"logprobs": 1},)


@dataclass(frozen=True)
class Dialect:
    """How a kind of server is asked.

    ``takes`` are the knobs that it has a field for; ``off`` the values that turn a knob off, where
    they are not the knob's own; ``neutral`` turns off what no knob stands for, since a field that is
    left out has the server's own default. ``counts`` are the fields that make it tell the tokens of each of several
    texts (n) of one request, the cheapest first; none where it gives but one. ``at_once`` are the requests that it
    does best with.
    """

    takes: frozenset[str] = frozenset(knob.name for knob in KNOBS if knob.openai)
    off: Mapping[str, float] = field(default_factory=dict)
    neutral: Mapping[str, float] = field(default_factory=dict)
    counts: tuple[Mapping[str, Any], ...] = _LOGPROBS
    at_once: int = 32
    nested: bool = False  #: knobs go into ``generation_config``, by transformers' names

    def body(self, knobs: Mapping[str, Value], seed: int, n: int) -> dict[str, Any]:
        """Return the fields that ask for ``n`` texts; a knob that is not given is off, but for ``max_length``."""
        values = {knob.name: knobs.get(knob.name, knob.off) for knob in KNOBS if knob.name in self.takes}
        values = {name: value for name, value in values.items() if name in COMMON or value != KNOB[name].off}
        fields: dict[str, Any] = {"seed": seed, "frequency_penalty": 0, "presence_penalty": 0, **self.neutral}
        for name, value in values.items():
            off = value == KNOB[name].off
            if (name in _OPENAI or not self.nested) and not (off and KNOB[name].kind == "constraint"):
                fields[str(KNOB[name].openai)] = self.off.get(name, value) if off else value
        if n > 1:
            fields["n"] = n
        if self.nested:  # transformers warns of what narrows draws where nothing is drawn
            drawn = values["temperature"] > 0
            own = {name for name in values if drawn or KNOB[name].kind not in ("scale", "cut")}
            config = {KNOB[name].hf: value for name, value in values.items() if name in own}
            fields["generation_config"] = json.dumps(
                {"repetition_penalty": 1.0, "do_sample": drawn, **config}
            )
        return fields


#: The knobs that OpenAI's own servers have fields for; they refuse any other.
_OPENAI = frozenset({"temperature", "top_p", "max_length", "presence_penalty", "frequency_penalty"})
#: Those that llama.cpp knows by other definitions: over its last 64 tokens, the prompt's among them.
_WINDOWED = frozenset({"repetition_penalty", "presence_penalty", "frequency_penalty"})
#: Those that it applies before the temperature, so that they mean something else there.
_COLD = frozenset({"min_p", "typical_p"})
_NAMED = frozenset(knob.name for knob in KNOBS if knob.openai)
DIALECTS: dict[str, Dialect] = {
    "vllm": Dialect(
        takes=_NAMED - {"top_n_sigma", "typical_p"}, off={"top_k": -1}, neutral={"min_p": 0, "repetition_penalty": 1},
        counts=({"return_token_ids": True}, *_LOGPROBS), at_once=256,
    ),
    "llamacpp": Dialect(takes=_NAMED - _WINDOWED - _COLD, neutral={"min_p": 0, "repeat_penalty": 1}, counts=()),
    "transformers": Dialect(takes=frozenset(k.name for k in KNOBS if k.hf and k.kind != "search"), counts=(), nested=True),
    "openai": Dialect(takes=_OPENAI),
}  # fmt: skip
#: The dialect of a server whose list of models says that they are owned by …
_OWNERS = {
    "vllm": "vllm", "sglang": "vllm", "llamacpp": "llamacpp",
    "openai": "openai", "openai-internal": "openai", "system": "openai",
}  # fmt: skip


def dialect_of(listed: Sequence[Mapping[str, Any]]) -> str | None:
    """Return the dialect of the server that lists these models; None if that cannot be told."""
    for model in listed:
        if model.get("owned_by") in _OWNERS:
            return _OWNERS[model["owned_by"]]
        if "status" in model:  # transformers' owner is the first part of a model's name
            return "transformers"
    return None


#: What servers call a text's own end, and max_tokens; and what the other ends are.
_FINISHES = {
    **dict.fromkeys(("eos", "eos_token", "stop_sequence", "end_turn"), "stop"),
    **dict.fromkeys(("max_tokens", "max_length"), "length"),
}  # fmt: skip
_ENDS = {
    None: "the server does not say how a text ended (finish_reason is null or not there); take a server that does",
    "content_filter": "the server filtered a text (finish_reason content_filter); take a server that filters nothing",
    "tool_calls": "a text ended in a call of a tool (finish_reason tool_calls); take away the server's tools",
}


def _counted(choice: Choice) -> int:
    """The tokens of a text, of their ids or of logprobs in any of the shapes that servers give them."""
    told = choice.logprobs
    listed = [told.get("tokens"), told.get("content")] if isinstance(told, dict) else [told]
    return next((len(each) for each in (choice.token_ids, *listed) if isinstance(each, list) and each), 0)


def echoes(text: str, prompt: str | Sequence[Mapping[str, str]]) -> bool:
    """Say whether a text begins with its prompt, or with the last message, white space apart."""
    asked = prompt if isinstance(prompt, str) else prompt[-1]["content"]
    return "".join(text.split()).startswith("".join(asked.split()))


def read_reply(reply: Reply, *, n: int, max_length: int) -> list[Output]:
    """Return the ``n`` texts of a reply, in their order.

    The tokens of one text are ``usage.completion_tokens``; of several, as many as their ids or logprobs.

    Raises:
        TangevalError: what is wrong with it, and the remedy.
    """
    choices = sorted(reply.choices, key=lambda choice: choice.index)
    one = "engine.n=1 asks for one at a time"
    if len(choices) != n:
        raise TangevalError(f"it gave {len(choices)} texts where n was {n}; {one}")
    total = reply.usage.completion_tokens
    counts = [_counted(choice) for choice in choices]
    if total is None or (n > 1 and sum(counts) != total):
        remedy = one if n > 1 else "take a server that does"
        raise TangevalError(f"it does not count the tokens of each text (usage, logprobs); {remedy}")
    outputs = []
    for choice, tokens in zip(choices, counts if n > 1 else [total], strict=True):
        reason: Any = _FINISHES.get(str(choice.finish_reason), choice.finish_reason)
        if tokens > max_length:
            raise TangevalError(
                f"it writes on beyond max_tokens: {tokens} where it was {max_length}; take a server that does not"
            )
        if reason not in ("stop", "length"):
            other = f"a text ended neither by itself nor at max_tokens (finish_reason {reason}); look at the server's log"
            raise TangevalError(_ENDS.get(reason, other))
        if reason == "length" and tokens < max_length:
            raise TangevalError(
                f"a text was cut at {tokens} tokens where max_tokens was {max_length}; give the server a longer "
                "context, or a smaller decoding.max_length"
            )
        outputs.append(Output(choice.said, tokens, reason))
    return outputs
