"""Generations → scores: one row a generation, one column a metric.

In: a results folder's shards (or texts made elsewhere) and the data. Out:
``scores.parquet``, with the rows ``floor`` and ``reference`` scored by the same code. Knows
nothing of torch, and nothing of intervals.
"""

import random
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tangeval.dataset import Dataset
from tangeval.metrics.bleu import COLUMNS, pair_statistics, signatures
from tangeval.metrics.copying import copying, index
from tangeval.metrics.diversity import diversity
from tangeval.metrics.form import check, length_match
from tangeval.metrics.prosody import prosody
from tangeval.plan import check_data, read_plan
from tangeval.poem import as_verse, clauses, metre
from tangeval.records import FLOOR, REFERENCE, Example, TangevalError
from tangeval.store import SCORES, damaged, read_json, read_parquet, write_json, write_parquet
from tangeval.study import Study

KNOBS = ("temperature", "top_k", "top_p", "max_length", "no_repeat_ngram_size")
KEYS = ("checkpoint", "step", *KNOBS, "split", "example_id", "sample")
#: Draws of the floor for each poem.
FLOOR_DRAWS = 32
_TYPES = {"step": "Int64", "top_k": "Int64", "max_length": "Int64", "no_repeat_ngram_size": "Int64"}


def score(study: Study, dataset: Dataset, folder: Path) -> pd.DataFrame:
    """Score what ``folder`` holds of the study, write ``scores.parquet`` and ``signatures.json``, and return the scores.

    Raises:
        TangevalError: a shard that the plan names is missing, or the data are not the run's.
    """
    generations = read_generations(study, folder)
    check_data(dataset, folder)
    splits = study.ordered_splits()
    yardsticks = [floor_rows(dataset, splits, study.seed), reference_rows(dataset, splits)]
    frame = score_texts(pd.concat([generations, *yardsticks], ignore_index=True), dataset)
    write_parquet(folder / SCORES, frame)
    write_json(folder / "signatures.json", signatures())
    return frame


def read_generations(study: Study, folder: Path, sample: int | None = None) -> pd.DataFrame:
    """Return the study's generations, in the order of checkpoints, splits, poems, cells, samples.

    With ``sample`` only that one of each poem and cell is read, which takes that much less memory.

    Raises:
        TangevalError: there are none, or a shard is missing.
    """
    waves, manifest = read_plan(folder), read_json(folder / "manifest.json")
    if not waves or manifest is None:
        raise TangevalError(f"{folder} holds no generations; `tangeval generate STUDY` makes them")
    missing = [wave.shard(folder) for wave in waves if not wave.shard(folder).is_file()]
    if missing:
        raise TangevalError(f"{missing[0]} and {len(missing) - 1} more are missing; run the study again")
    # Who reads sample after sample has had all shards looked at with the first.
    broken = [] if sample else damaged(folder / "generations")
    if broken:
        raise TangevalError(
            f"{broken[0]} and {len(broken) - 1} more are not as they were written; run the study again, which makes "
            "them anew"
        )
    only = None if sample is None else [("sample", "==", sample)]
    frame = pd.concat([read_parquet(wave.shard(folder), filters=only) for wave in waves], ignore_index=True)
    names = [checkpoint["name"] for checkpoint in manifest["checkpoints"]]
    grid = {(c.temperature, c.top_k, c.top_p, c.max_length) for c in study.decoding.cells()}
    knobs = zip(*(frame[name] for name in KNOBS[:4]), strict=True)
    wanted = pd.Series([knob in grid for knob in knobs], index=frame.index)
    wanted &= frame["checkpoint"].isin(names) & frame["split"].isin(study.splits)
    for split in study.ordered_splits():
        wanted &= (frame["split"] != split) | (frame["sample"] < study.samples_of(split))
    frame = frame[wanted]
    order = frame.assign(
        checkpoint=pd.Categorical(frame["checkpoint"], names),
        split=pd.Categorical(frame["split"], study.ordered_splits()),
        example_id=frame["example_id"].str.rpartition("-")[2].astype(int),
    )
    places = order.sort_values(["checkpoint", "split", "example_id", *KNOBS[:4], "sample"]).index
    return frame.loc[places].reset_index(drop=True)


def score_texts(frame: pd.DataFrame, dataset: Dataset) -> pd.DataFrame:
    """Return ``KEYS``, ``n_tokens`` and the metrics for rows with ``example_id`` and ``text``.

    The same text for the same poem is scored once. What is measured of all samples of a poem and
    cell stands in each of their rows.
    """
    what = ["example_id", "text", "finish_reason"]
    distinct = frame[what].drop_duplicates().reset_index(drop=True)
    training = index((e.id, e.couplet + e.reference) for e in dataset.split("train"))
    records: list[dict[str, float | None]] = []
    for example_id, text, finish_reason in distinct.itertuples(index=False):
        example = dataset.by_id[example_id]
        reason = None if pd.isna(finish_reason) else finish_reason
        records.append(
            {
                **dict(zip(COLUMNS, pair_statistics(text, example.reference), strict=True)),
                **check(example.couplet, text, reason),
                "length_match": float(length_match(text, example.reference)),
                **prosody(example.couplet, text),
                **copying(training, text, own=example_id),
            }
        )
    # Looked up by number: a join on long texts would copy them.
    codes = frame.merge(distinct.reset_index(names="code"), on=what, how="left")["code"].to_numpy()
    left = frame[[*KEYS, "n_tokens"]].reset_index(drop=True).astype(_TYPES)
    each = pd.DataFrame(records).astype(float).iloc[codes].reset_index(drop=True)
    return pd.concat([left, each, _diversity(frame, codes, distinct["text"])], axis=1)


def _diversity(frame: pd.DataFrame, codes: NDArray[np.int64], texts: pd.Series) -> pd.DataFrame:
    """``diversity`` of each row's poem and cell; ``codes`` say which of ``texts`` each row has.

    The floor's draws are measured in sets as large as the runs', for a larger set is less diverse.
    """
    floor = frame["checkpoint"].eq(FLOOR)
    runs = frame[~floor & frame["checkpoint"].ne(REFERENCE)]
    samples = frame["split"].map(runs.groupby("split")["sample"].max() + 1).fillna(FLOOR_DRAWS)
    some = (frame["sample"] // samples).where(floor, 0)
    keys = ["checkpoint", *KNOBS, "example_id", "some"]
    group = frame.assign(some=some).groupby(keys, dropna=False, sort=False).ngroup().to_numpy()
    order = np.lexsort((codes, group))  # the samples in an order of their own: equal sets are measured once
    begins = np.flatnonzero(np.diff(group[order], prepend=-1))
    measured: dict[bytes, int] = {}
    records: list[dict[str, float]] = []
    which = np.empty(len(begins), np.int64)
    for number, chosen in enumerate(np.split(codes[order], begins[1:])):
        key = chosen.tobytes()
        if key not in measured:
            measured[key] = len(records)
            records.append(diversity([texts[code] for code in chosen]))
        which[number] = measured[key]
    return pd.DataFrame(records).iloc[which[group]].reset_index(drop=True)


def floor_rows(dataset: Dataset, splits: Sequence[str], seed: int, draws: int = FLOOR_DRAWS) -> pd.DataFrame:
    """Return, for each poem, the rest of random training poems of its metre and length.

    ``draws`` with replacement, seeded by poem. Where no training poem has as
    many clauses (one of HW5's 15 has ten), those with the nearest number that enough have are
    drawn from.

    Raises:
        TangevalError: no training poem has the metre of a poem.
    """
    pool: dict[int, dict[int, list[str]]] = {}
    for example in dataset.split("train"):
        by_count = pool.setdefault(metre(example.couplet), {})
        by_count.setdefault(len(clauses(example.reference)), []).append(as_verse(example.reference))
    rows = []
    for example in _of(dataset, splits):
        by_count = pool.get(metre(example.couplet), {})
        if not by_count:
            raise TangevalError(
                f"{dataset.folder}: no training poem has {metre(example.couplet)} characters a clause, as "
                f"{example.id} has, so there is no floor to draw"
            )
        count = len(clauses(example.reference))
        common = {n: texts for n, texts in by_count.items() if len(texts) >= draws} or by_count
        texts = by_count.get(count) or common[min(common, key=lambda n: (abs(n - count), n))]
        luck = random.Random(f"floor {seed} {example.id}")
        rows += [_row(FLOOR, example, draw, luck.choice(texts)) for draw in range(draws)]
    return _frame(rows)


def reference_rows(dataset: Dataset, splits: Sequence[str]) -> pd.DataFrame:
    """Return the answers themselves, punctuated as verse."""
    return _frame([_row(REFERENCE, e, 0, as_verse(e.reference)) for e in _of(dataset, splits)])


def _of(dataset: Dataset, splits: Sequence[str]) -> Iterable[Example]:
    return (example for split in splits for example in dataset.examples if example.split == split)


def _row(name: str, example: Example, sample: int, text: str) -> dict[str, object]:
    return {
        "checkpoint": name, "split": example.split, "example_id": example.id, "sample": sample, "text": text
    }  # fmt: skip


def _frame(rows: list[dict[str, object]]) -> pd.DataFrame:
    """Rows without knobs, tokens or a finish: nothing here was decoded."""
    columns = [*KEYS, "text", "n_tokens", "finish_reason"]
    frame = pd.DataFrame(rows).reindex(columns=columns)
    numbers = dict.fromkeys(("temperature", "top_p", "n_tokens"), "float64")
    return frame.astype({**_TYPES, **numbers})


def outputs_frame(name: str, examples: Sequence[Example], texts: Sequence[str]) -> pd.DataFrame:
    """Return rows as ``score_texts`` takes them for texts made elsewhere, named ``name``."""
    return _frame([_row(name, e, 0, text) for e, text in zip(examples, texts, strict=True)])
