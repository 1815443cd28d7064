"""Which adapters can be evaluated, by what their configurations say.

In: an adapter's folder. Out: None, or the reason why it cannot be. Knows nothing of torch and of weights.
"""

from pathlib import Path
from typing import Any

from tangeval.models.folders import ADAPTER_CONFIG, read_object

#: Kinds (``peft_type``) that are no layers of the model: a prompt of numbers, a cache, attention or a network of their own.
NO_LAYERS = ("ADAPTION_PROMPT", "CARTRIDGE", "CPT", "MULTITASK_PROMPT_TUNING", "P_TUNING", "PREFIX_TUNING", "PROMPT_TUNING",
             "SHADOW")  # fmt: skip


def adapter_config(folder: Path) -> dict[str, Any]:
    """Return what an adapter says of itself; nothing where its configuration is missing or not whole."""
    return read_object(folder / ADAPTER_CONFIG) or {}


def unsupported(folder: Path) -> str | None:
    """Return why the adapter in ``folder`` cannot be evaluated; None if nothing is known against it."""
    about = adapter_config(folder)
    kind = about.get("peft_type")
    reasons = {
        f"its kind, {kind}, is no change of the model's layers": kind in NO_LAYERS,
        f"its kind, {kind}, must be told the task of each text": kind == "POLY",
        "it is switched on by tokens (alora_invocation_tokens)": about.get("alora_invocation_tokens"),
        "it is made of other adapters (arrow_config)": about.get("arrow_config"),
    }
    why = next((reason for reason, holds in reasons.items() if holds), None)
    return why and f"the adapter cannot be evaluated: {why}; docs/compatibility.md says which kinds can"
