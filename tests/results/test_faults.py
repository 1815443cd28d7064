"""What goes wrong from outside: damaged files, other runs, full disks, signals, checkpoints that cannot be used."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tangeval import generation
from tangeval.analysis import scoring as score
from tangeval.core.errors import TangevalError
from tangeval.core.study import load_study
from tangeval.resolve import resolve
from tangeval.results.files import exclusive_lock, write_text
from tangeval.results.folder import RunFolder
from tests.support import command
from tests.support.study import write_study
from tests.support.tiny import make_adapter, make_tiny_model


@pytest.fixture
def study(tiny_model, tiny_run, tmp_path):
    shutil.copytree(tiny_run, tmp_path / "run")
    return write_study(tmp_path, tiny_model, tmp_path / "run", batch_size=60)


@pytest.fixture
def made(study, tmp_path):
    """A whole results folder of the study."""
    decode(study, tmp_path / "results")
    return tmp_path / "results"


def decode(study: Path, folder: Path, **options) -> tuple:
    return generation.decode(resolve(load_study(study)), folder, **options)


def batch_files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((folder / "generations").iterdir())}


def tangeval(*arguments: object) -> tuple[int, str]:
    """The command line's exit code, and all it printed."""
    done = command.tangeval(Path.cwd(), *arguments)
    return done.code, done.raw + done.err


# Files


@pytest.mark.parametrize("damage", ["cut short", "altered", "emptied"])
def test_a_damaged_shard_is_noticed_and_made_again(study, made, damage):
    before = batch_files(made)
    batch_file = sorted((made / "generations").glob("*.parquet"))[1]
    data = bytearray(batch_file.read_bytes())
    data[len(data) // 2] ^= 1
    batch_file.write_bytes({"cut short": data[:-9], "altered": bytes(data), "emptied": b""}[damage])
    assert RunFolder(made).damaged() == [batch_file]
    with pytest.raises(TangevalError, match="not as they were written"):
        score.read_generations(load_study(study), made)
    with pytest.warns(UserWarning, match="1 batch files of generations were cut short or altered"):
        decode(study, made)
    assert batch_files(made) == before


def test_the_checksums_are_those_of_sha256sum(made):
    check = subprocess.run(
        ["sha256sum", "-c", "generations.sha256"], cwd=made, capture_output=True, check=True
    )
    assert (
        check.stdout.count(b": OK") == len(list((made / "generations").glob("*.parquet"))) + 1
    )  # likelihoods


def test_checksums_of_shards_that_are_gone_are_dropped(study, made):
    study.write_text(
        study.read_text().replace("[0.4, 1.0]", "[0.4, 1.3]").replace("samples: 2", "samples: 1")
    )
    shutil.rmtree(made / "generations")
    decode(study, made)
    command = ["sha256sum", "-c", "generations.sha256"]
    assert subprocess.run(command, cwd=made, capture_output=True, check=False).returncode == 0


def test_a_shard_that_was_killed_before_its_checksum_is_made_again(study, made):
    before = batch_files(made)
    sums = RunFolder(made).checksums
    write_text(sums, "".join(sums.read_text().splitlines(keepends=True)[1:]))
    with pytest.warns(UserWarning, match="1 batch files"):
        decode(study, made)
    assert batch_files(made) == before


def test_a_folder_of_an_earlier_version_has_no_checksums_and_gets_them(study, made):
    before = batch_files(made)
    sums = RunFolder(made).checksums
    expected = sums.read_text()
    sums.unlink()
    assert RunFolder(made).damaged() == []
    min((made / "generations").glob("*.parquet")).unlink()
    decode(study, made)
    assert batch_files(made) == before
    assert sums.read_text() == expected


# Other runs


def test_a_second_run_on_a_folder_is_refused_and_names_the_first(study, tmp_path):
    folder = tmp_path / "results"
    with exclusive_lock(folder):
        code, told = tangeval("run", study, "--out", folder)
    assert code != 0
    assert f"process {os.getpid()}" in told
    assert "another run is at work" in told
    with exclusive_lock(folder):
        pass  # the first is gone


@pytest.mark.parametrize("command", [["summarize"], ["select", "--assume-unseen"]])
def test_no_command_changes_a_folder_under_another(study, made, command):
    assert tangeval("summarize", made)[0] == 0
    with exclusive_lock(made):
        code, told = tangeval(command[0], made, *command[1:])
    assert code != 0
    assert "another run is at work" in told


def test_the_lock_goes_with_its_process(tmp_path):
    code = f"import os; from tangeval.results.files import exclusive_lock; from pathlib import Path\n" \
           f"with exclusive_lock(Path({str(tmp_path)!r})): os.kill(os.getpid(), 9)"  # fmt: skip
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -signal.SIGKILL
    with exclusive_lock(tmp_path):
        pass


# Disks


def test_a_full_disk_is_said_and_leaves_nothing_half_written(study, made, tmp_path, monkeypatch):
    before = batch_files(made)
    for batch_file in (made / "generations").glob("*.parquet"):
        batch_file.unlink()
    calls = []

    def full(descriptor):
        calls.append(descriptor)
        if len(calls) > 9:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(TangevalError, match=r"cannot be written \(No space left on device\).*make room"):
            decode(study, made)
    assert not list(made.rglob("*.unfinished"))
    assert 0 < len(list((made / "generations").glob("*.parquet"))) < len(before)
    decode(study, made)
    assert batch_files(made) == before


@pytest.fixture
def small_disk(tmp_path):
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", folder], check=False, capture_output=True
    )  # fmt: skip
    if mounted.returncode:
        pytest.skip("mounting a tmpfs wants root")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_small_disk_runs_full_and_a_larger_one_goes_on(study, made, small_disk):
    before = batch_files(made)
    with pytest.raises(TangevalError, match="No space left on device"):
        decode(study, small_disk)
    assert not list(small_disk.rglob("*.unfinished"))
    subprocess.run(["mount", "-o", "remount,size=8m", small_disk], check=True)
    decode(study, small_disk)
    assert batch_files(small_disk) == before


def test_a_folder_that_cannot_be_written_is_said(study, made, small_disk):
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    code, told = tangeval("run", study, "--out", small_disk / "results")
    assert code != 0
    assert "cannot be written (Read-only file system)" in told
    subprocess.run(["mount", "-o", "remount,rw", small_disk], check=True)


# Signals


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_a_run_which_then_goes_on(study, made, tmp_path, number):
    folder = tmp_path / "stopped"
    code = "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler)\n" \
           "from tangeval.cli.app import main; main()"  # fmt: skip
    process = subprocess.Popen(
        [sys.executable, "-c", code, "run", str(study), "--out", str(folder)],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    while not list(folder.glob("generations/*.parquet")) and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(number)
    began = time.monotonic()
    told = process.communicate(timeout=30)[1]
    assert time.monotonic() - began < 10
    if process.returncode == 0:
        pytest.skip("the run was faster than the signal")
    assert process.returncode == 130
    assert "the same command goes on from here" in told
    decode(study, folder)
    assert batch_files(folder) == batch_files(made)


# Checkpoints that cannot be used


def spoil(save: Path) -> None:
    """Make an adapter's weights NaN."""
    weights = load_file(save / "adapter_model.safetensors")
    save_file(
        {n: torch.full_like(w, torch.nan) for n, w in weights.items()}, save / "adapter_model.safetensors"
    )


def test_weights_that_are_not_numbers_are_named(study, tmp_path):
    spoil(tmp_path / "run" / "checkpoint-10")
    with pytest.raises(TangevalError, match=r"checkpoint-10: its logits are not numbers.*--keep-going"):
        decode(study, tmp_path / "results")


def flipped(save: Path, old: bytes, new: bytes) -> None:
    """Change the header of an adapter's weights so that the file is as long as it says and is still damaged."""
    file = save / "adapter_model.safetensors"
    data = file.read_bytes()
    assert old in data
    assert len(old) == len(new)
    file.write_bytes(data.replace(old, new, 1))


def make_foreign(save: Path) -> None:
    other = make_adapter(
        make_tiny_model(save.parent.parent / "other", layers=1), save.parent.parent / "foreign"
    )
    shutil.copy(other / "adapter_model.safetensors", save)


def make_half_fitting(save: Path) -> None:
    """peft loads what fits, of more modules than the other checkpoint has, before it says that something does not."""
    model = Path(json.loads((save / "adapter_config.json").read_text())["base_model_name_or_path"])
    make_adapter(model, save, modules=("q_proj", "v_proj", "down_proj", "o_proj", "up_proj"))
    weights = load_file(save / "adapter_model.safetensors")
    name = next(name for name in weights if "layers.1.self_attn.v_proj.lora_A" in name)
    save_file(weights | {name: torch.zeros(3, 3)}, save / "adapter_model.safetensors")


DAMAGES = {
    "NaN": spoil,
    "another base's": make_foreign,
    "a type that is none": lambda save: flipped(save, b'"F32"', b'"F33"'),
    "another shape": lambda save: flipped(save, b'"shape":[8,', b'"shape":[9,'),
    "another name": lambda save: flipped(save, b"lora_A", b"lora_Q"),
    "half of it fits": make_half_fitting,
    "cut short": lambda save: os.truncate(save / "adapter_model.safetensors", 900),
    "no header": lambda save: (save / "adapter_model.safetensors").write_bytes(bytes(900)),
    "a foreign configuration": lambda save: (save / "adapter_config.json").write_text(
        '{"peft_type": "WHAT"}'
    ),
}


@pytest.mark.parametrize("damage", ["a type that is none", "another shape", "another name"])
def test_a_damaged_header_is_named_with_its_checkpoint(study, tmp_path, damage):
    DAMAGES[damage](tmp_path / "run" / "checkpoint-10")
    with pytest.raises(TangevalError, match=r"checkpoint-10: .*adapter.*--keep-going"):
        decode(study, tmp_path / "results")


@pytest.mark.parametrize("damage", ["missing", "damaged"])
def test_a_base_model_without_its_tokenizer_is_one_message(study, tiny_model, tmp_path, damage):
    model = shutil.copytree(tiny_model, tmp_path / "model")
    if damage == "missing":
        (model / "tokenizer.json").unlink()
    else:
        (model / "tokenizer.json").write_text('{"model": ')
    study.write_text(study.read_text().replace(str(tiny_model), str(model)))
    code, told = tangeval("run", study, "--out", tmp_path / "results", "--keep-going")
    assert code != 0
    assert f"base_model: {model} cannot be loaded" in told
    assert "its tokenizer, whole" in told


def test_a_base_model_with_damaged_weights_is_one_message(study, tiny_model, tmp_path):
    model = shutil.copytree(tiny_model, tmp_path / "model")
    data = (model / "model.safetensors").read_bytes()
    (model / "model.safetensors").write_bytes(data.replace(b'"F32"', b'"F33"', 1))
    study.write_text(study.read_text().replace(str(tiny_model), str(model)))
    with pytest.raises(TangevalError, match=r"base_model: .* cannot be loaded"):
        decode(study, tmp_path / "results")


@pytest.mark.parametrize("fault", DAMAGES)
def test_keep_going_leaves_out_what_cannot_be_used(study, tmp_path, made, fault):
    DAMAGES[fault](tmp_path / "run" / "checkpoint-10")
    folder = tmp_path / "going"
    code, told = tangeval("run", study, "--out", folder, "--keep-going")
    assert code == 0, told
    assert "left out" in told
    manifest = json.loads((folder / "manifest.json").read_text("utf-8"))
    assert [c["name"] for c in manifest["checkpoints"]] == ["base", "checkpoint-20"]
    assert "checkpoint-10" in manifest["left_out"][0]["path"]
    whole, left = batch_files(made), batch_files(folder)
    assert left
    assert all(left[name] == whole[name] for name in left)
    assert (folder / "summary.csv").is_file()


def test_if_none_can_be_used_that_is_an_error(study, tmp_path):
    for save in (tmp_path / "run").glob("checkpoint-*"):
        spoil(save)
    study.write_text(study.read_text() + "include_base: false\n")
    with pytest.raises(TangevalError, match="none can be used"):
        decode(study, tmp_path / "results", keep_going=True)


# Hostile studies


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: &a [x, x]\nb: &b [*a, *a]\nname: *b\n", "aliases"),
        ("name: !!python/object/apply:os.system [true]\n", "not a readable YAML file"),
        ("name: " + "[" * 5000, "not a readable YAML file"),
        ("name: " + "x" * 2**21, "larger than 1 MiB"),
        ("name: ../climb\n", "name"),
        ("name: \u0000\n", "not a readable YAML file"),
    ],
)
def test_a_hostile_study_is_refused(tmp_path, text, expected):
    file = tmp_path / "study.yaml"
    file.write_text(text)
    with pytest.raises(TangevalError, match=expected):
        load_study(file)
