"""Results folders of schema 2, read in the words of schema 3.

In: what a file of such a folder says. Out: the same under today's names. Used by ``RunFolder`` alone;
nothing is written, so that a folder is translated each time that it is read.
"""

import io
from collections.abc import Sequence
from typing import Any

import pandas as pd

from tangeval.core.types import RANDOM

SCHEMA = 2
#: The random baseline.
FLOOR = "floor"
_NAMES = {"metre": "line_length", "luck": "noise", "luck_shared": "noise_shared", "waves": "batches"}
_KEYS = _NAMES | {"cell": "setting", "cells": "settings", "context": "cache_key", "p_holm": "p_adjusted"}
_VALUES = _NAMES | {FLOOR: RANDOM, "luck × setting": "noise × setting"}
_AXES = ("temperature", "top_k", "top_p", "max_length")
#: BLEU's counts that were made of the hypothesis's length, and by how many n-grams an order has fewer.
_LENGTH = "hypothesis_chars"
_FEWER = {f"hypothesis_{order}grams": order - 1 for order in (2, 3, 4)}


def study(content: dict[str, Any]) -> dict[str, Any]:
    """Return a study file's content."""
    content = {key: value for key, value in content.items() if key != "ray"}
    if content.get("select"):
        content["select"] = renamed(content["select"])
    if content.get("engine"):
        content["engine"] = content["engine"] | {"kind": "openai"}
    decoding = content.get("decoding") or {}
    if decoding.get("only"):
        points = [dict(zip(_AXES, point, strict=True)) for point in decoding["only"]]
        content["decoding"] = decoding | {"only": points}
    return content


def renamed(content: Any) -> Any:
    """Return JSON with its keys, and the metrics and baselines that it names, as they are called now."""
    if isinstance(content, dict):
        if "waves" in content:  # a plan
            content = content | {"schema": 3, "axes": _AXES}
        return {_KEYS.get(key, key): renamed(value) for key, value in content.items()}
    if isinstance(content, list):
        return [renamed(value) for value in content]
    return _VALUES.get(content, content) if isinstance(content, str) else content


def columns(names: Sequence[str]) -> list[str]:
    """Return the columns of scores that ``frame`` makes these of."""
    old = {new: name for name, new in _NAMES.items()} | dict.fromkeys(_FEWER, _LENGTH)
    return list(dict.fromkeys(old.get(name, name) for name in names))


def scores(columns: Sequence[str]) -> bool:
    """Return whether these are the columns of its scores."""
    return not set(_FEWER) <= set(columns)


def csv(data: bytes) -> bytes:
    """Return a CSV file, its numbers as they are written."""
    table = frame(pd.read_csv(io.BytesIO(data), dtype=str, keep_default_na=False))
    return table.to_csv(index=False, lineterminator="\n").encode()


def frame(table: pd.DataFrame) -> pd.DataFrame:
    """Return scores, likelihoods or a table of results."""
    names = {f"{old}{end}": f"{new}{end}" for old, new in _NAMES.items() for end in ("", "_low", "_high")}
    if {"nll_sum", "position"} & set(
        table.columns
    ):  # a likelihood's metre is what its example has in common with others
        table = table.rename(columns={"metre": "group"}).astype({"group": str})
    table = table.rename(columns=names)
    for column in {"checkpoint", "metric", "term"} & set(table.columns):
        if isinstance(table[column].dtype, pd.CategoricalDtype):
            table[column] = table[column].cat.rename_categories(lambda name: _VALUES.get(name, name))
        else:
            table[column] = table[column].replace(_VALUES)
    if _LENGTH in table:
        counts = {name: (table[_LENGTH] - fewer).clip(lower=0) for name, fewer in _FEWER.items()}
        table = table.assign(**counts)
    return table
