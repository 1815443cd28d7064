"""What grows is appended, batch files are hashed once, and lines cut short are skipped."""

import hashlib

import pandas as pd
import pytest

from tangeval.results.folder import RunFolder

FRAME = pd.DataFrame({"text": ["春眠不覺曉"]})


@pytest.fixture
def run(tmp_path) -> RunFolder:
    run = RunFolder(tmp_path)
    for number in range(20):
        run.write_batch_file(f"b{number:02}", FRAME, {})
        run.record("batches", f"b{number:02}", float(number))
    return run


def test_a_batch_file_adds_a_line_and_rewrites_nothing(run):
    """A file that is written anew is another one: its number on the disk changes."""
    grown = (run.checksums, run.timings_file)
    before = [(file.stat().st_ino, file.stat().st_size) for file in grown]
    run.write_batch_file("c", FRAME, {})
    run.record("batches", "c", 1.5)
    for file, (number, size) in zip(grown, before, strict=True):
        assert file.stat().st_ino == number
        assert size < file.stat().st_size < size + 120


def test_a_batch_file_is_hashed_once(run, monkeypatch):
    hashed = []
    original = hashlib.file_digest
    monkeypatch.setattr(
        hashlib, "file_digest", lambda file, name: hashed.append(file.name) or original(file, name)
    )
    for _ in range(3):  # scoring, choosing and the page each ask
        assert RunFolder(run.path).damaged() == []
    assert len(hashed) == 20
    run.batch_file("b03").write_bytes(b"altered")
    assert RunFolder(run.path).damaged() == [run.batch_file("b03")]


def test_checksums_are_of_the_files_that_are_there_in_the_order_of_their_names(run):
    run.write_batch_file("a", FRAME, {})
    run.batch_file("b07").unlink()
    run.tidy_checksums(run.batch_files())
    names = [line.partition("  ")[2] for line in run.checksums.read_text().splitlines()]
    assert names == [f"generations/{file.name}" for file in sorted(run.generations.iterdir())]


def test_the_last_of_a_name_holds_and_a_line_cut_short_is_skipped(run):
    run.record("batches", "b00", 7.0)
    run.record("fitted", "b00", 30)
    with run.timings_file.open("a") as file:
        file.write('{"kind": "batches", "name": "b01", "val')
    assert run.timings("fitted") == {"b00": 30}
    assert run.timings("batches") == {f"b{number:02}": float(number) for number in range(20)} | {"b00": 7.0}
