"""``seeds=1..5``: a run for each seed, in a process of its own."""

import json
import os
import sys
from pathlib import Path

import pytest
from rich.console import Console

from finetune import recipes, seeds, train
from finetune.config import load_config
from tangeval.cli.progress import SafeConsole
from tangeval.core.errors import TangevalError
from tangeval.models.checkpoints import resolve_base
from tests.finetune.test_finetune import finetune, one_cpu_thread, weights, write_config

__all__ = ["one_cpu_thread"]  # pytest finds the fixture here

#: Stands in for a run: says which GPU it is on, when it began and ended, and what memory it took.
RUN = """
import json, os, pathlib, sys, time
keys = dict(key.split("=", 1) for key in sys.argv[1:])
out = pathlib.Path(json.loads(keys["output_dir"]))
out.mkdir()
began = time.time()
time.sleep(1.5)
print("told by", keys["seed"])
sys.stdout.buffer.write("唐詩 ".encode() + b"\\xe5\\n" + b"x" * 100_000)
said = {"gpu": os.environ.get("CUDA_VISIBLE_DEVICES"), "began": began, "ended": time.time()}
(out / "said.json").write_text(json.dumps(said))
(out / "timings.json").write_text('{"peak_gib": 8.0}')
sys.exit(int(keys["seed"]) == 3)
"""


def made_up(config: Path, **changes: object) -> seeds.Config:
    return load_config(config, []).model_copy(update=changes)


@pytest.fixture
def config(tiny_model, tmp_path):
    return write_config(tiny_model, tmp_path)


@pytest.fixture
def gpus(tmp_path, monkeypatch):
    """A machine whose nvidia-smi tells of two GPUs; ``-i 1`` asks for the second alone."""
    smi = tmp_path / "bin" / "nvidia-smi"
    smi.parent.mkdir()
    smi.write_text('#!/bin/sh\ncase "$*" in *"-i 1") ;; *) echo "GPU-a, 30000";; esac\necho "GPU-b, 30000"\n')
    smi.chmod(0o755)
    monkeypatch.setenv("PATH", f"{smi.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def scheduled(config: Path, count: int) -> tuple[list[dict[str, object]], str]:
    """What stand-ins for seeds 10, 11 … said of themselves, and what was printed."""
    asked = made_up(config, seeds=tuple(range(10, 10 + count)))
    console = SafeConsole(record=True, width=100)
    seeds.train_seeds([sys.executable, "-c", RUN], asked, console)
    files = [Path(f"{asked.output_dir}-seed{seed}", "said.json") for seed in asked.seeds or ()]
    return [json.loads(file.read_text()) for file in files], console.export_text()


def test_each_is_the_run_of_its_seed_alone_and_one_that_fails_stops_no_other(config, tmp_path, capsys):
    (tmp_path / "out-seed1" / "checkpoint-5").mkdir(parents=True)  # of another run, for all that is known
    with pytest.raises(SystemExit) as stop:
        finetune(config, "seeds=1..2", "epochs=1")
    said = capsys.readouterr()
    assert stop.value.code == 2
    assert "seeds: failed: seed 1 (exit code 2)" in said.err
    assert "seed 2: checkpoint-6: validation loss" in said.out
    finetune(config, "seed=2", "epochs=1", f"output_dir={tmp_path / 'alone'}")
    assert weights(tmp_path / "out-seed2" / "checkpoint-6") == weights(tmp_path / "alone" / "checkpoint-6")


def test_a_seed_decides_the_first_adapter_and_the_order_of_the_poems(config, tmp_path, monkeypatch):
    seen: dict[int, list[tuple[int, ...]]] = {}

    def run(seed: int) -> None:
        collate = train.collate
        orders = seen[seed] = []
        with monkeypatch.context() as patch:
            patch.setattr(train, "collate", lambda rows, layout: (
                orders.extend(tuple(row["input_ids"]) for row in rows), collate(rows, layout))[1])  # fmt: skip
            finetune(config, f"seed={seed}", "epochs=1", f"output_dir={tmp_path / str(seed)}")

    run(1)
    run(2)
    assert seen[1] != seen[2]
    assert sorted(seen[1]) == sorted(seen[2])

    def first(seed: int) -> list[float]:
        asked = made_up(config, seed=seed)
        train.fix_seeds(seed)
        model = train.adapted(asked, resolve_base(asked.base_model))
        return next(p for name, p in model.named_parameters() if "lora_A" in name).flatten().tolist()

    assert first(1) == first(1) != first(2)


def test_a_seeds_folder_is_beside_the_one_named_whatever_its_name(config, tmp_path):
    for name in ("ck/exp #1", "ck/t/"):
        asked = made_up(config, seeds=(10, 11), output_dir=f"{tmp_path}/{name}")
        (tmp_path / "ck").mkdir(exist_ok=True)
        seeds.train_seeds([sys.executable, "-c", RUN], asked, SafeConsole(record=True, width=100))
    assert sorted(path.name for path in (tmp_path / "ck").iterdir()) == [
        "exp #1-seed10", "exp #1-seed11", "t-seed10", "t-seed11",
    ]  # fmt: skip


@pytest.mark.parametrize("seed", ["seed=-1", "seed=4294967296", "seeds=[-1]"])
def test_a_seed_that_no_generator_takes_is_refused_before_anything_is_written(config, tmp_path, capsys, seed):
    with pytest.raises(SystemExit):
        finetune(config, seed)
    assert f"error: {seed!r}: " in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_gpu_has_one_run_until_it_is_known_what_fits(config, gpus):
    """Peak 8 GiB: 29.3 GiB hold two with 3 GiB each to spare."""
    said, printed = scheduled(config, 6)
    assert {run["gpu"] for run in said} == {"GPU-a", "GPU-b"}
    first_end = min(run["ended"] for run in said[:2])
    assert all(run["began"] > first_end for run in said[2:])
    for gpu in ("GPU-a", "GPU-b"):
        here = [run for run in said if run["gpu"] == gpu]
        moments = [sum(other["began"] <= run["began"] < other["ended"] for other in here) for run in here]
        assert max(moments) == 2
    assert "seed 12: told by 12" in printed


def test_without_a_gpu_one_trains_after_another(config, monkeypatch):
    monkeypatch.setenv("PATH", "")
    said, _ = scheduled(config, 2)
    assert said[0]["ended"] < said[1]["began"]


def test_the_gpus_are_those_that_this_process_may_use(gpus, monkeypatch):
    assert seeds.free_memory() == {"GPU-a": 30000, "GPU-b": 30000}
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert seeds.free_memory() == {"GPU-b": 30000}


@pytest.mark.parametrize(("free", "peak", "runs"), [(80_000, 10, 5), (80_000, 0, 1), (8_000, 10, 1)])
def test_how_many_fit(free, peak, runs):
    assert seeds.at_once(free, peak) == runs


@pytest.mark.parametrize(
    ("given", "read"), [("1..3", (1, 2, 3)), ("[4, 2]", (4, 2)), ("7", (7,)), ("null", None)]
)
def test_seeds_are_read(config, given, read):
    assert load_config(config, [f"seeds={given}"]).seeds == read


@pytest.mark.parametrize(
    "given", [["seeds=[]"], ["seeds=3..1"], ["seeds=[1,1]"], ["seeds=1..2", "seed=3"], ["seeds=a..b"]]
)
def test_what_are_no_seeds_is_refused(config, given):
    with pytest.raises(TangevalError, match="seeds"):
        load_config(config, given)


def test_torchrun_and_recipes_do_not_take_seeds(config, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(TangevalError, match="leave torchrun out"):
        seeds.train_seeds([], made_up(config, seeds=(1, 2)), Console())
    with pytest.raises(TangevalError, match="seeds: each recipe"):
        recipes.variants(config, ["seeds=1..2", "records=16"])
