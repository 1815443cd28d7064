"""What others wrote: read within bounds, and shown without effect and without secrets.

In: files of anybody's making, and texts out of them. Out: bytes up to a limit, JSON as plain
values, texts in which no character steers a terminal and no key is told. What a file is for, and what
should be in it, is for who opens it.
"""

import codecs
import json
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from tangeval.core.errors import TangevalError
from tangeval.core.keeping import reading

MIB = 2**20
#: Bytes of a JSON file: tokenizers of 262,144 tokens have half of it. As Python's objects it may be 30 times as much.
LARGEST = 64 * MIB
#: Control characters but tab and line feed, and what sets the direction of writing or hides.
_STEERING = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)

_BETWEEN = re.compile(r"[\s,]*")  # elements of a list
#: Names of environment variables that hold a secret, the fewest characters of one, and secrets in any text.
_SECRET = re.compile(
    r"(?:^|_)(?:API)?(?:KEY|TOKEN|SECRET|PASS|PASSWORD|PASSWD|PAT|CREDENTIALS?)(?:_|$)", re.I
)
_SHORTEST = 8
#: What may be half of a pair in JSON: with a backslash before it, it is none.
_HALF = re.compile(r"\\ud[89ab]\w\w(?!\\ud[c-f])|(?<!\\ud[89ab]\w\w)\\ud[c-f]|[\ud800-\udfff]", re.I)
_TOLD = re.compile(
    r"(?<=://)[^\s/@'\"]+(?=@)|\bsk-[\w-]{16,}|(?<=Bearer )(?!none\b)[\w.~+/=-]{8,}"
    r"|(?<=[?&])((?:api[_-]?key|key|token|access_token|password|sig|signature)=)[^&\s'\"]+",
    re.I,
)


def read_bytes(file: Path, largest: int = LARGEST) -> bytes:
    """Return a file's content, of which no more than ``largest`` bytes are ever read.

    Raises:
        TangevalError: there is more of it, or it cannot be read at the moment.
        OSError: there is no such file.
    """
    with reading(file), file.open("rb") as stream:
        content = stream.read(largest + 1)
    if len(content) > largest:
        raise TangevalError(f"{file}: larger than {largest // MIB} MiB, which no such file is; give another")
    return content


def read_text(file: Path, largest: int = LARGEST) -> str:
    """Return the text of a file of at most ``largest`` bytes, as ``decoded``; its lines end with a line feed.

    Raises:
        TangevalError: as ``read_bytes`` and ``decoded``.
        OSError: there is no such file.
    """
    content = read_bytes(file, largest)
    try:
        return decoded(content).replace("\r\n", "\n")
    except TangevalError as error:
        raise TangevalError(f"{file}, {error}") from None


def decoded(content: bytes) -> str:
    """Return the text of a file's content: UTF-8, or UTF-16 where a byte order mark says so, as Windows' shells write it.

    Raises:
        TangevalError: it is neither; the line is named, and Big5 where it may be that.
    """
    marked = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        return content.decode("utf-16" if marked else "utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
    try:
        content.decode("cp950")
        perhaps = ", perhaps Big5 (`iconv -f CP950 -t UTF-8` turns it)"
    except UnicodeDecodeError:
        perhaps = ""
    raise TangevalError(f"line {line}: not UTF-8{perhaps}; save the file as UTF-8")


def listed(text: str, file: Path) -> Iterator[tuple[int, Any]]:
    """Yield each element of a JSON list, and the line of ``text`` on which it begins; ``file`` is named in errors.

    Raises:
        TangevalError: it is no JSON, and the line is named; or no list.
    """
    try:
        elements = parsed(text)
    except json.JSONDecodeError as error:
        raise TangevalError(f"{file}, line {error.lineno}: not valid JSON ({error.msg})") from None
    except ValueError as error:
        raise TangevalError(f"{file}: not valid JSON ({error})") from None
    if not isinstance(elements, list):
        raise TangevalError(f"{file}, line 1: expected a JSON list of records; one a line is .jsonl")
    decoder, end, line = json.JSONDecoder(), text.index("[") + 1, 1
    line += text.count("\n", 0, end)
    for element in elements:  # decoded once more, for the lines
        start = _BETWEEN.match(text, end).end()  # type: ignore[union-attr]
        line += text.count("\n", end, start)
        yield line, element
        _, end = decoder.raw_decode(text, start)
        line += text.count("\n", start, end)


def parsed(text: str | bytes) -> Any:
    """Return what JSON says.

    Raises:
        ValueError: it is none, is nested too deeply, or has a number of more than 4,300 digits, or half of a surrogate
            pair, which neither a file nor a terminal takes.
    """
    text = text if isinstance(text, str) else text.decode("utf-8-sig", "surrogatepass")
    try:
        content = json.loads(text)
        if half := _HALF.search(text):
            json.dumps(content, ensure_ascii=False).encode()
    except RecursionError:
        raise ValueError("nested too deeply") from None
    except UnicodeEncodeError:
        place = half.start() if half else 0
        raise json.JSONDecodeError(
            "half of a surrogate pair is no character; write it whole", text, place
        ) from None
    return content


def redacted(text: str, *secrets: str) -> str:
    """Return ``text`` with *** for ``secrets``, values of environment variables that are named as such, and keys in URLs."""
    return hide(text, held(*secrets))


def held(*secrets: str) -> list[str]:
    """Return ``secrets`` and those of the environment, the longest first."""
    own = {v.strip() for name, v in os.environ.items() if _SECRET.search(name)} | set(secrets)
    return sorted((s for s in own if len(s) >= _SHORTEST), key=len, reverse=True)


def hide(text: str, secrets: Iterable[str]) -> str:
    """Return ``text`` with *** for ``secrets``, which ``held`` gave, and keys in URLs."""
    for secret in secrets:
        text = text.replace(secret, "***")
    return _TOLD.sub(lambda found: f"{found[1] or ''}***", text)


def inert(text: str) -> str:
    """Return ``text``, redacted, with control characters made visible: ESC is shown as ␛, others as their picture or as �."""
    return _STEERING.sub(_picture, redacted(text))


def _picture(found: re.Match[str]) -> str:
    code = ord(found[0])
    return chr(0x2400 + code) if code < 0x20 else "␡" if code == 0x7F else "\ufffd"


def inert_json(text: str) -> str:
    """Return JSON with the same characters escaped, so that it says the same and steers no terminal."""
    return _STEERING.sub(lambda found: f"\\u{ord(found[0]):04x}", redacted(text))
