"""What a dry run says is what the run then does; it writes nothing and tells no time that was not measured."""

import csv
import re
import sys

import pytest
from safetensors.torch import load_file
from transformers import AutoTokenizer

from finetune.__main__ import main
from tangeval.core.words import VARIABLE
from tangeval.results.files import read_json, write_json
from tangeval.tasks.tang import data as dataset
from tangeval.tasks.tang.prompt import prompt_text
from tests.support.command import start
from tests.support.study import contents, write_study

# Six steps an epoch, the last of half a batch; saves neither at the log's steps nor at an epoch's end.
CONFIG = {
    "base_model": None, "output_dir": "out/a", "records": 88, "epochs": 1.5, "learning_rate": 0.01, "warmup_steps": 3,
    "per_device_batch_size": 8, "batch": 16, "logging_steps": 2, "save_steps": 5,
}  # fmt: skip


@pytest.fixture
def finetune(tiny_model, tmp_path, monkeypatch, capsys):
    """What ``python -m finetune`` does in ``tmp_path`` with ``CONFIG``; the lines that it prints."""
    monkeypatch.chdir(tmp_path)
    write_json(tmp_path / "c.yaml", CONFIG | {"base_model": str(tiny_model)})

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["finetune", "c.yaml", *arguments])
        main()
        return " ".join(capsys.readouterr().out.split())

    return call


def test_steps_rates_and_tokens_are_those_of_the_run(finetune, tiny_model, tmp_path):
    said = finetune("--dry-run", "seed=1")
    assert [path.name for path in tmp_path.iterdir()] == ["c.yaml"]
    assert "time: not known" in said
    assert "out/a has no checkpoint yet" in said
    assert "never reached" not in said
    assert "warm-up: warmup_steps 9 end after the last step" in finetune(
        "--dry-run", "seed=1", "warmup_steps=9"
    )
    finetune("seed=1")
    with (tmp_path / "out" / "a" / "training_log.csv").open() as file:
        log = {
            int(row["step"]): float(row["learning_rate"])
            for row in csv.DictReader(file)
            if row["learning_rate"]
        }
    (rates,) = re.findall(r"learning rates: (.*?) memory", said)
    told = {int(step): float(rate) for rate, step in re.findall(r"([\d.e-]+) at (\d+)", rates)}
    assert told == pytest.approx(log, rel=5e-3)
    assert "steps: 9 of 16 texts, 8 at a time; checkpoints at 5, 9" in said
    assert sorted(path.name for path in (tmp_path / "out" / "a").glob("checkpoint-*")) == [
        "checkpoint-5",
        "checkpoint-9",
    ]
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    texts = [f"<s>{prompt_text(e)} {e.reference}</s>" for e in dataset.load("sample").split("train")[:88]]
    lengths = [len(tokenizer.encode(text, add_special_tokens=False)) for text in texts]
    assert f"records: 88; {sum(n > 256 for n in lengths)} longer" in said
    assert f"tokens: {sum(n for n in lengths if n <= 256):,} an epoch" in said
    before = contents(tmp_path)
    assert "out/a is complete" in finetune("--dry-run", "seed=1")
    assert contents(tmp_path) == before


def test_a_time_is_that_of_a_run_beside_it_with_the_same_steps_on_the_same_machine(finetune, tmp_path):
    finetune()
    other = ("--dry-run", "output_dir=out/b", "epochs=3", "learning_rate=1e-4", "seed=7")
    timings = read_json(tmp_path / "out" / "a" / "timings.json")
    seconds = timings["seconds_a_step"]
    assert f"time: about {18 * seconds / 60:.1f} min for the steps, at the {seconds:g} s a step" in finetune(
        *other
    )
    assert "time: not known" in finetune(*other, "lora.r=4")
    write_json(tmp_path / "out" / "a" / "timings.json", timings | {"machine": "another"})
    assert "time: not known" in finetune(*other)


def test_what_the_run_would_be_refused_for_the_dry_run_is(finetune, tmp_path, capsys):
    finetune()
    assert "is complete: the command would do nothing" in finetune("--dry-run")
    assert "has checkpoints up to step 9, which are moved to quarantine/" in finetune(
        "--dry-run", "--overwrite"
    )
    for wrong, said in {
        "learning_rate=1": "holds checkpoints of another run .learning_rate differ",
        "lora.target_modules=[nothing]": "lora.target_modules: Target modules",
        "records=9999": "9999 were asked for",
        "precision=float16": "wants a GPU",
        "evaluate=nowhere.yaml": "nowhere.yaml",
    }.items():
        with pytest.raises(SystemExit) as stop:
            finetune("--dry-run", wrong, *(["output_dir=out/b"] if "rate" not in wrong else []))
        assert stop.value.code == 2
        assert re.search(said, capsys.readouterr().err), wrong
    assert not (tmp_path / "out" / "b").exists()


def test_the_adapter_that_is_gone_on_from_is_the_one_that_is_counted(finetune, tmp_path):
    finetune("lora.r=2", "output_dir=out/first", "epochs=1")
    start = tmp_path / "out" / "first" / "checkpoint-5"
    said = finetune("--dry-run", f"resume_adapter={start}", "lora.target_modules=[nothing]")
    trained = sum(tensor.numel() for tensor in load_file(start / "adapter_model.safetensors").values())
    assert f"{trained:,} of the adapter" in said


def test_an_error_is_told_in_the_language_of_the_environment(finetune, monkeypatch, capsys):
    monkeypatch.setenv(VARIABLE, "zh-TW")
    with pytest.raises(SystemExit):
        finetune("--dry-run", "recrods=8")
    assert "沒有這個鍵；您是不是要寫 records" in capsys.readouterr().err


def test_a_study_that_is_run_while_training_is_named(finetune, tmp_path):
    write_study(tmp_path, splits=["validation"], select=None, data={"path": "sample", "validation": 30})
    assert "evaluation: tiny.yaml, 2 settings" in finetune("--dry-run", "evaluate=tiny.yaml")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c.yaml", "tiny.yaml"]


def test_seeds_are_said_with_the_first_ones_run(finetune, tmp_path):
    said = finetune("--dry-run", "seeds=1..3")
    assert "a run for each seed of 1, 2, 3, the first:" in said
    assert "out/a-seed1 has no checkpoint yet" in said


def test_tangeval_finetune_is_the_same_command(finetune, tmp_path):
    far = f"output_dir={'/'.join(['out'] * 50)}"
    told, _ = start(tmp_path, "finetune", "c.yaml", far, "--dry-run").communicate(timeout=120)
    assert " ".join(told.split()) == finetune("--dry-run", far)
    assert f"{far.partition('=')[2]} has no checkpoint yet" in told  # in a pipe no line is wrapped
    process = start(tmp_path, "finetune", "c.yaml", "records=9999", "output_dir=out/c")
    told, _ = process.communicate(timeout=120)
    assert process.returncode == 2
    assert told.startswith("error: records: 9999 were asked for")


def test_where_the_fine_tuning_is_not_installed_the_command_says_how(tmp_path, monkeypatch, capsys):
    from tangeval.cli.app import main as tangeval

    monkeypatch.setattr("tangeval.doors.demo.find_spec", lambda name: None)
    monkeypatch.setattr(sys, "argv", ["tangeval", "finetune", "demo"])
    with pytest.raises(SystemExit) as stop:
        tangeval()
    assert stop.value.code == 2
    assert "pip install 'tangeval[train]'" in capsys.readouterr().err
