"""The numbers of an earlier version, made again: nothing that is rewritten may change one.

`tests/golden/README.md` says how they were made. What they hold is never edited; where a name changes,
it is `RENAMED` that says so.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from tests.golden import make

#: Old name → new: columns (with and without `_low`, `_high`), keys of JSON and of the study, and values that
#: are such a name as a whole.
RENAMED: dict[str, str] = {
    "metre": "line_length", "floor": "random", "cell": "setting", "cells": "settings", "luck": "noise",
    "luck × setting": "noise × setting", "shared_luck": "shared_noise", "p_holm": "p_adjusted",
}  # fmt: skip
#: Of the random baseline these are left out: the size of the sets that they were measured in was a mistake.
DIVERSITY = ("distinct_1", "distinct_2", "self_bleu", "unique")
#: Columns, and keys of the selection, whose numbers were wrong where results lie and are made otherwise now: a corpus
#: metric's interval, intervals and p-values of differences; and a rhyme, for which a character no longer counts with
#: itself.
MENDED = {
    *(f"{name}{end}" for name in ("rhyme", "rhyme_level") for end in ("", "_low", "_high")),
    "bleu_low", "bleu_high", "bleu_strict_low", "bleu_strict_high", "self_bleu_low", "self_bleu_high", "low", "high",
    "p", "p_adjusted", "difference_low", "difference_high", "distinguishable", "corrected",
}  # fmt: skip
RANDOM = "floor"  # its name in what is kept
TOLERANCE = 1e-6  # relative or absolute
#: Other instructions round otherwise, and a near tie then goes the other way.
pytestmark = pytest.mark.skipif(
    torch.backends.cpu.get_cpu_capability() != "AVX512", reason="the golden numbers were made with AVX-512"
)
ROOT, GOLDEN = Path(__file__).parents[1], Path(__file__).parent / "golden"


def renamed(content: Any) -> Any:
    """Give names, and the names within lists and mappings, as they are now."""
    if isinstance(content, dict):
        return {renamed(key): renamed(value) for key, value in content.items()}
    if isinstance(content, list):
        return [renamed(value) for value in content]
    if not isinstance(content, str):
        return content
    for end in ("_low", "_high"):
        if (stem := content.removesuffix(end)) in RENAMED and stem != content:
            return RENAMED[stem] + end
    return RENAMED.get(content, content)


def kept(name: str) -> pd.DataFrame:
    """A frame as it was, under the names of now."""
    frame = pd.read_parquet(make.EXPECTED / f"{name}.parquet")
    for column in frame.columns[frame.map(lambda value: isinstance(value, str)).any()]:
        frame[column] = frame[column].map(renamed)
    if name == "likelihood_curve":  # intervals reached below 0
        frame["nll_low"] = frame["nll_low"].clip(lower=0)
    if name.startswith("likelihood"):  # a poem's metre is what groups it with others
        frame = frame.rename(columns={"metre": "group"}).astype({"group": str})
    return frame.rename(columns=renamed)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, pd.DataFrame], dict[str, Any]]:
    """The frames and the selection of the golden study, run by the code of now."""
    place = tmp_path_factory.mktemp("golden")
    content = yaml.safe_load((GOLDEN / "study.yaml").read_text(encoding="utf-8"))
    (place / "study.yaml").write_text(yaml.safe_dump(renamed(content), sort_keys=False), encoding="utf-8")
    command = [sys.executable, "-m", "tangeval", "generate", str(place / "study.yaml")]
    done = subprocess.run(
        [*command, "--out", str(place / "run"), "--quiet"],
        env=os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return make.collected(place / "run")


def numbers(column: pd.Series) -> np.ndarray | None:
    """A column's numbers, those of lists one after another; None if it holds others than numbers."""
    values = column.tolist()
    if all(isinstance(value, list | np.ndarray) for value in values):
        return np.concatenate([[len(value), *value] for value in values]).astype(float)
    if not (pd.api.types.is_numeric_dtype(column) or column.isna().all()):
        return None
    return column.to_numpy(float, na_value=np.nan)


def differing(old: pd.Series, new: pd.Series) -> list[str]:
    """What differs, some of it in words."""
    before, after = numbers(old), numbers(new)
    if before is None or after is None:
        before, after = (column.astype(object).fillna("").to_numpy() for column in (old, new))
        apart = before != after
    elif before.shape != after.shape:
        return [f"{old.name}: {len(before)} numbers were there, now {len(after)}"]
    else:
        apart = ~np.isclose(after, before, rtol=TOLERANCE, atol=TOLERANCE, equal_nan=True)
    some = [f"{before[i]} → {after[i]} (row {i})" for i in np.flatnonzero(apart)[:3]]
    return [f"{old.name}: {apart.sum()} of {len(apart)} differ: {'; '.join(some)}"] if some else []


@pytest.mark.parametrize("name", make.KEYS)
def test_a_frame_is_as_it_was(made, name):
    """Texts, scores, means, intervals, p-values and shares; new columns and metrics may have come."""
    old, new = kept(name), made[0][name].copy()
    if "metric" in old:
        old = old[~old["metric"].isin(MENDED)]
        new = new[new["metric"].isin(old["metric"])]
    assert set(old) <= set(new), f"columns are gone: {set(old) - set(new)}"
    assert len(old) == len(new)
    for frame in (old, new):
        left_out = [c for c in old if c.removesuffix("_low").removesuffix("_high") in DIVERSITY]
        if left_out and "checkpoint" in frame:
            frame.loc[frame["checkpoint"] == renamed(RANDOM), left_out] = np.nan
    keys = make.KEYS[name]
    assert not old.duplicated(keys).any()
    old, new = (frame.sort_values(keys, ignore_index=True) for frame in (old, new))
    problems = [line for c in old if c not in MENDED for line in differing(old[c], new[c])]
    assert not problems, "\n".join(problems)


def unlike(old: Any, new: Any, at: str) -> list[str]:
    """Where two pieces of JSON differ; new keys may have come."""
    if isinstance(old, dict):
        if not isinstance(new, dict) or set(old) - set(new):
            return [f"{at}: {sorted(old)} → {sorted(new) if isinstance(new, dict) else new}"]
        own = [key for key in old if key not in MENDED]
        return [line for key in own for line in unlike(old[key], new[key], f"{at}.{key}")]
    if isinstance(old, list):
        if not isinstance(new, list) or len(old) != len(new):
            return [f"{at}: {old} → {new}"]
        return [
            line for i, pair in enumerate(zip(old, new, strict=True)) for line in unlike(*pair, f"{at}.{i}")
        ]
    if isinstance(old, float) and isinstance(new, int | float):
        same = np.isclose(new, old, rtol=TOLERANCE, atol=TOLERANCE, equal_nan=True)
    else:
        same = old == new
    return [] if same else [f"{at}: {old} → {new}"]


def test_the_choice_is_as_it_was(made):
    """The checkpoint and the setting chosen, all that was not, and every number beside them."""
    old = renamed(json.loads((make.EXPECTED / "selection.json").read_text(encoding="utf-8")))
    problems = unlike(old, made[1], "selection")
    assert not problems, "\n".join(problems)
