"""Results at a URL: what is there is gone on from, what is new is sent at batch boundaries, one run works at a time."""

import contextlib

import fsspec
import pytest

from tangeval.core.errors import TangevalError
from tangeval.results import remote
from tangeval.results.files import exclusive_lock
from tests.results.test_faults import batch_files, tangeval
from tests.support.study import write_study


@pytest.fixture
def url(tmp_path, monkeypatch):
    monkeypatch.setenv("TANGEVAL_CACHE", str(tmp_path / "cache"))
    return f"memory://{tmp_path.name}/results"


def stored(url: str) -> dict[str, bytes]:
    fs, root = fsspec.core.url_to_fs(url)
    return {name.removeprefix(f"{root}/"): fs.cat_file(name) for name in fs.find(root)}


def put(url: str, name: str, content: bytes) -> None:
    fs, root = fsspec.core.url_to_fs(url)
    fs.pipe_file(f"{root}/{name}", content)


def test_a_run_ends_in_the_same_files_as_in_a_folder_and_goes_on_from_them(
    url, tiny_model, tiny_run, tmp_path
):
    study = write_study(tmp_path, tiny_model, tiny_run, batch_size=60)
    assert tangeval("generate", study, "--out", tmp_path / "folder")[0] == 0
    code, said = tangeval("generate", study, "--out", url)
    assert code == 0, said
    there = stored(url)
    assert {n: c for n, c in there.items() if n.startswith("generations/")} == {
        f"generations/{name}": content for name, content in batch_files(tmp_path / "folder").items()
    }
    files = [file for file in (tmp_path / "folder").rglob("*") if file.is_file()]
    assert there.keys() == {file.relative_to(tmp_path / "folder").as_posix() for file in files}
    fs, root = fsspec.core.url_to_fs(url)
    fs.rm_file(f"{root}/{min(n for n in there if n.startswith('generations/'))}")
    assert "batches of up to" in tangeval("run", study, "samples=2", "--out", url, "--dry-run")[1]
    assert "in 1 batches" in tangeval("generate", study, "--out", url)[1]
    assert {n: c for n, c in stored(url).items() if n != "timings.jsonl"} == {
        n: c for n, c in there.items() if n != "timings.jsonl"
    }


def test_each_batch_is_sent_when_it_is_written(url, tiny_model, tiny_run, tmp_path, monkeypatch):
    sent = []
    push = remote._Remote.push
    monkeypatch.setattr(remote._Remote, "push", lambda self: push(self) or sent.append(len(stored(url))))
    study = write_study(tmp_path, tiny_model, tiny_run, batch_size=60)
    assert tangeval("generate", study, "--out", url)[0] == 0
    batches = sum(name.startswith("generations/") for name in stored(url))
    assert len(sent) > batches > 1
    assert sent == sorted(sent)


def test_what_is_new_is_sent_on_request_and_what_is_gone_removed(url):
    with remote.at(url) as (folder, send):
        (folder / "generations").mkdir()
        (folder / "generations" / "a.parquet").write_bytes(b"1")
        (folder / ".draft.unfinished").write_bytes(b"1")
        send()
        assert stored(url).keys() == {"generations/a.parquet", ".lock"}
        (folder / "generations" / "a.parquet").unlink()
        (folder / "b").write_bytes(b"2")
    assert stored(url) == {"b": b"2"}
    with remote.at(url) as (folder, _):
        (folder / "b").write_bytes(b"3")  # as long as before
    assert stored(url) == {"b": b"3"}


def test_a_second_run_is_refused_until_the_lock_of_the_first_is_broken(url):
    with remote.at(url) as (folder, send):
        assert remote.break_lock(url).startswith("process ")
        put(url, ".lock", b"another")
        (folder / "late").write_bytes(b"1")
        with pytest.raises(TangevalError, match=r"another run is at work there \(another\)"):
            send()
        put(url, ".lock", remote._Remote(url).owner.encode())
    put(url, ".lock", b"another")
    with pytest.raises(TangevalError, match=r"\(another\).*`tangeval unlock memory://.*` removes its lock"), \
            remote.at(url):  # fmt: skip
        pass
    assert stored(url) == {"late": b"1", ".lock": b"another"}
    assert remote.break_lock(url) == "another"
    assert remote.break_lock(url) == ""
    with remote.at(url):
        pass
    assert stored(url) == {"late": b"1"}


def test_what_cannot_be_sent_is_said_and_tried_again(url, monkeypatch):
    fs, _ = fsspec.core.url_to_fs(url)
    with remote.at(url) as (folder, send):
        (folder / "a").write_bytes(b"1")
        with monkeypatch.context() as broken:
            broken.setattr(type(fs), "put_file", lambda *_, **__: 1 / 0)
            with pytest.warns(
                UserWarning, match="cannot be read or written.*division.*or after the next batch"
            ):
                send()
        assert "a" not in stored(url)
        send()
        assert stored(url)["a"] == b"1"
    with contextlib.ExitStack() as run:
        folder, _ = run.enter_context(remote.at(url))
        (folder / "b").write_bytes(b"2")
        monkeypatch.setattr(type(fs), "put_file", lambda *_, **__: 1 / 0)
        with pytest.raises(TangevalError, match=r"what was made is in .* sent by the next run"):
            run.close()
    monkeypatch.undo()
    monkeypatch.setenv("TANGEVAL_CACHE", str(folder.parents[1]))
    with remote.at(url):
        pass
    assert stored(url) == {"a": b"1", "b": b"2"}


def test_a_url_of_an_unknown_kind_is_said():
    with pytest.raises(TangevalError, match=r"--out nothing://x: .*nothing"), remote.at("nothing://x"):
        pass


def test_what_was_made_in_the_copy_is_kept_and_sent_and_a_look_changes_nothing(url):
    with remote.at(url) as (folder, _):
        (folder / "a").write_bytes(b"1")
    (folder / "judge.jsonl").write_bytes(b"paid for")
    (folder / "a").write_bytes(b"two")
    with remote.copied(url) as copy:
        assert (copy / "judge.jsonl").read_bytes() == b"paid for"
    assert stored(url) == {"a": b"1"}
    with remote.at(url):
        pass
    assert stored(url) == {"a": b"two", "judge.jsonl": b"paid for"}


def test_what_another_machine_made_or_removed_is_taken_over(url):
    with remote.at(url) as (folder, _):
        (folder / "a").write_bytes(b"1")
        (folder / "b").write_bytes(b"1")
    put(url, "a", b"newer")
    fs, root = fsspec.core.url_to_fs(url)
    fs.rm_file(f"{root}/b")
    with remote.at(url) as (folder, _):
        assert (folder / "a").read_bytes() == b"newer"
        assert not (folder / "b").exists()
    assert stored(url) == {"a": b"newer"}


def test_a_file_url_is_a_path(tmp_path):
    with exclusive_lock(tmp_path / "shared"), pytest.raises(TangevalError, match="another run is at work there"), \
            remote.at(f"file://{tmp_path}/shared"):  # fmt: skip
        pass


@pytest.mark.parametrize("command", ["summarize", "report", "select"])
def test_a_url_where_a_folder_is_meant_is_refused(url, command):
    code, said = tangeval(command, url)
    assert code
    assert "take a URL" in said


# Copies are whole or not there


@pytest.mark.parametrize("way", ["get_file", "put_file"])
def test_a_copy_that_was_cut_off_takes_no_files_place(url, monkeypatch, way):
    with remote.at(url) as (folder, _):
        (folder / "judge.jsonl").write_bytes(b"paid for\n")
    fs, _ = fsspec.core.url_to_fs(url)
    original = getattr(type(fs), way)

    def half(self, source, target, **named):
        original(self, source, target, **named)
        with fs.open(target, "wb") if way == "put_file" else open(target, "wb") as stream:  # noqa: PTH123
            stream.write(b"pa")
        raise KeyboardInterrupt

    monkeypatch.setattr(type(fs), way, half)
    with pytest.raises(KeyboardInterrupt), remote.at(url) as (folder, send):  # noqa: PT012
        (folder / "judge.jsonl").write_bytes(b"paid for\nagain\n")
        send()
    monkeypatch.undo()
    monkeypatch.setenv("TANGEVAL_CACHE", str(folder.parents[1]))
    assert stored(url)["judge.jsonl"] == b"paid for\n"
    remote.break_lock(url)
    with remote.at(url) as (folder, _):
        assert (folder / "judge.jsonl").read_bytes().startswith(b"paid for\n")
    assert not [name for name in stored(url) if "unfinished" in name]


def test_what_is_smaller_than_at_the_url_takes_nothings_place_in_silence(url):
    with remote.at(url) as (folder, _):
        (folder / "judge.jsonl").write_bytes(b"paid for\n")
        (folder / "plan.json").write_bytes(b"{...}")
    (folder / "judge.jsonl").write_bytes(b"")
    (folder / "plan.json").write_bytes(b"{}")
    with (
        pytest.warns(UserWarning, match="judge.jsonl was not sent yet and is smaller .*moved aside") as said,
        remote.at(url),
    ):
        pass
    assert any("plan.json was not sent yet and is smaller" in str(each.message) for each in said)
    assert stored(url)["judge.jsonl"] == b"paid for\n"
    assert stored(url)["plan.json"] == b"{}"


@pytest.mark.parametrize("name", ["/elsewhere", "../elsewhere", "a//b", "a/./b"])
def test_a_key_that_leads_out_of_the_folder_is_refused_in_a_look_too(url, monkeypatch, name):
    fs, root = fsspec.core.url_to_fs(url)
    with remote.at(url):
        pass
    found = [f"{root}/{name}", f"{root}/a"]
    monkeypatch.setattr(type(fs), "find", lambda *_, **__: found)
    for look in (remote.at, remote.copied):
        with pytest.raises(TangevalError, match="leads out of"), look(url):
            pass


def test_what_others_put_at_the_url_meanwhile_stays(url):
    with remote.at(url) as (folder, send):
        (folder / "a").write_bytes(b"1")
        send()
        put(url, "b", b"theirs")
        put(url, "a", b"changed there, not here")
        send()
    assert stored(url) == {"a": b"changed there, not here", "b": b"theirs"}
