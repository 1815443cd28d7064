import os
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

# Models are tiny: a second thread costs more than it brings, and on a busy machine very much more.
os.environ["OMP_NUM_THREADS"] = "1"

from transformers import AutoModelForCausalLM, AutoTokenizer

from tangeval.core.errors import TangevalError
from tangeval.core.types import ASSETS
from tangeval.tasks.tang import data as dataset
from tests.support.chromium import NoBrowserError, launched
from tests.support.study import GRID, evaluate, write_study
from tests.support.tiny import make_adapter, make_tiny_model

#: Files that take minutes; begun last, one of them would keep a core busy while the other has nothing to do.
LONG = ("test_ray.py", "test_finetune.py", "test_extending.py", "test_generation.py", "test_openai.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path.name not in LONG)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, Any, Any]:
    """Run every test, its fixtures among it, as on a machine without a GPU, in float32; but for those marked ``gpu``."""
    with pytest.MonkeyPatch.context() as patch:
        if not item.get_closest_marker("gpu"):
            patch.setattr("torch.cuda.is_available", lambda: False)
            patch.setenv("CUDA_VISIBLE_DEVICES", "")  # for the processes that a test starts
        return (yield)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a random little base model."""
    return make_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="session")
def tiny_run(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Trainer's output folder with two whole checkpoints on ``tiny_model``."""
    folder = tmp_path_factory.mktemp("checkpoints") / "run"
    for step in (10, 20):
        save = make_adapter(tiny_model, folder / f"checkpoint-{step}", seed=step)
        (save / "trainer_state.json").write_text(f'{{"global_step": {step}}}')
    (folder / "train_ids.json").write_text('{"data": "x", "ids": [], "hashes": []}')
    return folder


@pytest.fixture(scope="session")
def model(tiny_model: Path) -> Any:
    """``tiny_model`` as transformers loads it; not to be changed."""
    return AutoModelForCausalLM.from_pretrained(tiny_model).eval()


@pytest.fixture(scope="session")
def tokenizer(tiny_model: Path) -> Any:
    return AutoTokenizer.from_pretrained(tiny_model)


@pytest.fixture
def grid_study(tiny_model: Path, tiny_run: Path, tmp_path: Path) -> Path:
    """The study of twenty-four settings."""
    return write_study(tmp_path, tiny_model, tiny_run, **GRID)


@pytest.fixture(scope="session")
def finished(tiny_model: Path, tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    """That study resolved, and its results folder; not to be changed."""
    folder = tmp_path_factory.mktemp("finished")
    return evaluate(write_study(folder, tiny_model, tiny_run, **GRID), folder / "out"), folder / "out"


@pytest.fixture(scope="session")
def hw5() -> dataset.Dataset:
    """HW5's real data; tests that use it are skipped where it is not found."""
    try:
        return dataset.load("hw5")
    except TangevalError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def mini_tokenizer() -> Any:
    """That of tang-mini."""
    return AutoTokenizer.from_pretrained(ASSETS / "tang-mini")


@pytest.fixture(scope="module")
def browser() -> Generator[Any, None, None]:
    """A Chromium; tests that use it are skipped where there is none."""
    try:
        with launched() as running:
            yield running
    except NoBrowserError as error:
        pytest.skip(str(error))
