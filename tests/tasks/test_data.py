import json
import shutil
import subprocess

import pytest

from tangeval.core.errors import TangevalError
from tangeval.tasks.base import duplicates, leaks
from tangeval.tasks.tang import TANG
from tangeval.tasks.tang import data as dataset
from tangeval.tasks.tang.data import FILES, SAMPLE, TESTING, TRAINING, TRUTH


@pytest.fixture
def folder(tmp_path):
    """A copy of the sample that a test may spoil."""
    for name in FILES:
        shutil.copy(SAMPLE / name, tmp_path / name)
    return tmp_path


def test_hw5_is_read_as_it_is(hw5):
    counts = {split: len(hw5.split(split)) for split in ("train", "validation", "test")}
    assert counts == {"train": 4801, "validation": 200, "test": 15}
    assert hw5.split("test")[1].input == "夫子何爲者？栖栖一代中。"
    assert hw5.split("test")[0].reference == "偕伴登山去，觀雪且賞桔。"


def test_hw5s_first_1040_records_are_the_first_to_train_on(hw5):
    assert [e.id for e in hw5.split("train")[:1040]] == [f"train-{n}" for n in range(1, 1041)]


def test_validation_comes_from_the_end_and_shares_no_clause_with_training(hw5):
    assert leaks(TANG, hw5, "validation") == {}
    assert min(int(e.id.split("-")[1]) for e in hw5.split("validation")) > 4700


def test_a_record_that_shares_a_clause_stays_in_training(folder):
    records = json.loads((folder / TRAINING).read_text())
    shared = records[0]["input"].rstrip("。").split("，")[0]
    records[-1]["output"] = f"{shared}，" + records[-1]["output"].split("，", 1)[1]
    (folder / TRAINING).write_text(json.dumps(records))
    loaded = dataset.load(str(folder), 30)
    last = f"train-{len(records)}"
    assert last in [e.id for e in loaded.split("train")]
    assert len(loaded.split("validation")) == 30
    assert leaks(TANG, loaded, "validation") == {}


def test_leaks_and_duplicates_are_found_through_variants(folder):
    records = json.loads((folder / TRAINING).read_text())
    testing = json.loads((folder / TESTING).read_text())
    truth = (folder / TRUTH).read_text().split("\n")
    records[3] = {**records[3], "input": testing[0]["input"], "output": truth[0].replace("\t", "，") + "。"}
    (folder / TRAINING).write_text(json.dumps(records))
    loaded = dataset.load(str(folder), 30)
    assert ["train-4", "test-1"] in duplicates(TANG, loaded)
    assert "test-1" in leaks(TANG, loaded, "test")


def spoil_json(folder):
    text = (folder / TRAINING).read_text()
    place = text.index('"input"', 300)
    (folder / TRAINING).write_text(text[:place] + text[place + 1 :])
    return TRAINING, text[:place].count("\n") + 1


def spoil_field(folder):
    records = json.loads((folder / TRAINING).read_text())
    del records[2]["output"]
    (folder / TRAINING).write_text(json.dumps(records, indent=1))
    return TRAINING, 12


def spoil_truth_count(folder):
    with (folder / TRUTH).open("a") as stream:
        stream.write("\n一二三四五\t六七八九十")
    return TRUTH, 16


def spoil_truth_empty(folder):
    lines = (folder / TRUTH).read_text().split("\n")
    lines[4] = " "
    (folder / TRUTH).write_text("\n".join(lines))
    return TRUTH, 5


def spoil_utf8(folder):
    data = (folder / TRUTH).read_bytes().split(b"\n")
    data[2] = "春眠".encode("big5")
    (folder / TRUTH).write_bytes(b"\n".join(data))
    return TRUTH, 3


@pytest.mark.parametrize("spoil", [spoil_json, spoil_field, spoil_truth_count, spoil_truth_empty, spoil_utf8])
def test_a_spoilt_file_is_named_with_its_line(folder, spoil):
    name, line = spoil(folder)
    with pytest.raises(TangevalError) as error:
        dataset.load(str(folder), 30)
    assert f"{name}, line {line}" in str(error.value)


def test_a_missing_file_is_named(folder):
    (folder / TRUTH).unlink()
    with pytest.raises(TangevalError, match=f"{TRUTH} is missing"):
        dataset.load(str(folder), 30)


def test_windows_line_ends_and_a_byte_order_mark_change_nothing(folder):
    plain = dataset.load(str(folder), 30)
    for name in FILES:
        content = (folder / name).read_bytes().replace(b"\n", b"\r\n")
        (folder / name).write_bytes(b"\xef\xbb\xbf" + content)
    assert dataset.load(str(folder), 30).examples == plain.examples


def test_hw5_that_is_nowhere_says_how_to_get_it(monkeypatch, tmp_path):
    monkeypatch.setenv("TANGEVAL_DATA", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(TangevalError, match="tangeval data fetch"):
        dataset.load("hw5")
    shutil.copytree(SAMPLE, "GenAI-Hw5")  # as the homework's notebook clones it
    assert dataset.locate("hw5").resolve() == tmp_path / "GenAI-Hw5"


def test_too_large_a_validation_split_is_refused(folder):
    with pytest.raises(TangevalError, match=r"data\.validation"):
        dataset.load(str(folder), 10_000)


def test_no_validation_split_is_none_even_where_every_record_shares_a_clause(folder):
    records = json.loads((folder / TRAINING).read_text())
    (folder / TRAINING).write_text(json.dumps([records[0], records[0]]))
    loaded = dataset.load(str(folder), 0)
    assert (len(loaded.split("train")), len(loaded.split("validation"))) == (2, 0)
    with pytest.raises(TangevalError, match="only 0 records"):
        dataset.load(str(folder), 1)


@pytest.mark.parametrize("wrap", ["{}{}", "第1首：{}{}", "{}\t{}", "「{}{}」"])
def test_answers_that_hold_the_whole_poem_are_cut_and_told(folder, wrap):
    plain = dataset.load(str(folder), 30)
    for name, file in ((TRAINING, folder / TRAINING), (TESTING, folder / TRUTH)):
        records = json.loads((folder / name).read_text())
        if name == TRAINING:
            whole = [{**r, "output": wrap.format(r["input"], r["output"])} for r in records]
            file.write_text(json.dumps(whole))
        else:
            lines = zip(records, file.read_text().splitlines(), strict=True)
            file.write_text("\n".join(wrap.format(r["input"], line) for r, line in lines))
    with pytest.warns(UserWarning, match="the couplet before the poem") as told:
        found = dataset.load(str(folder), 30)
    assert [e.reference for e in found.examples] == [e.reference for e in plain.examples]
    assert [
        f"cut from {n} of {n} answers" in str(w.message) for n, w in zip((630, 15), told, strict=True)
    ] == [True] * 2
    assert found.digest != plain.digest


def test_digest_changes_with_the_files_and_the_split(folder):
    digests = {dataset.load(str(folder), 30).digest, dataset.load(str(folder), 29).digest}
    with (folder / TRUTH).open("a") as stream:
        stream.write("\n")
    assert len(digests | {dataset.load(str(folder), 30).digest}) == 3


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A repository on this disk in HW5's place, a commit after the one that is wanted."""
    source = tmp_path / "source"
    shutil.copytree(SAMPLE, source)
    git(source, "init", "-q")
    wanted = commit(source)
    monkeypatch.setattr(dataset, "REPOSITORY", source.as_uri())
    monkeypatch.setattr(dataset, "COMMIT", wanted)
    monkeypatch.setattr(dataset, "CONTENT", dataset._digest(SAMPLE))
    (source / TRUTH).write_text("edited since")
    commit(source)
    return source


def git(folder, *words):
    return subprocess.run(
        ["git", *words], cwd=folder, check=True, capture_output=True, text=True
    ).stdout.strip()


def commit(folder):
    git(folder, "add", "-A")
    git(folder, "-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "data")
    return git(folder, "rev-parse", "HEAD")


def test_fetch_takes_the_pinned_commit_once(repository, tmp_path):
    target = tmp_path / "data" / "GenAI-Hw5"
    assert dataset.fetch(target) == target
    assert dataset.load(str(target), 30).digest == dataset.load(str(SAMPLE), 30).digest
    shutil.rmtree(repository)
    assert dataset.fetch(target) == target
    with pytest.raises(TangevalError, match="TANGEVAL_DATA"):
        dataset.fetch(tmp_path / "other")


def test_fetch_refuses_files_that_are_not_the_pinned_ones(repository, tmp_path, monkeypatch):
    monkeypatch.setattr(dataset, "COMMIT", git(repository, "rev-parse", "HEAD"))
    with pytest.raises(TangevalError, match="other files than HW5's"):
        dataset.fetch(tmp_path / "data")
