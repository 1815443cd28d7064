"""How content is put into a page so that it can be neither markup nor code.

In: JSON and bytes. Out: text that can stand in a script's element, the policy that lets only the page's own
scripts run, and the page.
"""

import base64
import hashlib
import json
import re
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from tangeval.results.files import read_json

_STATIC = Path(__file__).parent / "static"
_NONE: Mapping[str, str] = {}
_CHARTS = "vendor/echarts.min.js"

#: Control, format (bidi too) and separator characters, surrogates, and what could end a script's element.
_ACTIVE = re.compile(
    "[<>&\x00-\x1f\x7f-\x9f\xad\u0600-\u0605\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ud800-\udfff\ufeff"
    "\ufff9-\ufffb\U000e0001-\U000e007f]"
)


def packed(content: bytes) -> str:
    """Return ``content`` deflated (raw) and in base64, as the page's scripts unpack it."""
    squeezed = zlib.compressobj(7, wbits=-15)
    return base64.b64encode(squeezed.compress(content) + squeezed.flush()).decode()


def inert(content: Any) -> Markup:
    """Return JSON that can stand in a script's element: nothing in it is markup or unseen."""
    return Markup(_ACTIVE.sub(_escaped, json.dumps(content, ensure_ascii=False, separators=(",", ":"))))


def escape_surrogates(text: str) -> str:
    """Return JSON with lone surrogates, which UTF-8 cannot hold, as JSON's escapes."""
    return re.sub("[\ud800-\udfff]", _escaped, text)


def _escaped(match: re.Match[str]) -> str:
    """A character as JSON's escape: one of UTF-16, or two."""
    return json.dumps(match[0])[1:-1] if ord(match[0]) > 127 else f"\\u{ord(match[0]):04x}"


def policy(*scripts: str) -> str:
    """Return a Content-Security-Policy: nothing is loaded, and nothing runs but these scripts."""
    digests = (base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts)
    allowed = " ".join(f"'sha256-{digest}'" for digest in digests)
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data: blob:; "
        "base-uri 'none'; form-action 'none'"
    )


def page(
    title: str, scripts: Sequence[str], facts: Any, tables: Mapping[str, str], *, texts: Mapping[str, str] = _NONE,
    charts: bool = True, beside: str = "summary.csv", asks: bool = False,
) -> str:  # fmt: skip
    """Return the page of some scripts under ``static/``, over what they read: facts, packed tables, and packed ``texts``
    (``explained``, ``units``).

    ``charts`` takes the library of charts along; ``beside`` is the file with its numbers, for a reader without scripts.
    Where it ``asks``, its scripts may ask the server that it came from, and nobody else.
    """
    library, script = _read(_CHARTS) if charts else "", _read(*scripts)
    environment = Environment(
        loader=FileSystemLoader(_STATIC), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    return environment.get_template("template.html").render(
        title=f"{title} · tangeval",
        policy=policy(library, script) + ("; connect-src 'self'; frame-src 'self'" if asks else ""),
        style=Markup(_read("report.css")),
        library=Markup(library),
        script=Markup(script),
        strings=inert(read_json(_STATIC / "strings.json")),
        facts=inert(facts),
        tables=inert(tables),
        explained=texts.get("explained", ""),
        units=texts.get("units", ""),
        beside=beside,
        verse=facts.get("verse", True),
    )


def _read(*names: str) -> str:
    return "".join((_STATIC / name).read_text("utf-8") for name in names)
