"""A couplet of one's own → its endings, each checked.

In: a couplet, and results to take checkpoint and setting from, or nothing: then the shipped model writes. Out: ``Written``
texts. Writes no file.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from tangeval.core.config import named_knobs, validated
from tangeval.core.errors import TangevalError
from tangeval.core.knobs import Setting
from tangeval.core.libraries import needs, quieten
from tangeval.core.study import Decoding, Study, load_study
from tangeval.core.types import BASE, Checkpoint, Example
from tangeval.metrics.base import Texts
from tangeval.metrics.copying import copied
from tangeval.resolve import ResolvedStudy, resolve
from tangeval.results.folder import RunFolder
from tangeval.tasks.base import Task, training_index
from tangeval.tasks.tang import text as verse

#: What writes where no results are given: the shipped model, which keeps to a poem's form only where it is held to it.
DEFAULT: dict[str, Any] = {
    "name": "write", "select": None,
    "decoding": {"temperature": 0.7, "top_p": 0.9, "constrain": "form+rhyme", "no_repeat_ngram_size": 0},
}  # fmt: skip
_SMALL = 500_000_000  # parameters
CHECKS = ("form", "rhyme", "tone_opposition")
_SUCH_AS = "give the first two clauses of a poem, such as 床前明月光，疑是地上霜。"


@dataclass(frozen=True)
class Written:
    """One ending.

    ``checks`` are the metrics of ``CHECKS``, from 0 to 1; ``nats`` is the negative log-likelihood a token under the
    checkpoint that wrote it, at temperature 1; ``copied`` are the clauses that stand in a training text of the data.
    """

    checkpoint: str
    setting: Setting
    sample: int
    text: str
    checks: dict[str, float]
    nats: float
    copied: tuple[str, ...]


def couplet_of(text: str) -> str:
    """Return a couplet with the marks of verse.

    Raises:
        TangevalError: it is not two clauses of one length of Han characters.
    """
    known = set(verse.han(text)) | verse.MARKS | set(verse.ITERATION + " \n.,;?!")
    if odd := dict.fromkeys(each for each in text if each not in known):
        raise TangevalError(f"{text!r} has what is no part of verse: {' '.join(odd)}; {_SUCH_AS}")
    parts = verse.clauses(text)
    if len(parts) != 2:
        count = f"{len(parts)} clause{'s' * (len(parts) != 1)}"
        raise TangevalError(f"{text!r} has {count} of Han characters; {_SUCH_AS}")
    if len(parts[0]) != len(parts[1]):
        raise TangevalError(
            f"{text!r}: its clauses have {len(parts[0])} and {len(parts[1])} characters, and verse has as many in each"
        )
    return verse.as_verse(text)


def write(
    couplet: str, place: str | Path | None = None, checkpoint: str | None = None, knobs: Sequence[str] = (), samples: int = 3,
    *, allow_pickle: bool = False,
) -> list[Written]:  # fmt: skip
    """Return ``samples`` endings of ``couplet`` by the base model and by one checkpoint of the results in ``place``.

    ``checkpoint`` and setting are by default those that were chosen there, else the last and the first; ``knobs``
    (``top_k=5``) change the setting. Without ``place`` the shipped model writes, held to form and rhyme.

    Raises:
        TangevalError: as ``couplet_of``; the model cannot write one of the characters; there is no such checkpoint.
    """
    quieten()
    given = couplet_of(couplet)
    if place is not None and not (Path(place) / "study.yaml").is_file():
        raise TangevalError(
            f"--results {Path(place).absolute()}: there are no results; `tangeval run` makes them"
        )
    study = Study.model_validate(DEFAULT) if place is None else load_study(Path(place) / "study.yaml")
    resolved = resolve(study, allow_pickle=allow_pickle)
    if resolved.served or not set(CHECKS) <= resolved.task.metrics.keys():
        what = (
            "texts of a server"
            if resolved.served
            else f"texts of task {resolved.task.name}, and this writes verse"
        )
        raise TangevalError(
            f"--results {place}: they are {what}; give results of poems by models on this machine"
        )
    if place is None:
        # The shipped model was trained on poems alone: asked for one, it would have to find the couplet in the question.
        resolved = AsItIs.of(resolved)
    writers, setting = chosen(resolved, place and RunFolder(Path(place)).selection, checkpoint)
    changes = setting.as_dict() | named_knobs(knobs, "--setting")
    (setting,) = validated(Decoding, changes, Path("--setting")).settings()
    instruction = resolved.dataset.examples[0].instruction
    example = Example(f"couplet {given}", instruction, given, "", "test")
    return list(_written(resolved, writers, setting, example, samples))


class AsItIs(ResolvedStudy):
    """A study whose model is asked with the input alone."""

    @classmethod
    def of(cls, resolved: ResolvedStudy) -> "AsItIs":
        """Return the same study, asked so."""
        return cls(**{each.name: getattr(resolved, each.name) for each in fields(resolved)})

    @property
    def task(self) -> Task:
        return replace(super().task, prompt=lambda example, template: example.input)


def chosen(resolved: ResolvedStudy, selection: Any, asked: str | None) -> tuple[list[Checkpoint], Setting]:
    """Return the base model and a checkpoint, and the setting: those that were chosen, else the last and the first.

    Raises:
        TangevalError: there is no checkpoint of the name that is ``asked`` for.
    """
    names, picks = {c.name: c for c in resolved.checkpoints}, selection or {}
    picked = (picks.get("checkpoint") or {}).get("checkpoint")
    name = asked or (picked if picked in names else resolved.checkpoints[-1].name)
    if name not in names:
        raise TangevalError(f"--checkpoint {name}: there is none of that name; there are {', '.join(names)}")
    own = picks.get("setting")
    setting = Setting.from_row(own) if own else resolved.study.decoding.settings()[0]
    return [names[each] for each in dict.fromkeys((BASE, name)) if each in names], setting


def _written(
    resolved: ResolvedStudy, writers: Sequence[Checkpoint], setting: Setting, example: Example, samples: int
) -> Iterator[Written]:
    with needs("writing"):
        import torch

        from tangeval.decoding.batch import Workspace
        from tangeval.decoding.contrast import Reader
        from tangeval.decoding.decoder import TokenSequence, decode
        from tangeval.decoding.noise import noise_key
        from tangeval.decoding.self_check import choose_way
        from tangeval.engines.constraints import constraints_of
        from tangeval.engines.likelihood import token_nats
        from tangeval.engines.local import few_threads
        from tangeval.models import adapters, loading
        from tangeval.models.tokens import decode_completion, encode_prompt
    tokenizer, load = loading.load_tokenizer(resolved.base), resolved.study.loading()
    prompt = encode_prompt(tokenizer, resolved.task.prompt(example, resolved.template))
    check_known(tokenizer, example.input)
    constraint = constraints_of(resolved, tokenizer)(setting.constrain, example)

    def workspace_of(model: Any) -> Workspace:
        return Workspace(way=choose_way(model, [prompt], int(setting.max_length)))

    base, other = loading.load_model(resolved.base, load), None
    if setting.contrast:  # a checkpoint may be written into the weights of the one that it is on
        beside = loading.load_model(resolved.base, load)
        other = Reader(beside, workspace_of(beside))
    small = base.device.type == "cpu" and base.num_parameters() < _SMALL  # threads would wait for one another
    keys = [noise_key(resolved.study.seed, example.id, sample) for sample in range(samples)]
    for checkpoint in writers:
        with (
            few_threads(1 if small else torch.get_num_threads()),
            adapters.with_checkpoint(
                base, checkpoint, replace(load, allow_pickle=resolved.allow_pickle)
            ) as model,
        ):
            workspace = workspace_of(model)
            eos = loading.eos_ids(model, tokenizer)
            sequences = [TokenSequence(0, setting, key, constraint) for key in keys]
            tokens = decode(model, [prompt], sequences, eos=eos, workspace=workspace, other=other).tokens
            nats = token_nats(model, [prompt] * samples, tokens, workspace)
        ended = [ids[-1] in eos for ids in tokens]
        texts = [
            decode_completion(tokenizer, ids[:-1] if end else ids, cut=not end)
            for ids, end in zip(tokens, ended, strict=True)
        ]
        measured = _checked(resolved, example, texts, ended)
        for sample, (text, own, (checks, stolen)) in enumerate(zip(texts, nats, measured, strict=True)):
            yield Written(checkpoint.name, setting, sample, text, checks, sum(own) / len(own), stolen)


def check_known(tokenizer: Any, couplet: str) -> None:
    """Raise ``TangevalError`` where the model's tokenizer does not know a character."""
    unknown = tokenizer.unk_token_id
    if odd := [c for c in verse.han(couplet) if unknown is not None and unknown in tokenizer.encode(c)]:
        raise TangevalError(f"the model does not know {''.join(odd)}; it reads traditional characters")


def _checked(
    resolved: ResolvedStudy, example: Example, texts: Sequence[str], ended: Sequence[bool]
) -> list[tuple[dict[str, float], tuple[str, ...]]]:
    """Each text's checks, and its clauses that stand in training."""
    task, index = resolved.task, training_index(resolved.task, resolved.dataset)
    reasons = ["stop" if end else "length" for end in ended]
    read = Texts(texts, [example] * len(texts), reasons, task.normalise, index)
    values = {name: task.metrics[name].compute(read) for name in CHECKS}
    found = []
    for place, text in enumerate(texts):
        parts = verse.clauses(text)
        own = copied(index, [verse.fold(part) for part in parts], [example.id] * len(parts))
        checks = {name: float(column[place]) for name, column in values.items()}
        found.append((checks, tuple(part for part, known in zip(parts, own, strict=True) if known)))
    return found
