"""A chosen setting and prompt → Ollama's ``Modelfile``, and the commands that make the GGUF file it names.

The names of parameters and their defaults are those of Ollama's reference (docs/modelfile.mdx in ollama/ollama, "Valid
Parameters and Values"). Parameters whose default is not off are always written. Knows nothing of weights.
"""

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from tangeval.core.errors import TangevalError
from tangeval.core.knobs import KNOB, Setting, turned, written

#: What llama.cpp's converter can write numbers as (``--outtype``).
Outtype = Literal["q8_0", "f16", "bf16", "f32"]
MODELFILE, GGUF = "Modelfile", "model.gguf"
_NAMES = {
    "temperature": "temperature", "top_k": "top_k", "top_p": "top_p", "min_p": "min_p", "max_length": "num_predict",
    "repetition_penalty": "repeat_penalty",
}  # fmt: skip
_CONTEXT = 2048  # tokens, by default


def unknown(setting: Mapping[str, Any]) -> list[str]:
    """Return the knobs that a setting turns on and Ollama does not have."""
    return [k.name for k in turned(setting) if k.name not in _NAMES and setting[k.name] != k.off]


def modelfile(
    setting: Mapping[str, Any], template: str | None, stops: Sequence[str], prompt_tokens: int
) -> str:
    """Return a Modelfile; ``prompt_tokens`` are those of the longest prompt, ``stops`` the texts of the tokens that end one.

    Raises:
        TangevalError: the template has what a Modelfile cannot quote.
    """
    if template is not None and '"""' in template:
        raise TangevalError(
            'prompt: it has """, which a Modelfile cannot quote; change it, or leave --gguf out'
        )
    whole = Setting.from_row(setting)
    values = {name: written(getattr(whole, knob)) for knob, name in _NAMES.items()}
    if whole.repetition_penalty != KNOB["repetition_penalty"].off:
        values["repeat_last_n"] = "-1"  # all of the text and the prompt, as the study's
    if (tokens := prompt_tokens + int(whole.max_length)) > _CONTEXT:
        values["num_ctx"] = str(tokens)
    lines = [f"PARAMETER {name} {value}" for name, value in values.items()]
    lines += [f"PARAMETER stop {json.dumps(stop, ensure_ascii=False)}" for stop in stops]
    asked = [] if template is None else [f'TEMPLATE """{template}"""']
    return "\n".join([f"FROM ./{GGUF}", *asked, *lines]) + "\n"


def commands(folder: Path, outtype: Outtype, name: str) -> list[str]:
    """Return the commands that make the GGUF file of a folder with whole weights, and Ollama's model of it."""
    to = shlex.quote(str(folder / GGUF))
    name = re.sub(r"[^a-z0-9_.-]+", "-", name.lower()).strip("-._") or "tangeval"  # what Ollama takes
    return [
        "git clone https://github.com/ggml-org/llama.cpp && pip install -r llama.cpp/requirements.txt",
        f"python llama.cpp/convert_hf_to_gguf.py {shlex.quote(str(folder))} --outtype {outtype} --outfile {to}",
        f"ollama create {name} -f {shlex.quote(str(folder / MODELFILE))}",
    ]
