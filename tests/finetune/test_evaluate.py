"""``evaluate`` of a fine-tuning: a study at each save, in its log and its picture."""

import csv
from pathlib import Path

import numpy as np
import pytest
import yaml

from finetune.config import load_config
from finetune.log import draw_loss, points
from tangeval.core.errors import TangevalError
from tangeval.training.evaluation import Evaluations
from tests.finetune.test_finetune import finetune, log, one_cpu_thread, weights, write_config
from tests.support.training import STUDY

__all__ = ["one_cpu_thread"]


@pytest.fixture
def study(tmp_path) -> Path:
    file = tmp_path / "study.yaml"
    file.write_text(yaml.safe_dump(STUDY), "utf-8")
    return file


def test_a_study_is_run_at_each_save_and_nothing_else_changes(tiny_model, tmp_path, study):
    config = write_config(tiny_model, tmp_path)
    finetune(config, f"output_dir={tmp_path / 'plain'}", "epochs=1")
    out = tmp_path / "out"
    finetune(config, f"evaluate={study}", "epochs=1")
    assert weights(out / "checkpoint-6") == weights(tmp_path / "plain" / "checkpoint-6")
    assert (out / "run.json").read_text() == (tmp_path / "plain" / "run.json").read_text()
    found, plain = log(out), log(tmp_path / "plain")
    assert [step for step, row in found.items() if row["form"]] == [0, 5, 6]
    assert {step: {name: row[name] for name in plain[step]} for step, row in found.items()} == plain
    study_log = list(csv.DictReader((out / "study" / "training_log.csv").open(encoding="utf-8")))
    assert float(found[6]["reference_nll"]) == pytest.approx(float(study_log[-1]["reference_nll"]), rel=1e-5)
    assert (out / "loss.png").stat().st_size > (tmp_path / "plain" / "loss.png").stat().st_size
    made = yaml.safe_load((out / "study" / "study.yaml").read_text("utf-8"))
    assert (made["base_model"], made["checkpoints"]) == (str(tiny_model), [str(out)])
    assert made["select"]  # the record of what was trained on is there
    (out / "run.json").write_text((out / "run.json").read_text().replace('"finished": 6', '"finished": 5'))
    finetune(config, f"evaluate={study}", "epochs=1")  # goes on, and keeps what was measured
    assert log(out)[5]["form"]


def test_a_run_cut_off_in_its_last_evaluation_says_what_makes_it(
    tiny_model, tmp_path, study, monkeypatch, capsys
):
    evaluated = Evaluations.evaluate

    def cut(self, model, tokenizer, step):
        if step == 6:
            raise KeyboardInterrupt
        return evaluated(self, model, tokenizer, step)

    arguments = [write_config(tiny_model, tmp_path), f"evaluate={study}", "epochs=1"]
    with monkeypatch.context() as patch:
        patch.setattr(Evaluations, "evaluate", cut)
        with pytest.raises((KeyboardInterrupt, SystemExit)):
            finetune(*arguments)
    capsys.readouterr()
    finetune(*arguments)
    file = tmp_path / "out" / "study" / "study.yaml"
    assert f"`tangeval run {file}` evaluates" in " ".join(capsys.readouterr().out.split()).replace("/ ", "/")
    assert file.is_file()


@pytest.mark.parametrize("changes", [["include_validation=true"], ["validation=2"]])
def test_texts_that_are_trained_on_are_not_evaluated(tiny_model, tmp_path, study, changes, capsys):
    with pytest.raises(SystemExit):
        finetune(write_config(tiny_model, tmp_path), f"evaluate={study}", *changes)
    assert "some are trained on" in capsys.readouterr().err


def test_weights_that_are_shared_out_are_refused(tmp_path, tiny_model):
    with pytest.raises(TangevalError, match="fsdp: no process holds the weights whole"):
        load_config(write_config(tiny_model, tmp_path), ["fsdp=true", "evaluate=x.yaml"])


def test_what_is_drawn_is_what_was_measured_and_nought_is_a_number():
    rows = {0: {"form": 0.0, "form_low": "0.0"}, 5: {"loss": 3.0}, 10: {"form": "0.5"}}
    np.testing.assert_array_equal(points(rows, "form", "form_low"), [[0, 0, 0], [10, 0.5, np.nan]])


def test_a_picture_without_evaluations_is_of_the_loss_alone(tmp_path):
    rows = {step: {"loss": 3.0, "validation_loss": 2.0} for step in (5, 10)}
    draw_loss(rows, tmp_path / "loss.png")
    assert (tmp_path / "loss.png").stat().st_size > 0
