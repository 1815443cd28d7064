"""One digest of JSON-like content, for cache keys and signatures."""

import hashlib
import json
from typing import Any


def digest(content: Any) -> str:
    """Return a blake2b digest of 20 hexadecimal digits; the order of keys plays no part."""
    text = json.dumps(content, sort_keys=True, ensure_ascii=False)
    return hashlib.blake2b(text.encode(), digest_size=10).hexdigest()
