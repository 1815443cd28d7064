"""A couplet of one's own, written to an end."""

import shutil

import pytest
import torch
from transformers import AutoModelForCausalLM

from tangeval.analysis.select import select
from tangeval.core.errors import TangevalError
from tangeval.core.types import ASSETS
from tangeval.doors.write import couplet_of, write
from tangeval.results.folder import RunFolder
from tangeval.tasks.tang import data as dataset
from tangeval.tasks.tang.text import clauses
from tests.support.command import refusal, succeeds
from tests.support.study import write_study

COUPLET = "床前明月光，疑是地上霜。"


@pytest.fixture(scope="module")
def endings():
    return write(COUPLET, samples=2)


def test_the_shipped_model_keeps_to_form_and_rhyme_and_says_so(endings):
    assert [(each.checkpoint, each.sample) for each in endings] == [("base", 0), ("base", 1)]
    for each in endings:
        assert (each.checks["form"], each.checks["rhyme"]) == (1, 1)
        assert {len(clause) for clause in clauses(each.text)} == {5}
    assert endings[0].text != endings[1].text


def test_the_likelihood_is_transformers_own_loss(endings, mini_tokenizer):
    model = AutoModelForCausalLM.from_pretrained(ASSETS / "tang-mini", dtype=torch.float32)
    given, written = (
        mini_tokenizer.encode(text, add_special_tokens=False) for text in (COUPLET, endings[0].text)
    )
    ids = [mini_tokenizer.bos_token_id, *given, *written, mini_tokenizer.eos_token_id]
    labels = [-100] * (1 + len(given)) + ids[1 + len(given) :]
    loss = model(input_ids=torch.tensor([ids]), labels=torch.tensor([labels])).loss
    assert endings[0].nats == pytest.approx(float(loss), rel=1e-3)


def test_the_same_command_writes_the_same_and_another_couplet_has_other_noise(endings):
    assert write(COUPLET, samples=2) == endings
    assert write("空山不見人，但聞人語響。", samples=1)[0].text != endings[0].text


def test_a_clause_from_training_is_named(monkeypatch):
    known = clauses(dataset.load("sample").split("train")[0].reference)[0]
    monkeypatch.setattr(
        "tangeval.models.tokens.decode_completion", lambda *ids, cut: f"{known}，春眠不覺曉。"
    )
    assert write(COUPLET, samples=1)[0].copied == (known,)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("hello", "verse: h e l o;"),
        ("", "0 clauses"),
        ("床前明月光", "1 clause of"),
        ("床前明月光，疑是地上。", "5 and 4 characters"),
        ("床前明月光，疑是地x上霜。", "no part of verse: x;"),
        ("一二三，四五六，七八九", "3 clauses"),
    ],
)
def test_what_is_no_couplet_is_refused_with_one_that_is(text, said):
    with pytest.raises(TangevalError, match=said):
        couplet_of(text)


def test_marks_are_given_where_they_lack():
    assert couplet_of("床前明月光 疑是地上霜") == COUPLET


def test_characters_that_the_model_does_not_know_are_named():
    with pytest.raises(TangevalError, match=r"know 们; .*traditional"):
        write("们前明月光，疑是地上霜。")


def test_results_lend_checkpoint_and_setting(finished, tmp_path):
    folder = shutil.copytree(finished[1], tmp_path / "out")
    selection = select(finished[0].study, RunFolder(folder))
    name, setting = selection["checkpoint"]["checkpoint"], selection["setting"]
    known = dataset.load("sample").split("test")[0].input
    found = write(known, folder, samples=1)
    assert [each.checkpoint for each in found] == list(dict.fromkeys(["base", name]))
    assert {knob: getattr(found[0].setting, knob) for knob in ("temperature", "top_k", "top_p")} == {
        knob: setting[knob] for knob in ("temperature", "top_k", "top_p")
    }
    assert write(known, folder, "checkpoint-20", ["temperature=1"], 1)[1].setting.temperature == 1
    with pytest.raises(TangevalError, match="there are base, checkpoint-10, checkpoint-20"):
        write(known, folder, "nothing")


def test_a_setting_with_contrast_is_that_of_the_results(finished, tmp_path):
    folder = shutil.copytree(finished[1], tmp_path / "out")
    known = dataset.load("sample").split("test")[0].input
    threads = torch.get_num_threads()
    base, own = write(known, folder, "checkpoint-20", ["temperature=0", "contrast=0.5", "max_length=8"], 1)
    assert own.setting.contrast == 0.5
    # The base model contrasted with itself is itself.
    assert base.text == write(known, folder, "checkpoint-20", ["temperature=0", "max_length=8"], 1)[0].text
    assert torch.get_num_threads() == threads


def test_results_that_are_no_poems_are_refused(tmp_path):
    study = write_study(tmp_path, task="haiku", select=None)
    with pytest.raises(TangevalError, match=r"--results .*task haiku"):
        write(COUPLET, study.rename(tmp_path / "study.yaml").parent)


def test_the_command_shows_verse_with_its_checks(tmp_path):
    done = succeeds(tmp_path, "write", COUPLET, "--samples", 1)
    assert "✓ form ✓ rhyme" in done.out
    assert "nats a token" in done.out
    assert "there are no results" in refusal(tmp_path, "write", COUPLET, "--results", "nowhere")


def test_a_constraint_that_the_task_has_not_is_named_with_those_it_has():
    with pytest.raises(TangevalError, match="tang has no haiku; there are none, form"):
        write(COUPLET, knobs=["constrain=haiku"], samples=1)
