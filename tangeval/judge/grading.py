"""Grades by a language model: prosody (格律) and fluency (語意通順) of a text, 0 to 10 each.

In: a results folder and any server that speaks OpenAI's chat completions. Out: ``judge.jsonl``, every
answer as it came, and ``judge.csv``, a row an output. Each text is asked about several times (votes); what
``judge.jsonl`` holds is not asked again. Knows nothing of torch and of other metrics; the judge is not
told who wrote a text.
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd

from tangeval import tasks
from tangeval.analysis import scoring
from tangeval.analysis.intervals import mean_interval
from tangeval.core.config import named_knobs
from tangeval.core.errors import TangevalError
from tangeval.core.knobs import Value, axes_in, written
from tangeval.core.types import BASE, Split
from tangeval.judge.agreement import Agreement, pairs_of, read_votes, wins, with_counted, with_human
from tangeval.judge.asking import SCORES, Answer, Asking, Call, Judge, Scores, Tally, collect, parse
from tangeval.results.files import write_csv
from tangeval.results.folder import RunFolder
from tangeval.tasks.base import Dataset, Task, cut_note

#: Votes on one text agree if they are no further apart.
_AGREE = 1


@dataclass(frozen=True)
class Wanted:
    """Which outputs are judged; no checkpoints stands for the selected one, and ``setting`` changes its knobs.

    ``reference`` and ``random`` are judged beside them on request, the reference's grades always;
    ``human`` is a file of people's votes that the judge is held against.
    """

    checkpoints: tuple[str, ...] = ()
    base: bool = False
    setting: tuple[str, ...] = ()
    split: str = "test"
    samples: int = 1
    reference: bool = False
    random: bool = False
    human: Path | None = None


@dataclass(frozen=True)
class Graded:
    """``outputs`` is ``judge.csv``, ``summary`` a row a checkpoint."""

    outputs: pd.DataFrame
    summary: pd.DataFrame
    agreement: Agreement
    tally: Tally


def grade(folder: RunFolder, data: Dataset, judge: Judge, wanted: Wanted, how: Asking) -> Graded:
    """Grade outputs of a results folder and their references, and write ``judge.jsonl`` and ``judge.csv``.

    Raises:
        TangevalError: what is wanted is not there; or the server is not there, refuses, or stays busy:
            answers that came are kept.
    """
    rows = select_rows(folder, data, replace(wanted, reference=True))
    votes = read_votes(wanted.human, data) if wanted.human else None
    every = calls(rows, {example.id: example.input for example in data.examples}, judge)
    answers, tally = collect(every, judge, folder.answers, how)
    outputs = table(rows, every, judge, answers)
    write_csv(folder.table("judge"), outputs)
    pairs = pairs_of(rows[["checkpoint", "example_id", "sample", "text"]].join(outputs[list(SCORES)]))
    by_prosody = pairs.assign(win=wins(pairs["prosody_a"], pairs["prosody_b"]))
    sums = (pairs[f"prosody_{side}"] + pairs[f"fluency_{side}"] for side in "ab")
    human = None if votes is None else with_human(pairs.assign(win=wins(*sums)), votes)
    agreed = Agreement(with_counted(by_prosody, tasks.load(folder.study.task), data), human)
    return Graded(outputs, summarize(outputs), agreed, tally)


def select_rows(folder: RunFolder, data: Dataset, wanted: Wanted) -> pd.DataFrame:
    """Return the rows to judge, ``scoring.keys_in`` and ``text``: ``base`` first, references and random endings last.

    The checkpoint and the setting are those that were selected, as far as ``wanted`` names no others;
    where no setting met the requirements, the nearest.

    Raises:
        TangevalError: a name, knob, split or sample that there is not.
    """
    selection = folder.selection
    frame = scoring.read_generations(folder.study, folder.path)
    names = wanted.checkpoints or ((selection["checkpoint"]["checkpoint"],) if selection else ())
    if not names:
        raise TangevalError(
            f"{folder.selection_file} is missing; `tangeval select` makes it, or name a --checkpoint"
        )
    names = tuple(dict.fromkeys((*((BASE,) if wanted.base else ()), *names)))
    frame = _known(frame, "split", [wanted.split], "--split ")
    frame = _known(frame, "checkpoint", names, "--checkpoint ")
    for knob, value in _setting(folder, selection, wanted.setting).items():
        frame = _known(frame, knob, [value], f"--setting {knob}=")
    if wanted.samples > (there := frame["sample"].nunique()):
        raise TangevalError(
            f"--samples {wanted.samples}: {folder.path} has {there} of each {wanted.split} example"
        )
    frame = frame[frame["sample"] < wanted.samples]
    task, split, samples = tasks.load(folder.study.task), cast(Split, wanted.split), wanted.samples
    frame = _unwrapped(frame[frame["checkpoint"].isin(names)], task, data)
    parts = [frame[frame["checkpoint"] == name] for name in names]
    if wanted.reference:
        parts.append(scoring.reference_rows(task, data, split))
    if wanted.random:
        parts.append(scoring.random_rows(task, data, split, folder.study.seed, samples, draws=samples))
    return pd.concat(parts, ignore_index=True).reindex(columns=[*scoring.keys_in(frame), "text"])


def _unwrapped(frame: pd.DataFrame, task: Task, data: Dataset) -> pd.DataFrame:
    """The rows with the answers alone for texts; warns of what was cut."""
    pairs = zip(frame["text"], frame["example_id"], strict=True)
    found = [task.unwrap(text, data.by_id[example].input) for text, example in pairs]
    if note := cut_note([cut for _, cut in found]):
        warnings.warn(f"judged without what is none of the answer: {note}", stacklevel=2)
    return frame.assign(text=[text for text, _ in found])


def _known(frame: pd.DataFrame, column: str, values: Sequence[Any], option: str) -> pd.DataFrame:
    """The rows with one of ``values`` in ``column``; each of them must be there."""
    there = list(dict.fromkeys(frame[column]))
    if unknown := [value for value in values if value not in there]:
        raise TangevalError(
            f"{option}{written(unknown[0])}: the results have {', '.join(map(written, there))}"
        )
    return frame[frame[column].isin(values)]


def _setting(folder: RunFolder, selection: Any, changes: Sequence[str]) -> dict[str, Value]:
    """The selected setting with ``knob=value`` applied."""
    chosen = (selection["setting"] or selection["nearest"][0]) if selection else {}
    setting = {knob: chosen[knob] for knob in axes_in(chosen)} | named_knobs(changes, "--setting")
    if missing := [knob for knob in folder.study.decoding.axes if knob not in setting]:
        raise TangevalError(
            f"{folder.selection_file} is missing, to take {', '.join(missing)} from; `tangeval select` makes it, or give "
            "every knob with --setting"
        )
    return setting


def calls(rows: pd.DataFrame, given: Mapping[str, str], judge: Judge) -> list[Call]:
    """Return every vote that ``rows`` want, each text of an example once: all first votes, then all second."""
    pairs = dict.fromkeys(zip(rows["example_id"], rows["text"], strict=True))
    return [
        judge.call(example_id, given[example_id], (text,), vote)
        for vote in range(1, judge.votes + 1)
        for example_id, text in pairs
    ]


def table(
    rows: pd.DataFrame, calls: Sequence[Call], judge: Judge, answers: Mapping[str, Answer]
) -> pd.DataFrame:
    """Return a row an output: ``scoring.keys_in``, then what its votes say.

    Each score is the mean over the votes that could be parsed, NaN without one; ``_spread`` is the highest
    less the lowest. ``votes`` were answered, ``parsed`` of them could be read. ``agreement`` is the share
    of pairs of votes, of all scores, no more than a point apart.
    """
    votes: dict[tuple[str, str], list[Any]] = {(call.example_id, call.texts[0]): [] for call in calls}
    for call in calls:
        if call.key in answers:
            votes[call.example_id, call.texts[0]].append(parse(answers[call.key].raw, Scores))
    records = [_counted(votes[pair]) for pair in zip(rows["example_id"], rows["text"], strict=True)]
    measured = pd.DataFrame(records, index=rows.index)
    return rows[scoring.keys_in(rows)].join(measured).assign(judge=judge.model, prompt=judge.prompt_digest)


def _counted(votes: Sequence[Any]) -> dict[str, float]:
    read = np.array([[getattr(vote, name) for name in SCORES] for vote in votes if vote])
    counted: dict[str, float] = {"votes": len(votes), "parsed": len(read)}
    for place, name in enumerate(SCORES):
        given = read[:, place] if len(read) else np.array([np.nan])
        counted |= {name: given.mean(), f"{name}_spread": np.ptp(given)}
    near = [np.abs(a - b) <= _AGREE for a, b in combinations(read, 2)]
    return counted | {"agreement": float(np.mean(near)) if near else np.nan}


def summarize(judged: pd.DataFrame) -> pd.DataFrame:
    """Return a row a checkpoint of ``table``'s rows, in their order.

    Each score is a mean over examples, an example's own being that of its outputs, with a 95 % interval over
    examples (``mean_interval``); one without a parsed vote is left out and counted in ``missing``.
    ``unparsable`` is a share of answers, ``agreement`` a mean over outputs.
    """
    records = []
    for name, part in judged.groupby("checkpoint", sort=False):
        examples = part.groupby("example_id", sort=False)[list(SCORES)].mean()
        measured, answered = examples.dropna(), int(part["votes"].sum())
        record = {
            "checkpoint": name, "poems": len(measured), "missing": len(examples) - len(measured),
            "outputs": len(part), "votes": answered, "agreement": part["agreement"].mean(),
            "unparsable": 1 - part["parsed"].sum() / answered if answered else np.nan,
        }  # fmt: skip
        for score in SCORES:
            ends = mean_interval(measured[score].to_numpy()) if len(measured) else (np.nan, np.nan)
            low, high = (float(np.clip(end, 0, 10)) for end in ends)
            record |= {score: measured[score].mean(), f"{score}_low": low, f"{score}_high": high}
        records.append(record)
    return pd.DataFrame(records)
