"""The engines, by the ``kind`` of a study's ``engine`` section. A new one is a file and a line here."""

import pkgutil
import threading
from contextlib import suppress
from typing import Any

from tangeval.core.config import validated
from tangeval.core.errors import TangevalError
from tangeval.core.libraries import needs
from tangeval.engines.base import Engine
from tangeval.engines.workers import Workers, visible_gpus
from tangeval.resolve import ResolvedStudy

#: Where each engine's class is, as ``module:Class``; imported when it is asked for, since most take seconds.
ENGINES = {
    "local": "tangeval.engines.local:LocalEngine",
    "ray": "tangeval.engines.ray:RayEngine",
    "openai": "tangeval.engines.openai:OpenAIEngine",
}


def engine_class(kind: str) -> type[Engine]:
    """Return an engine's class, or raise ``TangevalError`` where what it needs is not installed."""
    if kind not in ENGINES:
        raise TangevalError(f"engine.kind: {kind!r} is no engine; give {', '.join(ENGINES)}")
    with needs("decoding"):
        found: type[Engine] = pkgutil.resolve_name(ENGINES[kind])
    return found


def make(
    resolved: ResolvedStudy, *, on: str | None = None, gpus: int | None = None, now: bool = False
) -> Engine:
    """Return the engine that the study asks for.

    ``on`` is a Ray cluster to decode on: ``ray`` or ``ray://HOST:PORT``; ``gpus`` is how many of this machine are used. ``now`` says
    that texts are wanted at once: processes for several GPUs start, and files are digested, while PyTorch is imported here.

    Raises:
        TangevalError: the ``engine`` section has other keys or values than that engine takes; the message
            names the study's file and the key.
    """
    given = resolved.study.engine
    section: dict[str, Any] = given.model_dump(exclude_none=True) if given else {}
    kind = section.setdefault("kind", "openai" if "server" in section else "local")
    if on:
        if kind == "openai":
            raise TangevalError(
                f"--on {on}: the study's engine is a server, which decodes elsewhere already; leave it out"
            )
        section |= {"kind": "ray", "address": on}
    if gpus is not None:
        if section["kind"] != "local":
            raise TangevalError(
                f"--gpus {gpus} is for this machine's GPUs, and the engine is {section['kind']}; leave it out"
            )
        section["gpus"] = gpus
    if section["kind"] == "local" and now:
        wanted = section.get("gpus", "auto")
        Workers.early(resolved, visible_gpus()[: wanted if isinstance(wanted, int) else None])
        threading.Thread(target=_digest, args=(resolved,), daemon=True).start()
    engine = engine_class(section["kind"])
    return engine(resolved, validated(engine.Config, section, resolved.study.file, "engine"))


def _digest(resolved: ResolvedStudy) -> None:
    """Read what the plan wants the digests of; what is wrong with it is said there."""
    with suppress(Exception):
        resolved.base_fingerprint, resolved.fingerprints  # noqa: B018
