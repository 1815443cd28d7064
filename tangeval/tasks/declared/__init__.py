"""A task that is declared, not written: a YAML file → ``Task``.

In: the mapping of a file, and the folder that its files are in. Out: the ``Task``. The tasks of the package's
``assets/tasks/`` are such files. ``schema.Declared`` has the fields, docs/task.md what they mean.
"""

import re
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from tangeval.core.config import validated
from tangeval.core.digest import digest
from tangeval.core.errors import TangevalError
from tangeval.core.knobs import AXES
from tangeval.core.types import Example
from tangeval.metrics import bleu
from tangeval.metrics.base import Metric
from tangeval.models.tokens import Prompt
from tangeval.tasks import own
from tangeval.tasks.base import Dataset, Task
from tangeval.tasks.declared import checks, measures
from tangeval.tasks.declared.baseline import Pool
from tangeval.tasks.declared.data import load
from tangeval.tasks.declared.outputs import read_outputs
from tangeval.tasks.declared.readers import below
from tangeval.tasks.declared.schema import Declared, Same
from tangeval.tasks.declared.templates import named, template
from tangeval.tasks.declared.texts import PART, normaliser, sentences, units

#: A check's or metric's name is a column of tables, beside these and what is added to a name.
NAME, AFTER = re.compile(r"\w[\w-]*"), re.compile("_(low|high|p)$")
COLUMNS = {
    "checkpoint", "step", "split", "example_id", "sample", "text", "n_tokens", "finish_reason", "poems", "samples",
    "clusters", "cluster", "knob", "value", "rank", "metric", "recipe", "runs", *AXES,
}  # fmt: skip


def task(content: dict[str, Any], root: Path, file: str, code: str = "") -> Task:
    """Return the task of a mapping; ``root`` is the folder of its files, ``file`` where it stands, for messages;
    ``code`` is what its Python files say.

    Raises:
        TangevalError: naming file and key, and what would be right. Data are not opened.
    """
    said = validated(Declared, content, file)
    try:
        return _task(said, root, content, code)
    except TangevalError as error:
        raise TangevalError(f"{file}: {error}") from None


def _task(said: Declared, root: Path, content: dict[str, Any], code: str) -> Task:
    normalise, counted = normaliser(said.text), units(said.text)
    asked, wanted = _prompts(said)
    metrics = _metrics(said, root, counted)
    wanted |= {
        e["from"].removeprefix("fields.")
        for e in (*said.checks, *said.metrics)
        if isinstance(e.get("from"), str)
    }
    wanted |= {said.baseline.same} if isinstance(said.baseline, Same) else set()

    pool = Pool(said.baseline, normalise, counted)
    kinds = {"Prompt": said.judge.grades, "PairPrompt": said.judge.pairs}

    def parts(example: Example) -> tuple[str, ...]:
        # An input counts whole: its first sentence may be an instruction that all have.
        texts = map(normalise, (example.input, *sentences(example.reference)))
        found = tuple(text for text in texts if len(counted(text)) >= PART)
        return found or (normalise(f"{example.input} {example.reference}"),)

    return Task(
        name=said.name,
        templates=("plain", "chat") if said.prompt is not None else ("chat",),
        metrics=metrics,
        load=partial(load, said, root, frozenset(wanted), parts),
        prompt=asked,
        baseline=pool.draw,
        nearest=pool.nearest,
        parts=parts,
        normalise=normalise,
        characters=lambda text: "".join(text.split()),
        group=lambda example: said.name,
        read_outputs=partial(read_outputs, said.fields_.prompt),
        signatures=partial(_signatures, said),
        wording=said.prompt if said.prompt is not None else str([m.model_dump() for m in said.chat or []]),
        digest=digest([content, code]),
        judge={k: v.model_dump() for k, v in kinds.items() if v},
    )


def _prompts(said: Declared) -> tuple[Callable[[Example, str], Prompt], set[str]]:
    """What renders an example's prompt, and the fields that it takes."""
    if (said.prompt is None) == (said.chat is None):
        raise TangevalError(
            "prompt: give prompt, a text with {{ fields }}, or chat, messages with a role each"
        )
    texts = [said.prompt] if said.prompt is not None else [message.content for message in said.chat or []]
    wanted = set[str]().union(*map(named, texts))
    ready = [template(text, wanted, "prompt" if said.prompt else f"chat.{n}") for n, text in enumerate(texts)]
    roles = [message.role for message in said.chat or []] or ["user"]
    if roles[-1] != "user":
        raise TangevalError(f"chat: the last message is the {roles[-1]}'s; the model answers the user's")

    def asked(example: Example, kind: str) -> Prompt:
        rendered = [render(dict(example.fields)) for render in ready]
        if kind != "chat":
            return rendered[0]
        return [{"role": role, "content": text} for role, text in zip(roles, rendered, strict=True)]

    return asked, wanted


def _metrics(said: Declared, root: Path, counted: Callable[[str], str]) -> Mapping[str, Metric]:
    found = list[Metric]()
    for entry in said.metrics:
        if ":" in entry["name"]:
            found.append(_own(root, entry["name"], "metrics"))
        else:
            options = {key: value for key, value in entry.items() if key != "name"}
            found += measures.make(entry["name"], options, counted, words=said.text.compare == "words")
    tests = [checks.COMPLETE, *(_check(root, entry) for entry in said.checks)]
    found += [*([checks.form(tests)] if len(tests) > 1 else []), *tests]
    names = [metric.name for metric in found]
    if bad := [name for name in names if not NAME.fullmatch(name) or name in COLUMNS or AFTER.search(name)]:
        raise TangevalError(
            f"metrics: {bad[0]!r} cannot be a column's name: letters, digits, _ and - alone, none that tables have, "
            "no _low, _high, _p at its end; give another name"
        )
    if twice := [name for name in names if names.count(name) > 1]:
        raise TangevalError(f"metrics: {twice[0]} is there twice; give one of the two another name")
    return {metric.name: metric for metric in found}


def _own(root: Path, name: str, what: str) -> Metric:
    file, _, attribute = name.rpartition(":")
    found = own.load(below(root, file), attribute, what)
    if not isinstance(found, Metric):
        raise TangevalError(
            f"{what}: {name} is none; put @metric(better=…) or @check above it (docs/task.md)"
        )
    return found


def _check(root: Path, entry: dict[str, Any]) -> Metric:
    name = str(entry["name"])
    if ":" in name:
        return _own(root, name, "checks")
    kind = next((key for key in entry if key in checks.CHECKS), name)
    if kind not in checks.CHECKS or (unknown := entry.keys() - {"name", "from", "is", kind}):
        what = (
            f"{name}: {min(unknown)} is no option of it" if kind in checks.CHECKS else f"there is no {name}"
        )
        raise TangevalError(
            f"checks: {what}; there are {', '.join(checks.CHECKS)}, and your own as file.py:name"
        )
    field = str(entry.get("from", "")).removeprefix("fields.")
    fixed = entry.get(kind, entry.get("is", ""))
    if field:
        return checks.make(name, kind, lambda example: dict(example.fields)[field])
    checks.refuse_value(name, kind, fixed)
    return checks.make(name, kind, lambda example: fixed)


def _signatures(said: Declared, data: Dataset) -> Mapping[str, str]:
    how = f"text:{'+'.join([*said.text.normalize, said.text.compare])}"
    counts = sorted({1 + len(example.references) for example in data.examples})
    options = {entry["name"]: entry for entry in said.metrics}
    tokenize = measures.tokenizer(options.get("bleu", {}), words=said.text.compare == "words")
    kinds = {"bleu": ("BLEU", {"tokenize": tokenize}), "chrf": ("CHRF", {})}
    return {
        name: f"{bleu.signature(kind, counts, **own)}|{how}"
        for name, (kind, own) in kinds.items()
        if name in options
    }
