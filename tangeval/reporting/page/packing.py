"""How content is put into a page so that it can be neither markup nor code.

In: JSON and bytes. Out: text that can stand in a script's element, and the policy that lets only the
page's own scripts run.
"""

import base64
import hashlib
import json
import re
import zlib
from typing import Any

from markupsafe import Markup

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
