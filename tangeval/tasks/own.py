"""Metrics and checks of one's own: what a task file names as ``file.py:name``.

In: a function of one text. Out: a ``Metric``. ``from tangeval import check, metric`` has both decorators. The file is
run, so a study that names it wants the user's word: ``ALLOW_FILES``.
"""

import math
import os
import runpy
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from tangeval.core.errors import TangevalError
from tangeval.metrics.base import Metric, Texts

#: A study file may come from elsewhere; code that it names is not run without this variable.
ALLOW_FILES = "TANGEVAL_ALLOW_TASK_FILES"
#: Takes a text, and the fields of its record by name.
OfText = Callable[[str, Mapping[str, str]], bool]


def metric(
    *, better: Literal["high", "low"], level: Literal["text", "samples"] = "text", share: bool = False,
    label: str | None = None,
) -> Callable[[Callable[..., float]], Metric]:  # fmt: skip
    """Return a decorator that makes a metric of a function.

    At level ``text`` the function takes a text and its reference, both as they are compared, and the record's fields; at
    level ``samples`` the list of all samples' texts of an example and setting. ``share``: it lies between 0 and 1.
    """

    if better not in ("high", "low") or level not in ("text", "samples"):
        raise TangevalError(
            f"@metric: better is high or low, level is text or samples; not {better!r}, {level!r}"
        )

    def mark(function: Callable[..., float]) -> Metric:
        def of_texts(texts: Texts) -> list[float]:
            given = zip(texts.compared, texts.references, texts.examples, strict=True)
            return [_number(function, share, text, ref, dict(e.fields)) for text, ref, e in given]

        def of_samples(sets: Sequence[Sequence[str]]) -> list[float]:
            return [_number(function, share, list(own)) for own in sets]

        name = function.__name__
        said = {"en": label or name, "zh": label or name}
        compute = of_texts if level == "text" else of_samples
        return Metric(name, said, better, level, share=share, headline=True, compute=compute)

    return mark


def check(function: OfText) -> Metric:
    """Return a check of a function: whether a text, as it was written, is as the record's fields ask.

    It has no reference, so samples may be picked by it (``metrics.base.check_of``).
    """

    def compute(texts: Texts) -> list[float]:
        given = zip(texts.written, texts.examples, strict=True)
        return [
            _number(lambda *a: bool(function(*a)), True, text.strip(), dict(e.fields), of=function)
            for text, e in given
        ]

    name = function.__name__
    said = {"en": name, "zh": name}
    return Metric(name, said, "high", share=True, flaw=said, compute=compute)


def _number(
    function: Callable[..., Any], share: bool, *given: Any, of: Callable[..., Any] | None = None
) -> float:
    """What a function returns, or an error that names it and the text."""
    where = f"{(of or function).__code__.co_filename}: {(of or function).__name__}"
    try:
        value = function(*given)
        number = float("nan") if isinstance(value, str) else float(value)
    except (Exception, SystemExit) as error:
        raise TangevalError(f"{where}: {type(error).__name__}: {error}, for {given[0]!r:.80}") from error
    if not math.isfinite(number) or (share and not 0 <= number <= 1):
        wanted = "a number from 0 to 1" if share else "a finite number"
        raise TangevalError(f"{where}: returned {value!r:.40} for {given[0]!r:.80}; return {wanted}")
    return number


def load(file: Path, name: str, what: str = "task") -> Any:
    """Return an object of a Python file; ``what`` is the key that names it.

    Raises:
        TangevalError: $TANGEVAL_ALLOW_TASK_FILES is not 1, or the file fails, or has no such object.
    """
    if os.environ.get(ALLOW_FILES) != "1":
        raise TangevalError(
            f"{what}: {file} is Python code and would be run; look at it, and set {ALLOW_FILES}=1 if you trust it"
        )
    try:
        made = runpy.run_path(str(file), run_name=f"tangeval_task_{file.stem}")
    except (Exception, SystemExit) as error:
        why = str(error) if isinstance(error, TangevalError) else repr(error)
        raise TangevalError(f"{what}: {file}:{name} cannot be loaded: {why}") from error
    if name not in made:
        raise TangevalError(f"{what}: {file} has no {name}")
    return made[name]
