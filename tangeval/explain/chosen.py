"""The texts that ``tangeval run`` explains: the first examples, at the checkpoint and setting that were chosen.

In: a resolved study, and its results folder with a choice. Out: ``explain/chosen-1`` and so on; those that hold
what they would hold are left as they are. Knows nothing of the page that shows them.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from tangeval import __version__
from tangeval.core.digest import digest
from tangeval.core.errors import DamagedError, TangevalError
from tangeval.explain.subject import Asked, Subject, find
from tangeval.resolve import ResolvedStudy
from tangeval.results.explained import FILE
from tangeval.results.files import read_json, write_text
from tangeval.results.folder import RunFolder

TEXTS = 3  #: as many as the page has room for beside what a reader explains
MOST_TOKENS = 256  #: of a text; a longer one's steps take minutes, and the page has no room for them


def write_chosen(resolved: ResolvedStudy, run: RunFolder) -> None:
    """Write ``explain.json`` of the first texts of the test split, or of the one that was chosen by where there is no test.

    Raises:
        TangevalError: the chosen setting is a search or its texts may be too long, or the model cannot be loaded.
    """
    missing = dict(_missing(resolved, run))
    if not missing:
        return
    from tangeval.explain import trace

    with trace.loaded(resolved, next(iter(missing.values()))[0]) as model:
        for file, (subject, key) in missing.items():
            content = replace(model, subject=subject).content()
            write_text(file, content.model_copy(update={"key": key}).as_json())


def _missing(resolved: ResolvedStudy, run: RunFolder) -> Iterator[tuple[Path, tuple[Subject, str]]]:
    """The files that are not there, or are of something else: what each explains, and its key."""
    rule = resolved.study.select
    split = "test" if rule is None or "test" in resolved.study.splits else rule.split
    for number in range(1, min(TEXTS, len(resolved.examples(split))) + 1):
        subject = find(resolved, run.path, Asked(str(number), split))
        length = subject.setting.max_length
        if length > MOST_TOKENS:
            raise TangevalError(
                f"texts of up to {length} tokens are long to explain; give the example: --prompt {number}"
            )
        name, values = subject.checkpoint.name, subject.setting.as_dict()
        key = digest([__version__, run.manifest["signature"], subject.example.id, name, values])
        file = run.explain / f"chosen-{number}" / FILE
        if _key(file) != key:
            yield file, (subject, key)


def _key(file: Path) -> str:
    """The key of what is there; "" where there is nothing, or it is damaged."""
    try:
        content = read_json(file)
    except DamagedError:
        return ""
    return str(content.get("key", "")) if isinstance(content, dict) else ""
