"""Results at a URL: what is there is gone on from, what is new is sent, and one run works at a time."""

import json
import signal
import time

import fsspec
import pytest

from tangeval.core.errors import TangevalError
from tangeval.results import remote as mirror
from tangeval.results.files import exclusive_lock
from tests.results.test_faults import batch_files, tangeval
from tests.support.tiny import SMALL_STUDY


@pytest.fixture(autouse=True)
def quick(tmp_path, monkeypatch):
    monkeypatch.setenv("TANGEVAL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(mirror, "_EVERY", 0.05)


@pytest.fixture(params=["memory", "file"])
def url(request, tmp_path):
    """A store that puts files whole, and one that renames."""
    if request.param == "file":
        return f"file://{tmp_path}/shared/results"
    return f"memory://{tmp_path.name}/results"


def stored(url: str) -> dict[str, bytes]:
    fs, root = fsspec.core.url_to_fs(url)
    there = (
        name for name in fs.find(root) if not name.endswith("/.lock")
    )  # a folder's own, while a run is there
    return {name.removeprefix(f"{root}/"): fs.cat_file(name) for name in there}


def test_a_run_ends_in_the_same_files_as_in_a_folder_and_goes_on_from_them(
    url, tiny_model, tiny_run, tmp_path
):
    study = tmp_path / "tiny.yaml"
    study.write_text(SMALL_STUDY.format(base=tiny_model, run=tiny_run) + "batch_size: 60\n")
    assert tangeval("generate", study, "--out", tmp_path / "folder")[0] == 0
    code, told = tangeval("generate", study, "--out", url)
    assert code == 0, told
    there = stored(url)
    assert {n: c for n, c in there.items() if n.startswith("generations/")} == {
        f"generations/{name}": content for name, content in batch_files(tmp_path / "folder").items()
    }
    files = [file for file in (tmp_path / "folder").rglob("*") if file.is_file()]
    assert there.keys() == {file.relative_to(tmp_path / "folder").as_posix() for file in files}
    fs, root = fsspec.core.url_to_fs(url)
    fs.rm_file(f"{root}/{min(n for n in there if n.startswith('generations/'))}")
    code, told = tangeval("run", study, "samples=2", "--out", url, "--dry-run")
    assert "batches of up to" in told
    code, told = tangeval("generate", study, "--out", url)
    assert "in 1 batches" in told, told
    assert {n: c for n, c in stored(url).items() if n != "timings.jsonl"} == {
        n: c for n, c in there.items() if n != "timings.jsonl"
    }


def test_what_is_new_is_sent_while_the_run_goes_on_and_what_is_gone_removed(url):
    with mirror.at(url) as folder:
        (folder / "generations").mkdir()
        (folder / "generations" / "a.parquet").write_bytes(b"1")
        (folder / ".draft.unfinished").write_bytes(b"1")
        until = time.monotonic() + 5
        while "generations/a.parquet" not in stored(url) and time.monotonic() < until:
            time.sleep(0.02)
        assert stored(url).keys() == {"generations/a.parquet", ".lease.json"}
        (folder / "generations" / "a.parquet").unlink()
        (folder / "b").write_bytes(b"2")
    assert stored(url) == {"b": b"2"}
    with mirror.at(url) as folder:
        assert (folder / "b").read_bytes() == b"2"


def lease(url: str, seconds: float) -> None:
    fs, root = fsspec.core.url_to_fs(url)
    fs.makedirs(root, exist_ok=True)
    fs.pipe_file(
        f"{root}/.lease.json", json.dumps({"owner": "another", "until": time.time() + seconds}).encode()
    )


def test_a_second_run_is_refused_until_the_lease_of_the_first_ends(url):
    lease(url, 30)
    with pytest.raises(TangevalError, match=r"another run is at work there \(another\).*its lease ends in \d+ s"), \
            mirror.at(url):  # fmt: skip
        pass
    lease(url, -1)
    with mirror.at(url):
        pass
    assert stored(url) == {}


@pytest.mark.parametrize(
    ("deaf", "hears"), [(signal.SIGTERM, signal.SIGINT), (signal.SIGINT, signal.SIGTERM)]
)
def test_a_run_that_loses_its_lease_is_ended_and_writes_no_more(url, deaf, hears):
    def work():
        with mirror.at(url) as folder:
            lease(url, 30)
            (folder / "late").write_bytes(b"1")
            for _ in range(200):  # a sleep is not interrupted from another thread
                time.sleep(0.05)
            pytest.fail("nothing ended the run")

    before = {
        deaf: signal.signal(deaf, signal.SIG_IGN), hears: signal.signal(hears, signal.default_int_handler)
    }  # fmt: skip
    try:
        with pytest.raises(TangevalError, match="the lease is not this run's any more, but another's"):
            work()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert stored(url).keys() == {".lease.json"}


def test_a_url_of_an_unknown_kind_is_said():
    with pytest.raises(TangevalError, match=r"--out nothing://x: .*nothing"), mirror.at("nothing://x"):
        pass


def test_what_was_made_in_the_copy_is_kept_and_sent_and_a_look_changes_nothing(url):
    with mirror.at(url) as folder:
        (folder / "a").write_bytes(b"1")
    (folder / "judge.jsonl").write_bytes(b"paid for")
    (folder / "a").write_bytes(b"two")
    with mirror.copied(url) as copy:
        assert (copy / "judge.jsonl").read_bytes() == b"paid for"
    assert stored(url) == {"a": b"1"}
    with mirror.at(url):
        pass
    assert stored(url) == {"a": b"two", "judge.jsonl": b"paid for"}


def test_what_another_machine_made_or_removed_is_taken_over(url):
    with mirror.at(url) as folder:
        (folder / "a").write_bytes(b"1")
        (folder / "b").write_bytes(b"1")
    fs, root = fsspec.core.url_to_fs(url)
    fs.pipe_file(f"{root}/a", b"newer")
    fs.rm_file(f"{root}/b")
    with mirror.at(url) as folder:
        assert (folder / "a").read_bytes() == b"newer"
        assert not (folder / "b").exists()
    assert stored(url) == {"a": b"newer"}


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b'{"owner": 1, "until": 2}'])
def test_a_damaged_lease_is_named(url, content):
    fs, root = fsspec.core.url_to_fs(url)
    fs.makedirs(root, exist_ok=True)
    fs.pipe_file(f"{root}/.lease.json", content)
    with pytest.raises(TangevalError, match=r"\.lease\.json there is no lease; .* delete it"), mirror.at(url):
        pass


def test_a_long_put_outlasts_no_lease(url, monkeypatch):
    monkeypatch.setattr(mirror, "_TERM", 0.5)
    put = mirror._Mirror._put

    def slow(self, path, content):
        time.sleep(1.5 if path.endswith("/large") else 0)
        put(self, path, content)

    monkeypatch.setattr(mirror._Mirror, "_put", slow)
    with mirror.at(url) as folder:
        (folder / "large").write_bytes(b"1")
        until = time.monotonic() + 1.2
        while time.monotonic() < until:
            lease = stored(url).get(".lease.json")
            assert (
                lease is None or json.loads(lease)["until"] > time.time()
            )  # None: between a removal and a rename
            time.sleep(0.1)
    assert stored(url) == {"large": b"1"}


def test_a_folder_is_not_shared_by_path_and_url(tmp_path):
    with exclusive_lock(tmp_path / "shared"), pytest.raises(TangevalError, match="another run is at work there"), \
            mirror.at(f"file://{tmp_path}/shared"):  # fmt: skip
        pass


@pytest.mark.parametrize("command", ["summarize", "report", "select"])
def test_a_url_where_a_folder_is_meant_is_refused(url, command):
    code, told = tangeval(command, url)
    assert code
    assert "take a URL" in told
