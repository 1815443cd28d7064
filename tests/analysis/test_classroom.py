"""A class: scores as ``score`` has them, ties, equal texts, and broken files that stop no other."""

import random
import shutil
from pathlib import Path

import pytest

from tangeval.analysis import classroom, external
from tangeval.analysis.shared_texts import shared_texts
from tangeval.core.errors import TangevalError
from tangeval.tasks.tang import TANG, results_txt
from tangeval.tasks.tang import data as dataset
from tests.support.command import succeeds

SAMPLE = dataset.load("sample")
POEMS = SAMPLE.split("test")


@pytest.fixture(scope="module")
def handed(tmp_path_factory):
    """Twelve students: s0–s7 write other poems' endings, s8–s11 cut off; s11 handed in what s10 did, but a character."""
    folder, noise = tmp_path_factory.mktemp("class"), random.Random(0)
    pools = [sorted(set(TANG.baseline(SAMPLE, poem, 1, 40))) for poem in POEMS]
    for number in range(11):
        own = folder / f"s{number}"
        own.mkdir()
        texts = [noise.choice(pool) for pool in pools]
        texts = [text[:-3] for text in texts] if number > 7 else texts
        (own / "results.txt").write_text(results_txt(POEMS, texts), "utf-8")
    (folder / "s11").mkdir()
    lines = (folder / "s10" / "results.txt").read_text("utf-8").splitlines()
    lines[2] = f"{lines[2][:-1]}鶴"
    (folder / "s11" / "results.txt").write_text("\n".join(lines), "utf-8")
    return folder


def test_each_student_is_scored_as_score_scores_the_file(handed):
    found = classroom.score_class([handed], "sample")
    files = [handed / f"s{number}" / "results.txt" for number in range(12)]
    alone = external.score_files(files, "sample").table.set_index("checkpoint")
    assert sorted(found.table["student"]) == sorted(f"s{number}" for number in range(12))
    for row in found.table.to_dict("records"):
        own = alone.loc[f"{row['student']}/results.txt"]
        for column in (
            name + end for name in ("form", "chrf", "bleu", "rhyme") for end in ("", "_low", "_high")
        ):
            assert row[column] == pytest.approx(own[column], nan_ok=True)


def test_students_who_differ_in_nothing_are_ties_and_those_cut_off_come_behind(handed):
    table = classroom.score_class([handed], "sample").table.set_index("student")
    good, cut = [f"s{n}" for n in range(8)], [f"s{n}" for n in range(8, 12)]
    assert (table.loc[good, "form_rank_low"] == 1).all()
    assert (table.loc[good, "form_rank_high"] == 8).all()
    assert (table.loc[cut, ["form_rank_low", "form_rank_high"]] == (9, 12)).all(axis=None)
    assert list(table.index[:8]) == good


def test_files_that_name_no_poem_are_counted_on_the_terminal(handed, tmp_path):
    """Such as those of other poems than the data's."""
    students = shutil.copytree(handed, tmp_path / "students")
    named = succeeds(tmp_path, "class", "students", "--data", "sample").out
    assert "name no example" not in named
    endings = "\n".join(poem.reference for poem in POEMS)
    (students / "s3" / "results.txt").write_text(endings, "utf-8")
    assert "1 of 12 files name no example" in succeeds(tmp_path, "class", "students", "--data", "sample").out


def test_only_those_who_handed_in_the_same_are_named(handed):
    shared = classroom.score_class([handed], "sample").shared
    (pair,) = shared.to_dict("records")
    assert (pair["a"], pair["b"], pair["equal"], pair["near"]) == ("s10", "s11", len(POEMS) - 1, 1)
    assert pair["examples"] == list(range(len(POEMS)))


def test_the_poets_own_words_and_empty_ones_are_not_shared():
    references = ["春眠不覺曉", "處處聞啼鳥", "夜來風雨聲"]
    other = ["白日依山盡", "黃河入海流", "欲窮千里目"]
    assert shared_texts([references, references, ["", "", ""], ["", "", ""]], references).empty
    groups = shared_texts([other, references, other, other], references)
    assert [tuple(row) for row in groups[["a", "b", "group"]].to_numpy()] == [(0, 2, 1), (0, 3, 1), (2, 3, 1)]


def test_what_is_broken_is_named_by_file_and_line_and_stops_no_other(handed, tmp_path):
    shutil.copytree(handed, tmp_path / "c")
    (tmp_path / "c" / "empty").mkdir()
    (tmp_path / "c" / "packed" / "in").mkdir(parents=True)
    for name in ("result.txt", "in/hw5.zip", ".DS_Store"):
        (tmp_path / "c" / "packed" / name).touch()
    (tmp_path / "c" / "twice" / "a").mkdir(parents=True)
    (tmp_path / "c" / "twice" / "b").mkdir()
    for name in "ab":
        shutil.copy(handed / "s0" / "results.txt", tmp_path / "c" / "twice" / name)
    (tmp_path / "c" / "bytes.txt").write_bytes(b"\xff")
    (tmp_path / "c" / "record.json").write_text('[{"predict": 3}]', "utf-8")
    lines = (handed / "s0" / "results.txt").read_text("utf-8").splitlines()
    (tmp_path / "c" / "short.txt").write_text("\n".join(lines[:-1]), "utf-8")
    found = classroom.score_class([tmp_path / "c"], "sample")
    assert len(found.table) == 12
    problems = {each.student: each.problem for each in found.broken}
    assert sorted(problems) == ["bytes", "empty", "packed", "record", "short", "twice"]
    assert problems["bytes"].startswith("line 1: not UTF-8")
    assert problems["empty"] == "no results.json or results.txt in it; it is empty"
    assert problems["packed"].endswith("in it; there are hw5.zip, result.txt")
    assert problems["record"].startswith("record 1:")
    assert POEMS[-1].input in problems["short"]
    assert problems["twice"] == "2 files results.txt in it; leave one"


def test_a_class_of_broken_files_a_metric_that_is_no_mean_and_a_folder_that_is_not_there_are_refused(
    handed, tmp_path
):
    (tmp_path / "b.txt").write_bytes(b"\xff")
    with pytest.raises(
        TangevalError, match=r"none of 1 students' files can be read; .*b\.txt: line 1: not UTF-8"
    ):
        classroom.score_class([tmp_path / "b.txt"], "sample")
    with pytest.raises(
        TangevalError, match=r"--by bleu: no metric that is a mean over texts; there are .*form"
    ):
        classroom.score_class([handed], "sample", by="bleu")
    (tmp_path / "nobody").mkdir()
    with pytest.raises(
        TangevalError, match=r"nobody: no student's folder in it, and no file that ends in \.json"
    ):
        classroom.score_class([tmp_path / "nobody"], "sample")
    with pytest.raises(TangevalError, match="there is no such file or folder"):
        classroom.score_class([tmp_path / "absent"], "sample")


def test_students_are_called_as_their_folders_or_files(tmp_path):
    for name in (
        "b1/results.txt",
        "b2/out/results.json",
        "b2/out/results.txt",
        "b3.jsonl",
        "b4.txt",
        "b4.json",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x", "utf-8")
    (tmp_path / ".git").mkdir()
    found = {each.student: each.file for each in classroom.handed_in([tmp_path])}
    assert list(found) == ["b1", "b2", "b3", "b4.json", "b4.txt"]
    assert found["b2"] == tmp_path / "b2/out/results.json"
    assert [
        each.student for each in classroom.handed_in([tmp_path / "b1", tmp_path / "b2/out/results.txt"])
    ] == ["b1", "out"]


def test_the_folder_one_is_in_and_one_that_begins_with_a_line_are_taken(tmp_path, monkeypatch):
    for name in ("_b1", "b2", ".hidden"):
        (tmp_path / "class" / name).mkdir(parents=True)
        (tmp_path / "class" / name / "results.txt").write_text("x")
    monkeypatch.chdir(tmp_path / "class" / "b2")
    assert [each.student for each in classroom.handed_in([Path()])] == ["b2"]
    assert [each.student for each in classroom.handed_in([Path("..")])] == ["b2"]
    assert [each.student for each in classroom.handed_in([Path("../_b1")])] == ["_b1"]
