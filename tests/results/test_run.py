"""Score, summarise and select on a tiny model."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from transformers import GenerationConfig

from tangeval.analysis import aggregate, select
from tangeval.analysis import scoring as score
from tangeval.analysis.aggregate import Part
from tangeval.core.errors import TangevalError
from tangeval.resolve import ResolvedStudy
from tangeval.results.folder import RunFolder
from tangeval.tasks.tang import TANG
from tangeval.tasks.tang.text import han


def generations(resolved: ResolvedStudy, folder: Path) -> pd.DataFrame:
    return score.read_generations(resolved.study, folder)


def test_summary_has_a_row_for_each_checkpoint_setting_and_split(finished):
    _, folder = finished
    frame = pd.read_csv(folder / "summary.csv")
    assert len(frame) == 3 * 24 * 2 + 2 * 2
    inside = frame[frame.checkpoint == "random"].iloc[0]
    assert inside.form_low <= inside.form <= inside.form_high
    assert frame[frame.checkpoint == "reference"]["bleu"].round(6).eq(100).all()
    assert frame[frame.checkpoint == "random"][["temperature", "top_k"]].isna().all(axis=None)


def test_summary_bleu_is_sacrebleus_mean_over_samples(finished):
    from sacrebleu.metrics import BLEU

    from tangeval.tasks.tang.text import fold

    resolved, folder = finished
    frame = generations(resolved, folder).query("checkpoint == 'checkpoint-10' and split == 'test'")
    setting = frame.query("temperature == 1.0 and top_k == 5 and top_p == 0.6 and max_length == 18")
    scores = []
    for _, part in setting.groupby("sample"):
        references = [fold(han(resolved.dataset.by_id[e].reference)) for e in part["example_id"]]
        scores.append(
            BLEU(tokenize="char").corpus_score([fold(han(t)) for t in part["text"]], [references]).score
        )
    assert len(scores) == 2
    summary = pd.read_csv(folder / "summary.csv").query(
        "checkpoint == 'checkpoint-10' and split == 'test' and temperature == 1.0 and top_k == 5"
        " and top_p == 0.6 and max_length == 18"
    )
    assert summary["bleu"].item() == pytest.approx(np.mean(scores))


def test_a_corrected_value_lies_in_its_interval(finished, tmp_path, monkeypatch):
    """BLEU near its random baseline: the winner's own interval is all above what the settings are worth."""
    resolved, folder = finished
    out = shutil.copytree(folder, tmp_path / "out")
    monkeypatch.setattr(Part, "interval", lambda part, metric, level=0.95: (98.0, 99.0))
    corrected = select.select(resolved.study, RunFolder(out))["corrected"]
    assert corrected["low"] == corrected["value"] < 98
    assert corrected["high"] == 99


def test_selection_is_the_best_by_the_rule(finished, tmp_path):
    resolved, folder = finished
    out = shutil.copytree(folder, tmp_path / "out")
    selection = select.select(resolved.study, RunFolder(out))
    summary = pd.read_csv(out / "summary.csv")
    validation = summary[(summary.split == "validation") & summary.temperature.notna()]
    best = validation.groupby("checkpoint")["reference_nll"].mean().idxmin()
    assert selection["checkpoint"]["checkpoint"] == best
    own = validation[validation.checkpoint == best]
    assert selection["validation"]["bleu"]["value"] == pytest.approx(own["bleu"].max())
    runners = selection["runners_up"]["settings"]
    assert [r["bleu"] for r in runners] == sorted((r["bleu"] for r in runners), reverse=True)
    assert 0 < selection["corrected"]["value"] < selection["validation"]["bleu"]["value"]  # noise had helped
    chosen = select.chosen_outputs(generations(resolved, out), selection)
    examples = [resolved.dataset.by_id[name] for name in chosen["example_id"]]
    lines = resolved.task.outputs_file(examples, chosen["text"].tolist()).splitlines()
    assert [line.split(". ", 1)[0] for line in lines] == [str(n) for n in range(1, 16)]
    assert lines[0].startswith("1. " + resolved.examples("test")[0].input)


def test_settings_of_the_same_texts_cannot_be_told_apart(finished):
    """At temperature 0 every top-k is the same text."""
    resolved, folder = finished
    group = next(
        aggregate.groups(
            RunFolder(folder).scores(),
            RunFolder(folder).likelihood(),
            resolved.task.metrics,
        )
    )
    knobs = group.measured.knobs
    twins = knobs.index[(knobs["temperature"] == 0) & (knobs["max_length"] == 18)]
    best, *others = [select.Candidate({}, aggregate.Part(group.measured, [place])) for place in twins]
    assert len(others) == 3
    for row in select.compared(best, others, "bleu"):
        assert (row["difference"], row["p"], row["distinguishable"]) == (0, 1, False)


def test_transformers_loads_the_chosen_settings_generation_config(finished, tmp_path):
    resolved, folder = finished
    out = shutil.copytree(folder, tmp_path / "out")
    setting = select.select(resolved.study, RunFolder(out))["setting"]
    config = GenerationConfig.from_pretrained(out / "best")
    assert config.max_new_tokens == setting["max_length"]
    assert config.no_repeat_ngram_size == 3
    if setting["temperature"]:
        assert (config.do_sample, config.top_k, config.top_p) == (True, setting["top_k"], setting["top_p"])
    else:
        assert config.do_sample is False


def test_where_no_setting_meets_what_is_required_the_nearest_are_shown(finished, tmp_path):
    resolved, folder = finished
    out = shutil.copytree(folder, tmp_path / "out")
    select.select(resolved.study, RunFolder(out))
    assert (out / "best" / "generation_config.json").exists()
    study = resolved.study.model_copy(
        update={"select": resolved.study.select.model_copy(
            update={"setting": resolved.study.select.setting.model_copy(update={"require": {"form": ">= 1.0"}})}
        )}
    )  # fmt: skip
    selection = select.select(study, RunFolder(out))
    assert selection["setting"] is None
    assert len(selection["nearest"]) == 3
    assert not (out / "best" / "generation_config.json").exists()


def test_selection_refuses_checkpoints_that_saw_the_split_or_keep_no_record(finished):
    resolved, _ = finished
    rule = resolved.study.select
    saw, unseen = {"validation": 3, "test": 0}, {"validation": 0, "test": 0}
    select.check_selection(rule, TANG.metrics, {"base": unseen, "a": saw, "b": unseen}, assume_unseen=False)
    with pytest.raises(TangevalError, match="every checkpoint was trained on validation examples"):
        select.check_selection(rule, TANG.metrics, {"base": unseen, "a": saw}, assume_unseen=False)
    with pytest.raises(TangevalError, match="--assume-unseen"):
        select.check_selection(rule, TANG.metrics, {"base": unseen, "a": None}, assume_unseen=False)
    select.check_selection(rule, TANG.metrics, {"base": unseen, "a": None}, assume_unseen=True)


@pytest.mark.parametrize(
    ("key", "value"),
    [("checkpoint", "blue"), ("setting", {"by": "reference_nll"}), ("setting", {"require": {"x": "> 1"}})],
)
def test_a_rule_by_what_is_no_metric_is_refused(finished, key, value):
    resolved, _ = finished
    rule = type(resolved.study.select).model_validate({key: value})
    with pytest.raises(TangevalError, match=r"select\."):
        select.check_selection(rule, TANG.metrics, {}, assume_unseen=True)


def test_results_are_not_scored_against_other_data(finished):
    resolved, folder = finished
    with pytest.raises(TangevalError, match="other data"):
        score.score(resolved.study, replace(resolved.dataset, digest="other"), folder)
