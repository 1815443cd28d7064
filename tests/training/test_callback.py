"""A study while a tiny model trains: equal to one on what was saved, felt by nothing that learns."""

import errno
import json
import warnings
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from peft import get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from transformers.trainer_utils import set_seed

from tangeval import generation
from tangeval.analysis import scoring
from tangeval.core.errors import TangevalError
from tangeval.core.study import load_study
from tangeval.engines import device, live, local
from tangeval.results.folder import RunFolder
from tangeval.training import Stopping, StudyCallback
from tangeval.training.evaluation import Evaluations, _load_of
from tests.support.study import evaluate
from tests.support.training import make_model, make_trainer, small_study


class Lines(TrainerCallback):
    """What a Trainer tells all that it reports to."""

    def __init__(self):
        self.seen = []

    def on_log(self, args, state, control, logs=None, **more):
        self.seen.append((state.global_step, dict(logs)))


def trained(base, out, study=None, *, model=None, seen=None, callback=None, resume=None, **changes):
    """Train, evaluated where there is a ``study`` or ``callback``; return the Trainer."""
    set_seed(5)
    trainer = make_trainer(base, out, model=model, **changes)
    for each in [seen, callback or (study and StudyCallback(study))]:
        if each:
            trainer.add_callback(each)
    if isinstance(callback, StudyCallback):
        callback.trainer = trainer
    trainer.train(resume_from_checkpoint=resume)
    return trainer


@pytest.fixture(scope="module")
def run(tiny_model, tmp_path_factory):
    """A training that was evaluated before its first step and at both saves; not to be changed."""
    out = tmp_path_factory.mktemp("training") / "out"
    seen = Lines()
    trainer = trained(tiny_model, out, seen=seen, callback=StudyCallback(small_study()))
    return out, trainer, seen


def rows(folder: Path) -> pd.DataFrame:
    return scoring.read_generations(RunFolder(folder).study, folder)


def likelihoods(folder: Path) -> pd.DataFrame:
    return RunFolder(folder).likelihood().drop(columns="key")


@pytest.mark.parametrize(
    ("full", "merge", "mixed"),
    [(False, False, False), (False, True, False), (True, False, False), (False, False, True)],
)
def test_texts_and_likelihoods_are_those_of_a_run_on_what_was_saved(tiny_model, tmp_path, full, merge, mixed):
    """Also where training itself computes in another precision than the weights'."""
    out, again = tmp_path / "out", tmp_path / "again"
    model = make_model(tiny_model, full=full)
    trained(tiny_model, out, small_study(load={"merge": merge}), model=model, bf16=mixed)
    evaluate(out / "study" / "study.yaml", again)
    pd.testing.assert_frame_equal(rows(out / "study"), rows(again), check_exact=True)
    pd.testing.assert_frame_equal(likelihoods(out / "study"), likelihoods(again), check_exact=True)
    assert rows(again)["checkpoint"].unique().tolist() == ["base", "checkpoint-2", "checkpoint-4"]
    texts = rows(again).groupby("checkpoint")["text"].agg(tuple)
    assert len(set(texts)) == 3  # each step writes otherwise


def test_a_run_on_what_was_saved_computes_in_the_dtype_of_the_training(tiny_model, tmp_path):
    out, again = tmp_path / "out", tmp_path / "again"
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.bfloat16)
    trained(tiny_model, out, small_study(), model=model)
    evaluate(out / "study" / "study.yaml", again)
    pd.testing.assert_frame_equal(rows(out / "study"), rows(again), check_exact=True)
    assert _load_of(SimpleNamespace(is_loaded_in_4bit=True), merge=False).quantization == "nf4"


@pytest.mark.parametrize("merge", [False, True])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_training_ends_in_the_same_bits(tiny_model, tmp_path, merge, checkpointing):
    ends = []
    for study in (None, small_study(load={"merge": merge})):
        trainer = trained(
            tiny_model, tmp_path / str(study is None), study, gradient_checkpointing=checkpointing
        )
        state = trainer.optimizer.state_dict()["state"]
        tensors = [*trainer.model.state_dict().values(), *(t for s in state.values() for t in s.values())]
        ends.append((tensors, torch.get_rng_state(), trainer.model.training, trainer.model.config.use_cache))
        losses = [line["loss"] for line in trainer.state.log_history if "loss" in line]
        ends[-1] += (losses,)
    assert all(torch.equal(a, b) for a, b in zip(ends[0][0], ends[1][0], strict=True))
    assert torch.equal(ends[0][1], ends[1][1])
    assert ends[0][2:] == ends[1][2:]


def test_a_model_is_given_back_as_it_was(tiny_model):
    """Also one whose buffers change with what it reads: inference tensors among them would end the training."""
    model = make_model(tiny_model)
    rope = model.get_base_model().model.rotary_emb
    before = dict(rope.named_buffers())
    hooks, modes = model._forward_hooks, [module.training for module in model.modules()]
    with live.lent(model, merge=True) as whole, torch.inference_mode():
        assert not any(module.training for module in whole.modules())
        rope.register_buffer("inv_freq", before["inv_freq"] * 2)
        torch.rand(1)
    assert all(rope._buffers[name] is tensor for name, tensor in before.items())
    assert model._forward_hooks is hooks
    assert [module.training for module in model.modules()] == modes
    assert not any(layer.merged for layer in model.modules() if hasattr(layer, "merged_adapters"))
    model(
        input_ids=torch.ones(1, 4, dtype=torch.long), labels=torch.ones(1, 4, dtype=torch.long)
    ).loss.backward()


def test_the_log_and_the_folder_have_every_evaluation(run):
    out, _, seen = run
    log = pd.read_csv(out / "study" / "training_log.csv")
    assert log["step"].tolist() == [0, 2, 4]
    assert {"form", "form_low", "form_high", "rhyme", "bleu", "reference_nll", "seconds"} <= {*log}
    told = {step: logs for step, logs in seen.seen if "eval_form" in logs}
    assert [*told] == [0, 2, 4]
    assert told[4]["eval_reference_nll"] == pytest.approx(log["reference_nll"].iloc[-1])
    assert [step for step, logs in seen.seen if "loss" in logs] == [1, 2, 3, 4]
    checkpoints = pd.read_csv(out / "study" / "checkpoints.csv").set_index("checkpoint")
    for step, name in enumerate(["base", "checkpoint-2", "checkpoint-4"]):
        assert checkpoints.loc[name, "form_high"] == pytest.approx(log["form_high"].iloc[step])
    assert (out / "study" / "report.html").is_file()


def test_without_a_trainer_numbers_are_in_its_history(tiny_model, tmp_path):
    trainer = trained(tiny_model, tmp_path / "out", small_study(include_base=False, checkpoints="out"))
    assert [line["step"] for line in trainer.state.log_history if "eval_form" in line] == [2, 4]


def test_every_so_many_steps_and_minutes(tiny_model, tmp_path):
    for name, how in (("steps", {"steps": 3}), ("minutes", {"minutes": 1e-9})):
        callback = StudyCallback(small_study(include_base=False, checkpoints="out"), **how)
        trained(tiny_model, tmp_path / name, callback=callback, save_strategy="no")
        assert sorted(callback.rows) == ([3] if name == "steps" else [1, 2, 3, 4])


def test_a_training_that_goes_on_takes_up_what_was_evaluated(tiny_model, tmp_path):
    out, study = tmp_path / "out", small_study()
    trained(tiny_model, out, study, max_steps=2)
    first = (out / "study" / "generations").iterdir()
    kept = {file.name: file.read_bytes() for file in first}
    trained(tiny_model, out, study, resume=str(out / "checkpoint-2"))
    assert (
        kept.items()
        <= {file.name: file.read_bytes() for file in (out / "study" / "generations").iterdir()}.items()
    )
    assert pd.read_csv(out / "study" / "training_log.csv")["step"].tolist() == [0, 2, 4]
    assert rows(out / "study")["checkpoint"].unique().tolist() == ["base", "checkpoint-2", "checkpoint-4"]


@pytest.mark.parametrize(("within", "how"), [(True, {}), (False, {}), (True, {"steps": 1})])
def test_the_log_of_a_training_that_goes_on_has_every_evaluation_once(tiny_model, tmp_path, within, how):
    """Of a save too, which comes before its evaluation; trackers are told of each by one process."""
    out, told, logs = tmp_path / "out", [], []
    for resume in (None, str(out / "checkpoint-2")):
        callback, seen = StudyCallback(small_study(), **how), Lines()
        which = {"callback": callback, "seen": seen} if within else {"seen": callback}
        trainer = trained(tiny_model, out, resume=resume, **which)
        logs.append([line for line in trainer.state.log_history if "eval_form" in line])
        told.append([step for step, line in seen.seen if "eval_form" in line])
    assert [*map(pytest.approx, logs[0])] == logs[1]
    assert told[1] == [step for step in told[0] if step > 2]


@pytest.mark.parametrize("part", ["decode_in_memory", "reference_nll"])
def test_a_training_that_was_cut_off_in_an_evaluation_makes_it_before_it_goes_on(
    tiny_model, tmp_path, monkeypatch, part
):
    calls, whole = [], getattr(device, part)

    def cut(*arguments, **named):
        calls.append(part)
        if calls[1:]:  # the base's part was the first
            raise KeyboardInterrupt
        return whole(*arguments, **named)

    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(device, part, cut)
        with pytest.raises(KeyboardInterrupt):
            trained(tiny_model, out, small_study())
    trainer = trained(tiny_model, out, small_study(), resume=str(out / "checkpoint-2"))
    assert not [line for line in trainer.state.log_history if "study_problem" in line]
    assert pd.read_csv(out / "study" / "training_log.csv")["step"].tolist() == [0, 2, 4]
    trained(tiny_model, tmp_path / "whole", small_study())
    pd.testing.assert_frame_equal(rows(out / "study"), rows(tmp_path / "whole" / "study"), check_exact=True)
    after = (out / "checkpoint-4" / "adapter_model.safetensors").read_bytes()
    assert after == (tmp_path / "whole" / "checkpoint-4" / "adapter_model.safetensors").read_bytes()


def test_a_training_that_goes_on_where_it_was_moved_to_names_that_folder(tiny_model, tmp_path):
    trained(tiny_model, tmp_path / "was", small_study(), max_steps=2)
    out = (tmp_path / "was").rename(tmp_path / "out")
    trained(tiny_model, out, small_study(), resume=str(out / "checkpoint-2"))
    paths = [each["path"] for each in RunFolder(out / "study").manifest["checkpoints"]]
    assert paths == [None, str(out / "checkpoint-2"), str(out / "checkpoint-4")]


def test_one_callback_evaluates_one_training_after_another(tiny_model, tmp_path):
    callback = StudyCallback(small_study())
    for name in ("first", "second"):
        trained(tiny_model, tmp_path / name, callback=callback, max_steps=2)
        assert pd.read_csv(tmp_path / name / "study" / "training_log.csv")["step"].tolist() == [0, 2]


@pytest.mark.parametrize("merge", [False, True])
def test_the_base_is_without_an_adapter_that_was_trained_earlier(tiny_model, tmp_path, merge):
    model = make_model(tiny_model)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter)
    out, again = tmp_path / "out", tmp_path / "again"
    trained(tiny_model, out, small_study(load={"merge": merge}), model=model)
    evaluate(out / "study" / "study.yaml", again)
    pd.testing.assert_frame_equal(rows(out / "study"), rows(again), check_exact=True)


def test_another_training_into_the_same_folder_moves_aside_what_was_there(tiny_model, tmp_path):
    out = tmp_path / "out"
    trained(tiny_model, out, small_study(), max_steps=2)
    with pytest.warns(UserWarning, match="moved aside to"):
        trained(tiny_model, out, small_study(), max_steps=2, learning_rate=0.5)
    assert rows(out / "study")["checkpoint"].unique().tolist() == ["base", "checkpoint-2"]
    assert list((out / "study" / "quarantine").rglob("*.parquet"))


def test_a_batch_takes_the_memory_of_the_weights_own_dtype(tiny_model, monkeypatch):
    monkeypatch.setattr(local, "CPU_BUDGET", 2**22)
    evaluations, model = Evaluations(small_study()), make_model(tiny_model)
    resolved = evaluations._resolved(model, (evaluations._checkpoint(model, None),))
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    engines = [live.LiveEngine(resolved, own, tokenizer) for own in (model, make_model(tiny_model).double())]
    single, double = (engine.sequences_per_batch() for engine in engines)
    assert 2 * double <= single < local.SMALLEST


# What fails


def test_a_full_disk_is_said_once_and_training_ends_as_without(tiny_model, tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(generation, "decode", full)
    with pytest.warns(
        UserWarning, match=r"the evaluation at step 0 is not whole, and training goes on: .*No space left"
    ) as said:
        trainer = trained(tiny_model, tmp_path / "out", small_study())
    assert trainer.state.global_step == 4
    assert sum("not whole" in str(each.message) for each in said) == 1
    assert [line["step"] for line in trainer.state.log_history if "study_problem" in line] == [0, 2, 4]


def test_what_is_odd_in_a_study_is_said_once(tiny_model, tmp_path):
    decoding = {"max_length": 8, "no_repeat_ngram_size": 3}
    with pytest.warns(UserWarning, match="forbids how") as said:
        trained(tiny_model, tmp_path / "out", small_study(decoding=decoding))
    assert sum("forbids" in str(each.message) for each in said) == 1


def test_what_was_measured_is_shown_where_the_last_evaluation_failed(tiny_model, tmp_path, monkeypatch):
    calls, whole = [], device.decode_in_memory

    def full(*arguments, **named):
        calls.append(arguments)
        if calls[2:]:
            raise torch.OutOfMemoryError
        return whole(*arguments, **named)

    monkeypatch.setattr(device, "decode_in_memory", full)
    with pytest.warns(UserWarning, match="at step 4 is not whole"):
        trained(tiny_model, tmp_path / "out", small_study())
    assert rows(tmp_path / "out" / "study")["checkpoint"].unique().tolist() == ["base", "checkpoint-2"]
    assert (tmp_path / "out" / "study" / "report.html").is_file()


def test_weights_that_are_no_numbers_are_no_evaluation(tiny_model, tmp_path):
    class Breaks(TrainerCallback):
        def on_step_end(self, args, state, control, model=None, **more):
            if state.global_step == 3:
                next(p for p in model.parameters() if p.requires_grad).data.fill_(torch.nan)

    callback = StudyCallback(small_study())
    with pytest.warns(UserWarning, match="not whole.*NaN"):
        trainer = trained(tiny_model, tmp_path / "out", seen=Breaks(), callback=callback)
    assert trainer.state.global_step == 4
    log = pd.read_csv(tmp_path / "out" / "study" / "training_log.csv")
    assert log["form"].notna().tolist() == [True, True, False]
    assert "NaN" in log["problem"].iloc[-1]
    assert rows(tmp_path / "out" / "study")["checkpoint"].unique().tolist() == ["base", "checkpoint-2"]


def test_a_step_without_a_number_for_an_example_is_left_out_where_steps_are_compared(
    tiny_model, tmp_path, monkeypatch
):
    measured = Evaluations.measured

    def lacking(self, checkpoint):
        found = measured(self, checkpoint)
        if checkpoint.step == 2:
            scores = found.scores["reference_nll"]
            scores[next(iter(scores))] = float("nan")
        return found

    monkeypatch.setattr(Evaluations, "measured", lacking)
    callback = StudyCallback(small_study(data={"path": "sample", "validation": 6}), stop=Stopping())
    with pytest.warns(UserWarning, match="not whole.*reference_nll is no number for some example"):
        trained(tiny_model, tmp_path / "out", callback=callback)
    assert json.loads((tmp_path / "out" / "study" / "best.json").read_text())["step"] in (0, 4)
    log = pd.read_csv(tmp_path / "out" / "study" / "training_log.csv").set_index("step")
    assert log["problem"].notna().to_dict() == {0: False, 2: True, 4: False}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"load": {"quantization": "nf4"}}, "load: while training"),
        ({"engine": {"kind": "ray"}}, "engine: while training"),
        ({"decoding": {"contrast": [0.5], "max_length": 12}}, "decoding.contrast: while training"),
        ({"select": {"checkpoint": "rime"}}, "select.checkpoint: rime is no metric"),
        ({"data": "nowhere"}, "there is no folder nowhere"),
    ],
)
def test_a_study_that_cannot_be_is_refused_before_training(changes, said):
    with pytest.raises(TangevalError, match=said):
        StudyCallback(small_study(**changes))


def test_a_file_and_what_is_asked_for_are_refused_before_training(tmp_path):
    file = tmp_path / "study.yaml"
    file.write_text("name: x\nsample: 3\n")
    with pytest.raises(TangevalError, match="sample: unknown key"):
        StudyCallback(file)
    with pytest.raises(TangevalError, match=r"stop\.metric: bleu is no mean"):
        StudyCallback(small_study(), stop=Stopping("bleu"))
    with pytest.raises(TangevalError, match="stopping: 3 examples"):
        StudyCallback(small_study(), stop=Stopping("form"))
    for how in ({"steps": 3, "minutes": 1}, {"steps": 0}, {"minutes": -1}):
        with pytest.raises(TangevalError, match="give one of them, above zero"):
            StudyCallback(small_study(), **how)
    with pytest.raises(TangevalError, match="stopping: an alpha of 0"):
        StudyCallback(small_study(), stop=Stopping(alpha=0))


def test_a_context_too_short_is_refused_before_the_first_step(tiny_model, tmp_path):
    study = small_study(decoding={"max_length": 1000})
    with pytest.raises(TangevalError, match=r"decoding\.max_length"):
        trained(tiny_model, tmp_path / "out", study)


def test_two_studies_of_one_training_are_refused(tiny_model, tmp_path):
    first, second = StudyCallback(small_study()), StudyCallback(small_study())
    with pytest.raises(TangevalError, match=r"two StudyCallbacks: both would write .*out/study"):
        trained(tiny_model, tmp_path / "out", callback=first, seen=second)


def test_adapters_that_a_saved_checkpoint_is_not_read_with_are_refused(tiny_model, tmp_path):
    several = make_model(tiny_model)
    several.add_adapter("second", several.peft_config["default"])
    several.base_model.set_adapter(["default", "second"])
    other = get_peft_model(several.unload(), several.peft_config["default"], adapter_name="mine")
    for model, names in ((several, "default, second"), (other, "mine")):
        with pytest.raises(TangevalError, match=f"named default is read, and {names} would"):
            trained(tiny_model, tmp_path / "out", small_study(), model=model)


def test_weights_that_are_shared_out_are_refused(tiny_model):
    model = make_model(tiny_model)
    live.refuse_shared_out(model, False)
    with pytest.raises(TangevalError, match="train with DDP"):
        live.refuse_shared_out(model, True)
    next(model.parameters()).ds_id = 0
    with pytest.raises(TangevalError, match="train with DDP"):
        live.refuse_shared_out(model, False)
    with torch.device("meta"):
        model.elsewhere = torch.nn.Linear(1, 1)
    with pytest.raises(TangevalError, match="load it on one"):
        live.refuse_shared_out(model, False)


# The best, and when to stop


def test_a_training_that_gets_worse_is_stopped_and_the_best_is_kept(tiny_model, tmp_path):
    """Of few examples no order is beyond luck of 5 %."""
    study = small_study(include_base=False, checkpoints="out", data={"path": "sample", "validation": 12})
    callback = StudyCallback(study, stop=Stopping(patience=2))
    out = tmp_path / "out"
    changes = {"max_steps": 20, "save_steps": 1, "save_total_limit": 1, "learning_rate": 0.3}
    trainer = trained(tiny_model, out, callback=callback, lr_scheduler_type="constant", **changes)
    best = json.loads((out / "study" / "best.json").read_text("utf-8"))
    assert trainer.state.global_step < 20
    assert best["metric"] == "reference_nll"
    assert best["step"] < trainer.state.global_step - 1
    assert trainer.state.best_model_checkpoint == str(out / best["checkpoint"])
    assert (out / best["checkpoint"] / "adapter_model.safetensors").is_file()


def test_the_best_step_is_saved_where_it_would_not_be(tiny_model, tmp_path):
    callback = StudyCallback(small_study(), steps=3)
    trained(tiny_model, tmp_path / "out", callback=callback, save_strategy="no")
    best = json.loads((tmp_path / "out" / "study" / "best.json").read_text("utf-8"))
    assert best["step"] in (0, 3)
    assert (tmp_path / "out" / "checkpoint-3").is_dir() == (best["step"] == 3)


def test_by_a_metric_of_all_texts_together_the_step_with_the_best_value_is_best(tiny_model, tmp_path):
    """Of BLEU the examples' parts have another mean."""
    study = small_study(select={"split": "validation", "checkpoint": "bleu"})
    callback = StudyCallback(study, steps=1)
    trained(
        tiny_model, tmp_path / "out", callback=callback, save_strategy="no", max_steps=4, learning_rate=0.1
    )
    log = pd.read_csv(tmp_path / "out" / "study" / "training_log.csv").set_index("step")
    best = json.loads((tmp_path / "out" / "study" / "best.json").read_text("utf-8"))
    assert best["metric"] == "bleu"
    assert best["step"] == log["bleu"].idxmax()
    assert best["bleu"] == pytest.approx(log["bleu"].max(), rel=1e-6)


def test_the_study_that_comes_with_tangeval_is_the_default():
    callback = StudyCallback()
    assert callback.evaluations.study.name == "while_training"
    assert len(callback.evaluations.dataset.split("validation")) == 30
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load_study("while_training.yaml").samples == 2
