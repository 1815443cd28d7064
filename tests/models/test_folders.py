"""Folders as trainers, merges and downloads leave them: what is taken of each, what is left out, and what is said."""

import errno
import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from tangeval.core.errors import TangevalError
from tangeval.models import folders
from tangeval.models.checkpoints import discover, discover_runs, resolve_base

ADAPTER = ("adapter_config.json", "adapter_model.safetensors")


@pytest.fixture
def run(tiny_run, tmp_path):
    """A Trainer's folder with checkpoint-10 and checkpoint-20; tests change it."""
    return shutil.copytree(tiny_run, tmp_path / "exp1")


def final_of_the_last(run, model):
    for name in ADAPTER:
        shutil.copy(run / "checkpoint-20" / name, run)


def final_of_its_own(run, model):
    final_of_the_last(run, model)
    weights = load_file(run / ADAPTER[1])
    save_file({name: tensor + 1 for name, tensor in weights.items()}, run / ADAPTER[1])


def final_alone(run, model):
    final_of_its_own(run, model)
    for step in (10, 20):
        shutil.rmtree(run / f"checkpoint-{step}")


def no_trainer_state(run, model):
    for step in (10, 20):
        (run / f"checkpoint-{step}" / "trainer_state.json").unlink()


def trainers_own_files(run, model):
    """What Trainer, axolotl and LLaMA-Factory leave beside weights."""
    for name in ("training_args.bin", "optimizer.pt", "scheduler.pt", "rng_state.pth", "README.md"):
        (run / "checkpoint-20" / name).write_bytes(b"x")
    for name in (
        "trainer_log.jsonl",
        "all_results.json",
        "training_loss.png",
        "tokenizer.json",
        "config.json",
    ):
        (run / name).write_bytes(b"{}")
    (run / "runs").mkdir()


def merged_beside(run, model):
    shutil.copytree(model, run / "merged")


def whole_models(run, model):
    for step in (10, 20):
        shutil.rmtree(run / f"checkpoint-{step}")
        shutil.copytree(model, run / f"checkpoint-{step}")


def whole_models_and_final(run, model):
    whole_models(run, model)
    for file in model.iterdir():
        shutil.copy(file, run)


def sharded(run, model):
    shutil.rmtree(run / "checkpoint-20")
    AutoModelForCausalLM.from_pretrained(model).save_pretrained(run / "checkpoint-20", max_shard_size="100KB")
    assert len(list((run / "checkpoint-20").glob("model-*.safetensors"))) > 1


def hub_links(run, model):
    """A snapshot of the hub's cache: every file is a link into blobs."""
    blobs = run.parent / "blobs"
    for place, file in enumerate((run / "checkpoint-20").iterdir()):
        blobs.mkdir(exist_ok=True)
        file.rename(blobs / str(place))
        file.symlink_to(Path("..", "..", "blobs", str(place)))


BOTH = ["checkpoint-10", "checkpoint-20"]
#: How a folder is left: what is taken of it, and what is left out, with a part of what is said.
TAKEN = [
    (final_of_the_last, BOTH, {"exp1": "its weights are those of checkpoint-20"}),
    (final_of_its_own, [*BOTH, "exp1"], {}),
    (final_alone, ["exp1"], {}),
    (no_trainer_state, BOTH, {}),
    (trainers_own_files, BOTH, {}),
    (merged_beside, BOTH, {"merged": "name it itself"}),
    (whole_models, BOTH, {}),
    (whole_models_and_final, BOTH, {"exp1": "its weights are those of checkpoint-20"}),
    (sharded, BOTH, {}),
    (hub_links, BOTH, {}),
]  # fmt: skip


@pytest.mark.parametrize(("leave", "names", "left_out"), TAKEN, ids=lambda v: getattr(v, "__name__", ""))
def test_what_can_be_taken_is_taken_and_the_rest_is_named(run, tiny_model, leave, names, left_out):
    leave(run, tiny_model)
    found, skipped = discover([str(run)])
    assert [c.name for c in found] == names
    assert {s.path.name for s in skipped} == left_out.keys()
    assert all(left_out[s.path.name] in s.reason for s in skipped)


def test_what_lies_beside_checkpoints_can_be_taken_alone(run, tiny_model):
    final_of_the_last(run, tiny_model)
    found, skipped = discover([str(run / ADAPTER[1])])
    assert ([c.name for c in found], skipped) == (["exp1"], ())


def test_the_last_of_a_recipes_run_is_what_was_saved_at_its_end(run, tiny_model):
    final_of_its_own(run, tiny_model)
    found, _ = discover_runs({"hw5": [str(run)]})
    assert [(c.name, c.run) for c in found] == [
        ("exp1/checkpoint-10", "exp1"), ("exp1/checkpoint-20", "exp1"), ("exp1", "exp1"),
    ]  # fmt: skip


def test_a_folder_is_named_however_it_is_written(run, monkeypatch):
    monkeypatch.chdir(run / "checkpoint-10")
    assert [c.name for c in discover(["."])[0]] == ["checkpoint-10"]


def other_names(run):
    for step in (10, 20):
        (run / f"checkpoint-{step}").rename(run / f"epoch_{step}")
    return run


def hub_cache(run):
    (run / "snapshots").mkdir()
    (run / "checkpoint-10").rename(run / "snapshots" / "abc")
    shutil.rmtree(run / "checkpoint-20")
    return run


def only(run, *names, config=True):
    """A checkpoint's configuration, and other files in the place of its weights."""
    save = run / "checkpoint-20"
    (save / ADAPTER[1]).unlink()
    if not config:
        (save / ADAPTER[0]).unlink()
    for name in names:
        (save / name).write_bytes(b"x")
    return save


def empty_adapter(run):
    save_file({}, run / "checkpoint-20" / ADAPTER[1])
    return run / "checkpoint-20"


def broken_link(run):
    file = run / "checkpoint-20" / ADAPTER[1]
    file.unlink()
    file.symlink_to("../../blobs/gone")
    return file.parent


REFUSED = {
    "other names": (other_names, "epoch_10, .*epoch_20: name those"),
    "hub cache": (hub_cache, "snapshots/abc: name those"),
    "DeepSpeed": (lambda run: only(run, "zero_to_fp32.py"), r"python zero_to_fp32\.py"),
    "GGUF": (lambda run: only(run, "x.gguf", config=False), "give it as base_model"),
    "torch's own": (lambda run: only(run, "model.pt", config=False), r"save_pretrained\(\) it"),
    "no weights": (lambda run: only(run), "missing or cut short"),
    "no tensors": (empty_adapter, "holds no tensors.*save the model there again"),
    "broken link": (broken_link, "a link to what is not there: download it again"),
    "nothing": (lambda run: run / "nowhere", "no folder"),
    "too long": (lambda run: run / ("x" * 300), "no folder"),
    "no name": (lambda run: f"{run}\0", "no folder"),
}  # fmt: skip


@pytest.mark.parametrize(("leave", "said"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_taken_says_what_is_there_and_what_to_do(run, leave, said):
    with pytest.raises(TangevalError, match=f"(?s)checkpoints: .*{said}"):
        discover([str(leave(run))])


def test_a_pickled_base_is_named_with_the_way_out(tiny_model, tmp_path):
    base = shutil.copytree(tiny_model, tmp_path / "base")
    torch.save(load_file(base / "model.safetensors"), base / "pytorch_model.bin")
    (base / "model.safetensors").unlink()
    with pytest.raises(
        TangevalError, match=r"pytorch_model\.bin is a pickle.*save_pretrained.*--allow-pickle"
    ):
        resolve_base(str(base))
    assert resolve_base(str(base), allow_pickle=True).name == "base"


@pytest.mark.parametrize("name", [*ADAPTER, "trainer_state.json"])
@pytest.mark.parametrize("code", [errno.EIO, errno.ESTALE, errno.EACCES])
def test_what_cannot_be_read_is_not_taken_for_incomplete(run, monkeypatch, name, code):
    opened = Path.open

    def fail(self, *arguments, **named):
        if self.name == name:
            raise OSError(code, os.strerror(code), str(self))
        return opened(self, *arguments, **named)

    monkeypatch.setattr(folders.Path, "open", fail)
    with pytest.raises(TangevalError, match=f"{name} cannot be read"):
        discover([str(run)])


def test_a_header_is_what_a_file_holds(run):
    file = run / "checkpoint-10" / ADAPTER[1]
    shapes = {name: entry["shape"] for name, entry in (folders.tensors(file) or {}).items()}
    assert shapes == {name: list(tensor.shape) for name, tensor in load_file(file).items()}
    assert json.loads((run / "checkpoint-10" / ADAPTER[0]).read_text()) == folders.read_object(
        file.parent / ADAPTER[0]
    )
