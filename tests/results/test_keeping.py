"""What took hours or money is never removed on suspicion: faults are injected, and nothing is gone afterwards."""

import errno
import json
import os
from pathlib import Path

import pandas as pd
import portalocker
import pytest

from tangeval import api
from tangeval.analysis import scoring as score
from tangeval.core.errors import TangevalError
from tangeval.core.keeping import below, listed
from tangeval.core.study import load_study
from tangeval.results.files import append_line, exclusive_lock, write_text
from tangeval.results.folder import RunFolder
from tangeval.results.plan import read_plan
from tests.results.test_faults import batch_files, decode, made, study, tangeval
from tests.support.faults import unreadable

__all__ = ["made", "study"]  # fixtures
UNREADABLE = (errno.EIO, errno.ESTALE, errno.EACCES)


def aside(folder: Path) -> list[str]:
    """The names of what was moved aside."""
    return sorted(file.name for file in folder.glob("quarantine/*/**/*") if file.suffix not in ("", ".txt"))


# Unreadable is not incomplete


@pytest.mark.parametrize("number", UNREADABLE)
@pytest.mark.parametrize(
    "name", ["generations", "generations.sha256", "plan.json", ".parquet", "likelihood.parquet"]
)
def test_results_that_cannot_be_read_stop_a_run_and_stay(study, made, monkeypatch, number, name):
    before = batch_files(made)
    with monkeypatch.context() as patch:
        unreadable(patch, f"results/{name}" if name[0] != "." else name, number)
        with pytest.raises(TangevalError, match="cannot be read now"):
            decode(study, made)
    assert batch_files(made) == before
    assert not (made / "quarantine").exists()


# Checksums and plan


@pytest.mark.parametrize(
    "damage", [lambda t: "SHA256 (x) = " + t, lambda t: t.replace("a", "z"), lambda t: "{}\n"]
)
def test_checksums_that_do_not_parse_are_an_error_and_are_made_anew(study, made, damage):
    before = batch_files(made)
    sums = RunFolder(made).checksums
    text = sums.read_text()
    write_text(sums, damage(text))
    with pytest.raises(TangevalError, match=f"line 1: no checksum; `tangeval repair {made}`"):
        decode(study, made)
    assert batch_files(made) == before
    assert tangeval("repair", made)[0] == 0
    assert sorted(sums.read_text().splitlines()) == sorted(text.splitlines())
    decode(study, made)
    assert batch_files(made) == before


def test_checksums_that_none_fits_are_suspected_rather_than_the_files(study, made):
    before = batch_files(made)
    sums = RunFolder(made).checksums
    write_text(sums, "".join(f"{64 * '0'}{line[64:]}\n" for line in sums.read_text().splitlines()))
    with pytest.raises(TangevalError, match=r"none of 3 batch files .*tangeval repair"):
        decode(study, made)
    api.repair(made)
    decode(study, made)
    assert batch_files(made) == before


def test_the_absence_of_checksums_is_said(study, made):
    before = batch_files(made)
    write_text(RunFolder(made).checksums, "")
    with pytest.warns(UserWarning, match="3 batch files have no checksum"):
        score.read_generations(load_study(study), made)
    with pytest.warns(UserWarning, match="3 batch files have no checksum"):
        decode(study, made)
    assert batch_files(made) == before


def test_a_file_of_another_tool_is_left_alone_and_named(study, made):
    strange = [made / "generations" / name for name in ("mine.parquet", "notes.txt")]
    for file in strange:
        file.write_bytes(b"mine")
    with pytest.warns(UserWarning, match="left alone, as not of this run: mine.parquet, notes.txt"):
        decode(study, made)
    assert [file.read_bytes() for file in strange] == [b"mine", b"mine"]


@pytest.mark.parametrize("damage", ["", "{", '{"schema": 3}', None])
def test_a_plan_is_made_anew_of_the_files_that_say_what_they_are(study, made, damage):
    before, plan = batch_files(made), read_plan(RunFolder(made))
    if damage is None:
        RunFolder(made).plan.unlink()
    else:
        write_text(RunFolder(made).plan, damage)
    for overwrite in ([], ["--overwrite"]):
        code, told = tangeval("generate", study, "--out", made, *overwrite)
        assert code
        assert f"`tangeval repair {made}` makes it anew" in told
    assert api.repair(made) == (3, [])
    key = lambda batch: batch.id  # noqa: E731
    assert sorted(read_plan(RunFolder(made)), key=key) == sorted(plan, key=key)
    decode(study, made)
    assert batch_files(made) == before


# Rows


@pytest.mark.parametrize("rows", ["half", "twice", "another's"])
def test_rows_are_held_to_the_record(study, made, rows):
    before = batch_files(made)
    first, second = sorted((made / "generations").glob("*.parquet"))[:2]
    frame = pd.read_parquet(first)
    wrong = {"half": frame[::2], "twice": pd.concat([frame, frame]), "another's": pd.read_parquet(second)}[
        rows
    ]
    wrong.to_parquet(first, index=False)
    RunFolder(made).tidy_checksums(RunFolder(made).batch_files(), anew=True)
    with pytest.raises(TangevalError, match=f"{first.name}: its rows are not those"):
        score.read_generations(load_study(study), made)
    with pytest.warns(UserWarning, match="1 batch files of generations hold other rows .*moved aside"):
        decode(study, made)
    assert batch_files(made) == before
    assert aside(made) == [first.name]


def test_likelihoods_have_a_checksum(study, made):
    file = RunFolder(made).likelihood_file
    before = file.read_bytes()
    pd.read_parquet(file).assign(reference_nll=1.0).to_parquet(file, index=False)
    with pytest.raises(TangevalError, match="not as it was written"):
        RunFolder(made).likelihood()
    with pytest.warns(UserWarning, match="likelihoods are not as they were written"):
        decode(study, made)
    assert file.read_bytes() == before
    assert aside(made) == ["likelihood.parquet"]


def test_what_is_stale_is_moved_aside_and_brought_back(study, made):
    before = batch_files(made)
    with pytest.warns(UserWarning, match="fit no longer"):
        decode(write_changed(study), made)
    assert not batch_files(made).keys() & before.keys()
    (place,) = listed(made / "quarantine")
    assert tangeval("repair", place)[0] == 0
    assert batch_files(made).items() >= before.items()
    with pytest.warns(UserWarning, match="fit no longer"):
        decode(study, made)
    assert batch_files(made) == before


def write_changed(study: Path) -> Path:
    changed = study.with_name("changed.yaml")
    changed.write_text(study.read_text("utf-8") + "seed: 7\n", "utf-8")
    return changed


# Links and names


@pytest.mark.parametrize("name", ["a//b", "../b", "/b", "a/../../b", "", "a\0b", "link/b", "./b"])
def test_a_name_stays_below_its_root(tmp_path, name):
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "link").symlink_to(tmp_path)
    with pytest.raises(TangevalError, match="leads out of"):
        below(tmp_path / "root", name)
    assert below(tmp_path / "root", "a/b") == tmp_path / "root" / "a" / "b"


@pytest.mark.parametrize("name", [".lock", "timings.jsonl", "generations.sha256", "generations", "figures"])
def test_no_link_is_followed_out_of_a_folder(tmp_path, name):
    victim = tmp_path / "victim"
    victim.write_text("mine")
    folder = tmp_path / "results"
    folder.mkdir()
    (folder / name).symlink_to(victim)
    with pytest.raises(TangevalError, match=r"leads out of|is a link"), exclusive_lock(folder):
        pass
    with pytest.raises(TangevalError, match="is a link"):
        append_line(folder / name, "line")
    assert victim.read_text() == "mine"


def test_drafts_have_names_that_cannot_be_foretold_and_are_new(tmp_path, monkeypatch):
    opened = []
    original = os.open
    monkeypatch.setattr(os, "open", lambda *given, **named: opened.append(given) or original(*given, **named))
    victim = tmp_path / "victim"
    victim.write_text("mine")
    (tmp_path / ".report.html.unfinished").symlink_to(victim)
    for _ in range(2):
        write_text(tmp_path / "report.html", "page")
    assert victim.read_text() == "mine"
    assert len({path for path, *_ in opened}) == len(opened) == 2
    assert all(flags & os.O_EXCL and flags & os.O_NOFOLLOW for _, flags, *_ in opened)


# Locks


def test_a_file_system_without_locks_is_named_and_no_lock_is_offered(study, tmp_path, monkeypatch):
    def none(*_):
        raise portalocker.LockException(OSError(errno.ENOLCK, os.strerror(errno.ENOLCK)))

    monkeypatch.setattr(portalocker, "lock", none)
    monkeypatch.setenv("TANGEVAL_NO_LOCK", "0")
    code, told = tangeval("generate", study, "--out", tmp_path / "results")
    assert code
    assert "gives no lock ([Errno 37] No locks available)" in told.replace("\n", " ")
    assert "--no-lock" in told
    assert "another run" not in told
    code, told = tangeval("generate", study, "--out", tmp_path / "results", "--no-lock")
    assert code == 0, told


def test_best_is_not_removed_with_what_others_put_there(study, made):
    assert tangeval("summarize", made)[0] == 0
    assert tangeval("select", made, "--assume-unseen")[0] == 0
    (made / "best" / "mine.txt").write_text("mine")
    assert tangeval("select", made, "--assume-unseen")[0] == 0
    assert (made / "best" / "mine.txt").read_text() == "mine"
    assert json.loads((made / "best" / "selection.json").read_text())["checkpoint"]


@pytest.mark.parametrize("command", ["run", "generate", "halving"])
def test_an_empty_out_is_refused(study, command):
    code, told = tangeval(command, study, "--out", "")
    assert code
    assert "--out is empty" in told
