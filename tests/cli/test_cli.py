"""The command line: what each command prints, leaves, and refuses."""

import json
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
import yaml
from sacrebleu.metrics import BLEU

from tangeval.cli import render
from tangeval.core.errors import TangevalError
from tangeval.core.words import speaking
from tangeval.reporting.page import build as report
from tangeval.results.files import write_json
from tangeval.tasks.tang import data as dataset
from tangeval.tasks.tang.data import SAMPLE, TRAINING
from tangeval.tasks.tang.text import clauses, fold, han
from tests.support.command import EXTRAS, Done, tangeval, without
from tests.support.study import write_study

#: Sixteen settings on both splits.
STUDY = {
    "splits": ["validation", "test"], "samples": {"validation": 1, "test": 2}, "batch_size": 160,
    "decoding": {"temperature": [0.0, 0.7], "top_k": [0, 5], "top_p": [0.6, 1.0], "max_length": [6, 18],
                 "no_repeat_ngram_size": 0},
    "select": {"setting": {"by": "bleu", "require": {"han_only": ">= 0.0"}}},
}  # fmt: skip
RESULTS = Path("results") / "tiny"


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """So small a model gains nothing by threads, and on a busy machine they wait for one another."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def here(tiny_model, tiny_run, tmp_path):
    """A folder with ``tiny.yaml`` and no results."""
    write_study(tmp_path, tiny_model, tiny_run, **STUDY)
    return tmp_path


@pytest.fixture(scope="module")
def planned_and_run(tiny_model, tiny_run, tmp_path_factory):
    """A folder where the study was planned, then run, with what both printed; not to be changed."""
    folder = tmp_path_factory.mktemp("finished")
    write_study(folder, tiny_model, tiny_run, **STUDY)
    planned = tangeval(folder, "run", "tiny.yaml", "--dry-run")
    left = [path.name for path in folder.iterdir()]
    return folder, planned, left, tangeval(folder, "run", "tiny.yaml")


@pytest.fixture
def finished(planned_and_run, tmp_path):
    """A copy of the folder with the study and its results."""
    return shutil.copytree(planned_and_run[0], tmp_path / "finished")


# run


def test_a_dry_run_says_what_would_be_made_and_makes_nothing(planned_and_run):
    folder, planned, left, _ = planned_and_run
    assert (planned.code, planned.err) == (0, "")
    assert left == ["tiny.yaml"]
    rows = planned.table()
    assert [row[:3] for row in rows] == [
        ["base", "", "base"], ["checkpoint-10", "10", "adapter"], ["checkpoint-20", "20", "adapter"],
    ]  # fmt: skip
    # 16 settings; the shorter length is part of the longer, and all eight greedy settings are one stream.
    outputs, sequences = 16 * (30 + 15 * 2), 30 * (4 + 1) + 15 * (4 * 2 + 1)
    assert [row[4:] for row in rows] == [[f"{sequences}", f"{outputs}"]] * 3
    batch_files = len(list((folder / RESULTS / "generations").iterdir()))
    assert sum(int(row[3]) for row in rows) == batch_files
    assert "16 settings" in planned.out
    assert re.search(r"batches of up to \d+ sequences", planned.out)
    assert "the time is not known" in planned.out


def test_a_dry_run_beside_results_counts_what_is_lacking_and_estimates_the_time(finished):
    done = tangeval(finished, "run", "tiny.yaml", "--dry-run")
    assert [row[3:] for row in done.table()] == [["0", "0", "0"]] * 3
    assert "nothing to decode" in done.out
    before = sorted((finished / RESULTS).rglob("*"))
    more = tangeval(finished, "run", "tiny.yaml", "decoding.temperature=[0.0,0.7,1.0]", "--dry-run")
    # Four sequences and eight settings a sample at the new temperature.
    assert [row[4:] for row in more.table()] == [[f"{4 * (30 + 15 * 2)}", f"{8 * (30 + 15 * 2)}"]] * 3
    assert re.search(r"about [\d.]+ min at the [\d,]+ sequences a second measured here", more.out)
    assert sorted((finished / RESULTS).rglob("*")) == before


def test_a_run_names_the_best_checkpoint_the_pictures_and_the_tables(planned_and_run):
    folder, _, _, done = planned_and_run
    assert done.code == 0, done.err
    selection = json.loads((folder / RESULTS / "best" / "selection.json").read_text())
    assert f"best checkpoint: {selection['checkpoint']['checkpoint']} " in done.out
    named = re.search(r"pictures: (.*?) in (\S+)", done.out)
    pictures = named.group(1).split(", ")
    assert len(pictures) > 5
    assert all((folder / named.group(2) / picture).is_file() for picture in pictures)
    assert all(name in done.out for name in ("base", "checkpoint-10", "checkpoint-20", "random", "reference"))
    assert (folder / RESULTS / "tables" / "checkpoints.md").is_file()


def test_out_names_another_results_folder(here):
    done = tangeval(here, "run", "tiny.yaml", "--dry-run", "--out", "elsewhere")
    assert "elsewhere" in done.out
    assert "results" not in done.out


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["tiny.yaml", "decoding.temprature=1"], "'decoding.temprature=1': decoding.temprature: unknown key; did you mean temperature?"),
        (["tiny.yaml", "sample=1"], "'sample=1': sample: unknown key; did you mean samples?"),
        (["tiny.yaml", "decoding.top_p=0"], "'decoding.top_p=0': decoding.top_p.0: 0 is out of range; give 1e-06 to 1"),
        (["tiny.yaml", "decoding.top_k=[]"], "'decoding.top_k=[]': decoding.top_k: "),
        (["tiny.yaml", "seed"], "'seed': an override is written key=value"),
        (["tiny.yaml", "base_model=nowhere"], "base_model: nowhere is not a shipped model"),
        (["tiny.yaml", "checkpoints=nowhere"], "checkpoints: there is no folder nowhere"),
        (["tiny.yaml", "data=nowhere"], "data: there is no folder nowhere"),
        (["nowhere.yaml"], "there is no file nowhere.yaml"),
    ],
)  # fmt: skip
def test_what_a_study_has_wrong_is_one_message_and_exit_code_2(here, arguments, expected):
    done = tangeval(here, "run", *arguments)
    assert done.code == 2
    assert done.err.startswith(f"error: {expected}")
    assert "Traceback" not in done.err
    assert [path.name for path in here.iterdir()] == ["tiny.yaml"]


def test_an_unknown_key_in_the_file_itself_is_named(here):
    with (here / "tiny.yaml").open("a") as sequence:
        sequence.write("temperature: 1\n")
    done = tangeval(here, "run", "tiny.yaml")
    assert done.code == 2
    assert done.err.startswith("error: tiny.yaml: temperature: unknown key")


# checkpoints, data


def test_checkpoints_are_listed_by_step_with_what_was_left_out(tiny_run, tmp_path):
    run = shutil.copytree(tiny_run, tmp_path / "run")
    shutil.copytree(run / "checkpoint-10", run / "checkpoint-100")
    shutil.copytree(run / "checkpoint-10", run / "checkpoint-110")
    (run / "checkpoint-110" / "trainer_state.json").write_text("")
    write_json(run / "train_ids.json", {"data": "x", "ids": ["a", "b"], "hashes": ["c", "d"]})
    done = tangeval(tmp_path, "checkpoints", "run")
    assert done.code == 0, done.err
    rows = done.table()
    assert [row[:4] for row in rows[:3]] == [
        [f"checkpoint-{step}", str(step), "adapter", "2 texts"] for step in (10, 20, 100)
    ]
    assert rows[3][:3] == ["checkpoint-110", "", "left out"]
    assert "trainer_state.json" in done.out
    (run / "train_ids.json").unlink()
    assert "no record" in tangeval(tmp_path, "checkpoints", "run").out


def test_checkpoints_of_a_folder_that_holds_none_is_an_error(tmp_path):
    done = tangeval(tmp_path, "checkpoints", ".")
    assert done.code == 2
    assert "expected an adapter or a full model" in done.err


def test_data_shows_what_is_found_and_how_to_get_the_rest(tmp_path, monkeypatch):
    monkeypatch.delenv("TANGEVAL_DATA", raising=False)
    done = tangeval(tmp_path, "data")
    assert done.code == 0, done.err
    assert "train 600, validation 30, test 15" in done.out
    assert "tangeval data fetch" in done.out


def test_data_names_copies_and_leaks(tmp_path, monkeypatch):
    data = shutil.copytree(SAMPLE, tmp_path / "data")
    example = dataset.load("sample").split("test")[0]
    records = json.loads((data / TRAINING).read_text())
    records[0] |= {"input": example.input, "output": example.reference}
    (data / TRAINING).write_text(json.dumps(records))
    monkeypatch.setenv("TANGEVAL_DATA", str(data))
    done = tangeval(tmp_path, "data")
    hw5 = done.out[done.out.index("hw5") :]
    assert "train 430, validation 200, test 15" in hw5
    assert "texts that stand there more than once: 1, such as train-1, test-1" in hw5
    assert "validation: texts that share a part with training: 0" in hw5
    leak = re.search(r" test: texts that share a part with training: 1 \(test-1: (.*)\)", hw5)
    assert set(leak.group(1).split()) == set(clauses(fold(example.input + example.reference)))


# score


# explain


def test_explain_follows_the_selected_setting_and_the_page_shows_it(finished):
    done = tangeval(finished, "explain", "tiny.yaml", "--prompt", "test-2", "--sample", 1)
    folder = Path(RESULTS) / "explain" / "test-2"
    content = json.loads((finished / folder / "explain.json").read_text("utf-8"))
    chosen = json.loads((finished / RESULTS / "best" / "selection.json").read_text("utf-8"))
    assert done.code == 0
    assert content["checkpoint"]["name"] == chosen["checkpoint"]["checkpoint"]
    assert content["setting"] == {knob: chosen["setting"][knob] for knob in content["setting"]}
    assert done.out.endswith(f"{len(content['steps'])} steps: {folder}/explain.json")
    packed = report.packed((finished / folder / "explain.json").read_bytes())
    assert packed in (finished / RESULTS / "report.html").read_text("utf-8")
    batch_files = pd.concat(map(pd.read_parquet, (finished / RESULTS / "generations").glob("*.parquet")))
    made = batch_files[
        (batch_files["checkpoint"] == content["checkpoint"]["name"]) & (batch_files["example_id"] == "test-2")
    ]
    same = (made[list(content["setting"])] == pd.Series(content["setting"])).all(axis=1)
    assert (
        content["text"]
        == made[same & (made["sample"].isin([0] if content["setting"]["temperature"] == 0 else [1]))][
            "text"
        ].item()
    )


def test_a_run_with_another_folder_is_explained_there_by_the_command_that_its_page_names(finished):
    shutil.move(finished / RESULTS, finished / "elsewhere")
    shutil.rmtree(finished / "elsewhere" / "explain")
    assert tangeval(finished, "report", "elsewhere").code == 0
    page = (finished / "elsewhere" / "report.html").read_text("utf-8")
    assert '"place":"elsewhere"' in page
    assert str(finished) not in page
    done = tangeval(finished, "explain", "elsewhere/study.yaml", "--prompt", "1")
    assert done.out.endswith("elsewhere/explain/test-1/explain.json")
    assert "checkpoint: selected; setting: selected" in " ".join(done.out.split())
    assert (finished / "elsewhere" / "report.html").read_text("utf-8") != page
    assert not (finished / "results" / "tiny").exists()


def test_a_run_explains_the_first_texts_of_its_choice_and_not_again(finished, monkeypatch):
    folder = finished / RESULTS
    files = [folder / "explain" / f"chosen-{number}" / "explain.json" for number in (1, 2, 3)]
    chosen = json.loads((folder / "best" / "selection.json").read_text("utf-8"))
    for number, file in enumerate(files, 1):
        content = json.loads(file.read_text("utf-8"))
        assert (content["example_id"], content["sample"]) == (f"test-{number}", 0)
        assert content["checkpoint"]["name"] == chosen["checkpoint"]["checkpoint"]
        assert content["setting"] == {knob: chosen["setting"][knob] for knob in content["setting"]}
    asked = []

    def loaded(*given):
        asked.append(given)
        raise TangevalError("the model is not there")

    monkeypatch.setattr("tangeval.explain.trace.loaded", loaded)
    files[1].write_text(files[1].read_text("utf-8").replace('"key":"', '"key":"0'))  # as of another choice
    done = tangeval(finished, "run", "tiny.yaml", "--no-explain")
    assert (done.code, asked) == (0, [])
    done = tangeval(finished, "run", "tiny.yaml")
    assert (done.code, len(asked)) == (0, 1)
    assert "no text is explained on the page; `tangeval explain` said: the model is not there" in " ".join(
        done.err.split()
    )
    assert "report.html" in done.out


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--prompt", "99"], "--prompt 99: the test split has 15 examples"),
        (["--split", "train"], "--split train: give validation or test"),
        (["--step", "40"], "--step 40: the text has"),
        (["decoding.top_q=1"], "did you mean top_p?"),
    ],
)
def test_what_cannot_be_explained_is_one_message(here, arguments, expected):
    done = tangeval(here, "explain", "tiny.yaml", *arguments)
    assert done.code == 2
    assert expected in done.err
    assert not (here / RESULTS).exists()


@pytest.fixture(scope="module")
def sample_poems():
    return dataset.load("sample").split("test")


def as_results_txt(poems, texts):
    return "results.txt", "\n".join(
        f"{n}. {e.input}{text}" for n, (e, text) in enumerate(zip(poems, texts, strict=True), 1)
    )


def as_results_json(poems, texts):
    return "results.json", json.dumps(
        [{"input": e.input, "predict": text} for e, text in zip(poems, texts, strict=True)]
    )


def as_jsonl(poems, texts):
    return "results.jsonl", "\n".join(json.dumps({"predict": text}) for text in texts) + "\n"


def as_lines(poems, texts):
    return "poems.txt", "\n".join(texts) + "\n"


def row_of(done: Done, name: str) -> dict:
    return next(row for row in json.loads(done.raw)["rows"] if row["checkpoint"] == name)


@pytest.mark.parametrize("write", [as_results_txt, as_results_json, as_jsonl, as_lines])
def test_the_references_themselves_score_100(sample_poems, tmp_path, write):
    name, text = write(sample_poems, [example.reference for example in sample_poems])
    (tmp_path / name).write_text(text, encoding="utf-8")
    done = tangeval(tmp_path, "score", name, "--data", "sample", "--json")
    assert (done.code, done.err) == (0, "")
    row = row_of(done, name)
    assert (row["split"], row["poems"]) == ("test", 15)
    assert [row[m] for m in ("bleu", "bleu_strict", "chrf", "form")] == pytest.approx([100, 100, 100, 1])
    # They were not decoded here, so nobody knows whether they ended by themselves.
    assert row["complete"] is None
    assert row["reference_nll"] is None


def test_score_is_sacrebleus_beside_floor_and_reference(sample_poems, tmp_path):
    """Of each reference the first clause, then another poem's; no couplet before them."""
    others = [*sample_poems[1:], sample_poems[0]]
    texts = [
        f"{clauses(example.reference)[0]}，{clauses(other.reference)[1]}。"
        for example, other in zip(sample_poems, others, strict=True)
    ]
    (tmp_path / "poems.txt").write_text("\n".join(texts), encoding="utf-8")
    done = tangeval(tmp_path, "score", "poems.txt", "--data", "sample", "--json")
    hypotheses = [fold(han(text)) for text in texts]
    references = [[fold(han(example.reference)) for example in sample_poems]]
    metric = BLEU(tokenize="char")
    expected = metric.corpus_score(hypotheses, references).score
    assert 1 < expected < 99
    row = row_of(done, "poems.txt")
    assert row["bleu"] == pytest.approx(expected)
    assert row["bleu_low"] < expected < row["bleu_high"]
    assert json.loads(done.raw)["signatures"]["bleu"].startswith(str(metric.get_signature()))
    assert row_of(done, "reference")["bleu"] == pytest.approx(100)
    assert row_of(done, "random")["bleu"] < expected
    printed = tangeval(tmp_path, "score", "poems.txt", "--data", "sample")
    assert printed.code == 0
    assert re.search(rf"poems\.txt .*?{expected:.1f}.* random .*reference .*100", printed.out)


def test_validation_poems_are_scored_when_asked_for(tmp_path):
    poems = dataset.load("sample").split("validation")
    name, text = as_results_txt(poems, [example.reference for example in poems])
    (tmp_path / name).write_text(text, encoding="utf-8")
    done = tangeval(tmp_path, "score", name, "--data", "sample", "--split", "validation", "--json")
    row = row_of(done, name)
    assert (row["split"], row["poems"], row["bleu"]) == ("validation", 30, pytest.approx(100))


@pytest.mark.parametrize("write", [as_results_txt, as_results_json, as_jsonl, as_lines])
def test_another_number_of_outputs_is_an_error_that_names_the_file(sample_poems, tmp_path, write):
    name, text = write(sample_poems[:14], [example.reference for example in sample_poems[:14]])
    (tmp_path / name).write_text(text, encoding="utf-8")
    done = tangeval(tmp_path, "score", name, "--data", "sample")
    assert done.code == 2
    assert done.err.startswith(f"error: {name}: ")
    assert "14 outputs for 15 poems" in done.err


def test_outputs_in_another_order_are_scored_and_said_to_be(sample_poems, tmp_path):
    swapped = [sample_poems[1], sample_poems[0], *sample_poems[2:]]
    name, text = as_results_txt(swapped, [example.reference for example in swapped])
    (tmp_path / name).write_text(text, encoding="utf-8")
    done = tangeval(tmp_path, "score", name, "--data", "sample")
    assert (done.code, done.err) == (0, "")
    assert done.out.endswith(f"{name}: 15 outputs for 15 poems: 15 by couplet; reordered")
    done = tangeval(tmp_path, "score", name, "--data", "sample", "--json")
    assert row_of(done, name)["bleu"] == pytest.approx(100)


def test_several_files_are_rows_of_one_table_named_by_their_folders(sample_poems, tmp_path):
    for folder, text in (("run1", "春風吹綠草，明月照高樓。</s>"), ("run2", sample_poems[0].reference)):
        (tmp_path / folder).mkdir()
        name, lines = as_results_txt(sample_poems, [text] * 15)
        (tmp_path / folder / name).write_text(lines, encoding="utf-8")
    files = ["run1/results.txt", "run2/results.txt"]
    done = tangeval(tmp_path, "score", *files, "--data", "sample")
    assert (done.code, done.err) == (0, "")
    assert re.search(
        "2 files on 15 poems.* run1/results.txt .* run2/results.txt .* random .* reference ",
        done.out,
    )
    assert (
        "run1/results.txt: 15 outputs for 15 poems: 15 by couplet; lines 1, 2, 3, 4, 5 and 10 more: special tokens cut"
        in done.out
    )
    done = tangeval(tmp_path, "score", *files, "--data", "sample", "--json")
    assert [row["checkpoint"] for row in json.loads(done.raw)["rows"]] == [*files, "random", "reference"]
    first, second = json.loads(done.raw)["files"]
    assert first == {
        "name": files[0],
        "matched": "15 outputs for 15 poems: 15 by couplet",
        "notes": ["lines 1, 2, 3, 4, 5 and 10 more: special tokens cut"],
    }
    assert second["notes"] == []


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["nowhere.txt", "--data", "sample"], "nowhere.txt: No such file"),
        (["nowhere.txt", "--data", "sample", "--split", "dev"], "--split dev: "),
        (["nowhere.txt", "--data", "nowhere"], "data: there is no folder nowhere"),
    ],
)
def test_what_cannot_be_scored_is_one_message(tmp_path, arguments, expected):
    done = tangeval(tmp_path, "score", *arguments)
    assert done.code == 2
    assert done.err.startswith(f"error: {expected}")


# select, summarize


def contents(folder: Path) -> dict[str, bytes]:
    return {str(f.relative_to(folder)): f.read_bytes() for f in folder.rglob("*") if f.is_file()}


def test_summarize_select_and_score_need_no_torch_and_make_the_runs_own_bytes(finished, sample_poems):
    before = contents(finished)
    results = finished / RESULTS
    for folder in ("tables", "figures", "best"):
        shutil.rmtree(results / folder)
    for name in ("scores.parquet", "summary.csv", "effects.csv", "checkpoints.csv"):
        (results / name).unlink()
    name, text = as_results_txt(sample_poems, [example.reference for example in sample_poems])
    (finished / name).write_text(text, encoding="utf-8")
    done = without(
        EXTRAS,
        finished,
        ["summarize", str(RESULTS)],
        ["select", str(RESULTS)],
        ["score", name, "--data", "sample"],
    )
    assert done.returncode == 0, done.stderr
    assert "best checkpoint" in done.stdout
    (finished / name).unlink()
    after = contents(finished)
    assert after.keys() == before.keys()
    assert [file for file in before if after[file] != before[file]] == []


def test_a_run_ends_in_a_page_and_report_makes_the_same_one_without_torch(planned_and_run, finished):
    page = finished / RESULTS / "report.html"
    assert re.search(
        rf"page: {RESULTS}/report\.html \([\d.]+ MB, all numbers, all texts, 3 explained\)",
        planned_and_run[3].out,
    )
    made = page.read_bytes()
    page.unlink()
    done = without(EXTRAS, finished, ["report", str(RESULTS)], ["report", "tiny.yaml", "--out", "sent.html"])
    assert done.returncode == 0, done.stderr
    assert page.read_bytes() == made == (finished / "sent.html").read_bytes()


def test_a_page_shows_the_choice_that_was_made_last(finished):
    page = finished / RESULTS / "report.html"
    before = page.read_bytes()
    study = (finished / "tiny.yaml").read_text()
    (finished / "tiny.yaml").write_text(study.replace("by: bleu", "by: chrf"))
    assert tangeval(finished, "select", "tiny.yaml").code == 0
    assert page.read_bytes() != before
    assert b'"by":"chrf"' in page.read_bytes()


def test_a_page_of_what_is_no_results_folder_is_an_error(finished):
    assert tangeval(finished, "report", "nowhere.yaml").code == 2
    (finished / RESULTS / "summary.csv").unlink()
    done = tangeval(finished, "report", RESULTS)
    assert done.code == 2
    assert "summary.csv is missing; `tangeval summarize" in done.err


def test_a_study_file_stands_for_its_results_folder(finished):
    by_folder = tangeval(finished, "select", RESULTS)
    by_study = tangeval(finished, "select", "tiny.yaml")
    assert by_folder.code == by_study.code == 0
    assert by_folder.raw == by_study.raw
    assert "best setting: temperature" in by_folder.out
    _, texts = by_folder.raw.split("texts of the test split")
    given = re.findall(r"^│ *([^│\s]+) *│", texts, re.MULTILINE)
    assert len(given) == len(set(given)) == 3


def test_a_study_file_that_chooses_by_a_split_the_results_lack_is_refused(finished):
    made = finished / RESULTS / "study.yaml"
    text = made.read_text()
    study = yaml.safe_load(text) | {"splits": ["test"], "samples": 2, "select": None}
    made.write_text(yaml.safe_dump(study))
    try:
        done = tangeval(finished, "select", "tiny.yaml")
    finally:
        made.write_text(text)
    assert done.code == 2
    assert "has no validation split" in done.err


def test_generations_that_fit_no_longer_are_removed_only_when_told_so(finished, tmp_path):
    folder = shutil.copytree(finished, tmp_path / "copy")
    before = sorted((folder / RESULTS / "generations").iterdir())
    done = tangeval(folder, "generate", "tiny.yaml", "seed=7")
    assert done.code == 2
    assert "--overwrite" in done.err
    assert sorted((folder / RESULTS / "generations").iterdir()) == before
    done = tangeval(folder, "generate", "tiny.yaml", "seed=7", "--overwrite")
    assert done.code == 0
    assert not set(before) & set((folder / RESULTS / "generations").iterdir())


@pytest.mark.parametrize("command", ["summarize", "select"])
def test_results_that_are_not_there_say_what_makes_them(here, command):
    done = tangeval(here, command, "tiny.yaml")
    assert done.code == 2
    assert "`tangeval run tiny.yaml` makes it" in done.err


def test_selection_among_checkpoints_of_unknown_training_wants_assume_unseen(finished):
    manifest = json.loads((finished / RESULTS / "manifest.json").read_text())
    for record in manifest["checkpoints"][1:]:
        record["seen"] = None
    write_json(finished / RESULTS / "manifest.json", manifest)
    shutil.rmtree(finished / RESULTS / "best")
    done = tangeval(finished, "select", RESULTS)
    assert done.code == 2
    assert "--assume-unseen" in done.err
    assert not (finished / RESULTS / "best").exists()
    assert tangeval(finished, "select", RESULTS, "--assume-unseen").code == 0
    assert (finished / RESULTS / "best" / "selection.json").is_file()


def test_the_best_checkpoint_is_not_chosen_where_it_saw_the_split(finished):
    best = finished / RESULTS / "best" / "selection.json"
    chosen = json.loads(best.read_text())["checkpoint"]["checkpoint"]
    manifest = json.loads((finished / RESULTS / "manifest.json").read_text())
    for record in manifest["checkpoints"]:
        if record["name"] == chosen:
            record["seen"] = {"validation": 1, "test": 0}
    write_json(finished / RESULTS / "manifest.json", manifest)
    done = tangeval(finished, "select", RESULTS)
    assert done.code == 0, done.err
    selection = json.loads(best.read_text())
    assert selection["refused"] == [chosen]
    assert selection["checkpoint"]["checkpoint"] != chosen
    assert f"best checkpoint: {selection['checkpoint']['checkpoint']} " in done.out


# plan, compare, data --calibrate


def test_a_plan_says_what_shows_an_effect_and_what_the_study_would(finished):
    done = tangeval(finished, "plan", "tiny.yaml", "select.split=test", "--effect", "chrf=0.2")
    assert (done.code, done.err) == (0, "")
    rows = [row[2:] for row in done.table() if row[1] == "two settings"]
    (cheapest, poems, samples, outputs, power, shows), *_, declared = rows
    assert (cheapest, samples, outputs, power, shows) == ("cheapest", "1", poems, "80%", "0.2")
    assert declared[:4] == ["as declared", "15", "2", "30"]
    assert "two checkpoints" in done.out


def test_a_plan_wants_a_pilot_and_says_how_to_make_one(here):
    done = tangeval(here, "plan", "tiny.yaml", "--effect", "chrf=1")
    assert done.code == 2
    assert f"{RESULTS}: there are no scores of a pilot" in done.err
    assert "`tangeval run tiny.yaml samples=2 --out results/tiny-pilot` makes one" in done.err
    assert "give --from results/tiny-pilot" in done.err


def test_compare_prints_and_writes_what_was_found(finished, tmp_path):
    done = tangeval(
        finished, "compare", f"{RESULTS}:base", f"{RESULTS}:checkpoint-20", "--metric", "chrf", "--effect", "chrf=1",
        "--out", tmp_path / "differences.csv",
    )  # fmt: skip
    assert (done.code, done.err) == (0, "")
    (row,) = pd.read_csv(tmp_path / "differences.csv").to_dict("records")
    assert "Differences on validation, 30 examples" in done.out
    assert f"{row['difference']:+.3f} [{row['low']:+.3f}, {row['high']:+.3f}]" in done.out
    assert f"{row['poems_needed']:,.0f} poems for 1" in done.out
    assert "Noise is shared" in done.out


def test_long_names_stand_above_the_comparison_and_letters_in_it(finished):
    settings = [f"{RESULTS}:checkpoint-{step}:temperature=0.7,top_p=1.0" for step in (10, 20)]
    done = tangeval(finished, "compare", *settings, "--metric", "chrf")
    assert done.out.startswith(f"A {settings[0]} B {settings[1]} ")
    (row,) = done.table()
    assert row[0] == "chrf"
    assert [side.split()[0] for side in row[1:3]] == ["A", "B"]
    assert "1 comparison, tested together" in done.out


@pytest.mark.parametrize("effect", ["chrf", "chrf=much", "chrf=-1"])
def test_an_effect_that_is_no_size_is_refused(finished, effect):
    done = tangeval(finished, "compare", f"{RESULTS}:base", f"{RESULTS}:checkpoint-20", "--effect", effect)
    assert done.code == 2
    assert f"--effect {effect}" in done.err


def test_front_prints_and_writes_the_settings_that_none_beats(finished):
    done = tangeval(
        finished, "front", RESULTS, "--metric", "chrf", "--metric", "distinct_1", "--checkpoint", "all"
    )
    assert done.code == 0, done.err
    frame = pd.read_csv(finished / RESULTS / "front.csv")
    best = frame[frame["on_front"] == 1]
    assert f"{len(best)} of {len(frame)} settings are on the front" in done.out
    assert f"{frame['dominated_by'].notna().sum()} shown to be worse in every metric" in done.out
    for row in best.to_dict("records"):
        assert f"{row['chrf']:.3f} [{row['chrf_low']:.3f}, {row['chrf_high']:.3f}]" in done.out
    done = tangeval(finished, "front", RESULTS, "--metric", "bleu", "--metric", "chrf")
    assert done.code == 2
    assert "take shared_pairs or chrf" in done.err


def test_headroom_prints_and_writes_what_the_samples_know(finished):
    done = tangeval(finished, "headroom", RESULTS, "--split", "test", "--checkpoint", "base")
    assert done.code == 0, done.err
    frame = pd.read_csv(finished / RESULTS / "oracle.csv").set_index("metric")
    assert f"{frame.loc['chrf', 'room']:.3f} [{frame.loc['chrf', 'room_low']:.3f}" in done.out
    means = pd.read_csv(finished / RESULTS / "reranked.csv").groupby("rerank")["chrf"].mean()
    assert all(f"{mean:.3f}" in done.out for mean in means)
    assert all(len(line) <= 80 for line in done.out.splitlines() if line[:1] in "│┃┏└")
    done = tangeval(finished, "headroom", RESULTS, "--checkpoint", "nobody")
    assert done.code == 2
    assert "it has no checkpoint nobody on validation" in done.err


def test_families_prints_and_writes_who_is_shown_to_be_better(finished):
    done = tangeval(finished, "families", RESULTS, "--metric", "chrf", "--checkpoint", "base")
    assert done.code == 0, done.err
    frame = pd.read_csv(finished / RESULTS / "families.csv")
    own = frame[(frame["by"] == "budget") & (frame["at"] == frame["settings"].min())]
    best = own.sort_values("chrf")["family"].iloc[-1]
    beside = pd.read_csv(finished / RESULTS / "family_differences.csv").query("a == @best")
    shown, open_ = (beside.loc[(beside["p_adjusted"] <= 0.05) == apart, "b"] for apart in (True, False))
    told = f", shown to be better than {', '.join(shown)}" if len(shown) else ""
    told += f"; it cannot be told from {', '.join(open_)}" if len(open_) else ""
    assert f"chrf: {best} is ahead{told}" in done.out
    assert f"{own['chrf'].max():.3f} [" in done.out


def test_files_side_by_side_are_compared(sample_poems, tmp_path):
    for name, cut in (("whole.txt", None), ("cut.txt", -3)):
        _, text = as_results_txt(sample_poems, [example.reference[:cut] for example in sample_poems])
        (tmp_path / name).write_text(text, encoding="utf-8")
    done = tangeval(tmp_path, "score", "whole.txt", "cut.txt", "--data", "sample", "--json")
    rows = {row["metric"]: row for row in json.loads(done.raw)["comparisons"]}
    assert (rows["form"]["a"], rows["form"]["b"], rows["form"]["difference"]) == ("whole.txt", "cut.txt", 1)
    assert rows["form"]["p_adjusted"] < 0.01
    assert "reference_nll" not in rows
    assert (
        "Differences between the files"
        in tangeval(tmp_path, "score", "whole.txt", "cut.txt", "--data", "sample").out
    )


def test_the_poets_are_measured_by_the_same_code(tmp_path):
    done = tangeval(tmp_path, "data", "--path", "sample", "--calibrate")
    assert done.code == 0
    reference, random = next(row[1:] for row in done.table() if row[0] == "rhyme")
    assert float(reference.split()[0]) > 0.9
    assert float(random.split()[0]) < 0.15


def test_an_error_is_told_in_the_language_that_was_asked_for(tmp_path):
    """Before the command or after it."""
    for asked in (["run", "nope.yaml", "--lang", "zh-TW"], ["--lang", "zh-TW", "run", "nope.yaml"]):
        done = tangeval(tmp_path, *asked)
        assert done.code == 2
        assert done.err.startswith("error: 沒有 nope.yaml 這個檔案")
    assert tangeval(tmp_path, "run", "nope.yaml").err.startswith("error: there is no file nope.yaml")


def test_a_stop_is_told_in_the_language_that_was_asked_for(tmp_path, monkeypatch):
    def stopped(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("tangeval.api.report", stopped)
    done = tangeval(tmp_path, "report", "x", "--lang", "zh-TW")
    assert (done.code, "再下同一個指令就會從這裡接著做" in done.err) == (130, True)


def test_that_recipes_have_one_run_each_is_told_in_chinese(monkeypatch, capsys):
    monkeypatch.setattr(render, "rich_table", lambda *table: "")
    monkeypatch.setattr(render, "say", print)
    recipes = pd.DataFrame({"recipe": ["a"], "split": ["test"], "runs": [1]})
    with speaking("zh-TW"):
        render.show_recipes(SimpleNamespace(recipes=recipes, task=SimpleNamespace(metrics={})))
    assert "每種訓練方式只訓練了一次" in capsys.readouterr().out
