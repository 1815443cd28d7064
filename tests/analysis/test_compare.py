"""Comparisons of made-up scores whose truth is known, and what is refused."""

import shutil
from itertools import product

import numpy as np
import pandas as pd
import pytest

from tangeval.analysis import scoring as score
from tangeval.analysis.aggregate import Part, groups
from tangeval.analysis.compare import Item, compare, measure_all
from tangeval.core.errors import TangevalError
from tangeval.results.folder import NO_LIKELIHOOD
from tangeval.tasks.tang import TANG
from tangeval.tasks.tang import data as dataset
from tangeval.tasks.tang.text import as_verse, fold, han

SAMPLE = dataset.load("sample")


def items(texts: dict[str, list[str]], split: str = "validation") -> list[Item]:
    """One item for each named list of texts, a text a poem."""
    examples = SAMPLE.split(split)
    rows = [score.outputs_frame(name, examples, own) for name, own in texts.items()]
    scores = score.score_texts(pd.concat(rows, ignore_index=True), TANG, SAMPLE)
    return [Item(g.checkpoint, Part(g.measured, [0])) for g in groups(scores, NO_LIKELIHOOD, TANG.metrics)]


@pytest.fixture(scope="module")
def texts() -> dict[str, list[str]]:
    examples = SAMPLE.split("validation")
    right = [as_verse(e.reference) for e in examples]
    generator = np.random.default_rng(0)
    return {
        "right": right,
        # The first clause of most, and of a few more, another poem's for the rest.
        "near": [r if generator.random() < 0.6 else right[(i + 1) % len(right)] for i, r in enumerate(right)],
        "far": [right[(i + 7) % len(right)] for i in range(len(right))],
        "broken": [r[:-3] for r in right],
    }


def test_a_difference_that_is_there_is_found_and_none_where_there_is_none(texts):
    frame = compare(items({"a": texts["right"], "b": texts["broken"], "c": texts["right"]}), ["form"])
    by_pair = frame.set_index(["a", "b"])
    assert by_pair.loc[("a", "b"), "difference"] == 1
    assert by_pair.loc[("a", "b"), "p_adjusted"] < 0.01
    assert by_pair.loc[("a", "c"), "difference"] == 0
    assert by_pair.loc[("a", "c"), "low"] < 0 < by_pair.loc[("a", "c"), "high"]
    assert by_pair.loc[("a", "c"), "p"] == 1
    assert by_pair.loc[("b", "c"), "difference"] == -1


def test_two_samples_of_one_setting_are_not_called_different():
    """Near BLEU's floor few poems decide, and their parts of it are no guide: what was called real is not."""
    references = [fold(han(e.reference)) for e in SAMPLE.split("validation")]
    generator, real = np.random.default_rng(1), []
    for _ in range(30):
        draws = [as_verse("".join(generator.permutation(list(han(r))))) for r in references], []
        one, other = (
            [
                as_verse(references[n]) if generator.random() < 0.05 else draws[0][n]
                for n in generator.permutation(30)
            ]
            for _ in range(2)
        )
        frame = compare(items({"one": one, "other": other}), ["bleu"])
        real.append(frame["p"].iloc[0] <= 0.05)
    assert np.mean(real) <= 0.1


def test_all_rows_are_one_family(texts):
    frame = compare(items({n: texts[n] for n in ("right", "near", "broken")}), ["form", "rhyme", "chrf"])
    assert len(frame) == 9
    assert (frame["p_adjusted"] >= frame["p"]).all()
    assert (frame["p_adjusted"] <= np.minimum(1, 9 * frame["p"]) + 1e-9).all()
    alone = compare(items({n: texts[n] for n in ("right", "near")}), ["chrf"])
    assert alone["p_adjusted"].iloc[0] == alone["p"].iloc[0]


def test_p_and_interval_of_a_mean_never_disagree(texts):
    frame = compare(items(texts), ["chrf", "distinct_1"])
    means = frame[frame["metric"] == "chrf"]
    outside = (means["low"] > 0) | (means["high"] < 0)
    assert outside.eq(means["p"] <= 0.05).all()


def test_poems_needed_grow_as_the_effect_shrinks(texts):
    measured = items({n: texts[n] for n in ("near", "far")})
    needed = [
        compare(measured, ["chrf"], {"chrf": effect})["poems_needed"].iloc[0] for effect in (20.0, 10.0, 5.0)
    ]
    assert needed[0] < needed[1] < needed[2]
    assert needed[2] == pytest.approx(4 * needed[1], rel=0.1)


def test_two_files_equal_everywhere_need_no_poems(texts):
    frame = compare(items({"a": texts["right"], "b": texts["right"]}), ["form"], {"form": 0.1})
    assert frame["poems_needed"].isna().all()


def test_what_was_not_measured_has_no_row(texts):
    assert not len(compare(items({n: texts[n] for n in ("near", "far")}), ["reference_nll"]))


def test_other_poems_are_refused(texts):
    (one,) = items({"a": texts["right"]})
    (other,) = items({"b": [as_verse(e.reference) for e in SAMPLE.split("test")]}, "test")
    with pytest.raises(TangevalError, match="not of the same examples: 30 and 15, 0 of them in both"):
        compare([one, other], ["form"])
    with pytest.raises(TangevalError, match="two things"):
        compare([one], ["form"])
    with pytest.raises(TangevalError, match="from is no metric"):
        compare([one, one], ["from"])


@pytest.fixture
def folder(tmp_path):
    """A results folder of two checkpoints and four settings."""
    examples = SAMPLE.split("validation")[:6]
    rows = [
        {
            "checkpoint": name, "step": step, "temperature": t, "top_k": k, "top_p": 1.0, "max_length": 96,
            "no_repeat_ngram_size": 3, "split": "validation", "example_id": e.id, "sample": s,
            "text": as_verse(e.reference)[: 12 if t > 0.5 else None], "n_tokens": 9.0, "finish_reason": "stop",
        }
        for (name, step), t, k, e, s in product(
            [("base", pd.NA), ("checkpoint-2", 2)], [0.1, 1.0], [0, 5], examples, range(2)
        )
    ]  # fmt: skip
    score.score_texts(pd.DataFrame(rows), TANG, SAMPLE).to_parquet(tmp_path / "scores.parquet")
    (tmp_path / "study.yaml").write_text("name: made-up\nseed: 3\n")
    return tmp_path


def measured(text: str, split: str = "validation") -> Item:
    return measure_all([text], split)[0]


def test_the_same_scores_of_studies_with_other_seeds_do_not_differ(folder, tmp_path):
    other = shutil.copytree(folder, tmp_path / "other")
    (other / "study.yaml").write_text("name: made-up\nseed: 4\n")
    frame = compare(
        measure_all([f"{folder}:base:temperature=1", f"{other}:base:temperature=1"], "validation"),
        ["bleu", "chrf"],
    )
    assert frame[["difference", "low", "high"]].eq(0).all(axis=None)
    assert frame["p"].eq(1).all()
    assert not frame["shared_noise"].any()


@pytest.mark.parametrize("size", [1e-200, 0.0, -1.0, float("nan")])
def test_an_effect_too_small_to_be_shown_is_refused(texts, size):
    with pytest.raises(TangevalError, match=r"--effect form=.*give 1e-06 or more"):
        compare(items({n: texts[n] for n in ("near", "far")}), ["form"], {"form": size})


def test_an_item_names_a_checkpoint_and_narrows_its_settings(folder):
    whole = measured(f"{folder}:base", "validation")
    assert (len(whole.part.places), whole.seed) == (4, 3)
    low = measured(f"{folder}:checkpoint-2:temperature=0.1", "validation")
    assert len(low.part.places) == 2
    assert low.part.value("form") == 1
    one = measured(f"{folder}:checkpoint-2:temperature=1,top_k=5", "validation")
    assert len(one.part.places) == 1
    frame = compare([low, one], ["form", "chrf"])
    assert frame["shared_noise"].all()
    assert (frame["difference"] > 0).all()


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ("", "nothing is chosen there"),
        (":checkpoint-3", "has no checkpoint checkpoint-3; it has base, checkpoint-2"),
        (":base:temperature=0.2", "no setting has temperature 0.2; there are 0.1, 1"),
        (":base:temprature=0.1", "temprature: there is no such knob"),
        (":base:top_k", "top_k: give name=number"),
    ],
)
def test_what_is_not_there_is_said_with_what_is(folder, item, message):
    with pytest.raises(TangevalError, match=message):
        measured(f"{folder}{item}", "validation")


def test_a_folder_without_results_and_a_split_that_is_not_there(folder, tmp_path):
    with pytest.raises(TangevalError, match="no results folder"):
        measured(str(tmp_path / "nowhere"))
    with pytest.raises(TangevalError, match="has no test split; it has validation"):
        measured(f"{folder}:base", "test")
