"""What is built to be installed elsewhere: a wheel with every asset, a source archive with every test."""

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pydantic
import pytest

pytest.importorskip("build", reason="the package `build` is not installed")
ROOT = Path(__file__).parents[2]
#: What was made in a clone, and is no part of it; some of these are names of the package's own folders too.
MADE_AT_THE_TOP = {"build", "dist", "results", "checkpoints", "data"}
MADE = shutil.ignore_patterns(".[!cg]*", ".git", "__pycache__", "*.egg-info")


def made(folder: str, names: list[str]) -> set[str]:
    return MADE(folder, names) | (MADE_AT_THE_TOP & set(names) if Path(folder) == ROOT else set())


def files_under(folder: str) -> dict[str, int]:
    """Each file's size by its path from the project's root; links to folders are followed."""
    found = [
        Path(place) / name
        for place, _, names in os.walk(ROOT / folder, followlinks=True)
        for name in names
        if "__pycache__" not in place
    ]
    return {file.relative_to(ROOT).as_posix(): file.stat().st_size for file in found}


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The folder of a wheel, made of the source archive beside it, without the network."""
    clone, out = tmp_path_factory.mktemp("clone") / "tangeval", tmp_path_factory.mktemp("dist")
    shutil.copytree(ROOT, clone, symlinks=True, ignore=made)
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(clone)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return out


@pytest.fixture(scope="module")
def wheel(built):
    """Each file of the wheel and its size, without what describes the wheel itself."""
    (file,) = built.glob("*.whl")
    with zipfile.ZipFile(file) as archive:
        return {i.filename: i.file_size for i in archive.infolist() if ".dist-info/" not in i.filename}


@pytest.fixture(scope="module")
def source(built):
    """Each file of the source archive and its size, by its path from the project's root."""
    (file,) = built.glob("*.tar.gz")
    with tarfile.open(file) as archive:
        return {m.name.split("/", 1)[1]: m.size for m in archive.getmembers() if m.isfile()}


def test_the_wheel_holds_tangeval_alone_with_finetune_in_it(wheel):
    """PyPI has another package of the name ``finetune``."""
    finetune = {f"tangeval/{name}": size for name, size in files_under("finetune").items()}
    assert wheel == files_under("tangeval") | finetune


@pytest.mark.parametrize(
    "file",
    [
        "tangeval/py.typed",
        "tangeval/assets/tang-mini/model.safetensors",
        "tangeval/assets/sample/Tang_training_data.json",
        "tangeval/assets/prosody/pingshui.tsv",
        "tangeval/assets/tang/facing.npz",
        "tangeval/assets/judge/prompt.yaml",
        "tangeval/reporting/page/static/template.html",
        "tangeval/reporting/page/static/vendor/echarts.min.js",
        "tangeval/assets/studies/quickstart.yaml",
        "tangeval/finetune/configs/demo.yaml",
    ],
)
def test_the_wheel_holds_what_its_commands_open(wheel, file):
    assert wheel[file] > 0 or file.endswith("py.typed")


@pytest.mark.parametrize(
    "folder", ["tangeval", "finetune", "scripts", "studies", "tests", "docs", "benchmarks", ".ci"]
)
def test_the_source_archive_holds_what_it_takes_to_go_on(source, folder):
    files = files_under(folder)
    assert files
    assert files.items() <= source.items()


CONSUMER = """
from pathlib import Path

from tangeval.core.knobs import Setting
from tangeval.core.libraries import needs
from tangeval.core.study import load_study

settings: tuple[Setting, ...] = load_study(Path("study.yaml")).decoding.settings()
with needs("this"):
    first: float = settings[0].values[0]
"""
#: The types of large libraries have no part in it, and take a minute to read.
MYPY = """
[mypy]
strict = true
[mypy-torch.*,transformers.*,peft.*,datasets.*,pandas.*,scipy.*,matplotlib.*,huggingface_hub.*]
follow_imports = skip
"""


@pytest.fixture(scope="module")
def installed(built, tmp_path_factory):
    """The interpreter of an environment that has the wheel, and the libraries of this one."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, symlinks=True)
    site = sysconfig.get_path("purelib", "venv", {"base": str(folder), "platbase": str(folder)})
    (file,) = built.glob("*.whl")
    with zipfile.ZipFile(file) as archive:
        archive.extractall(site)
    (Path(site) / "libraries.pth").write_text(str(Path(pydantic.__file__).parents[1]))
    return folder / "bin" / "python"


@pytest.mark.parametrize(
    ("more", "error"),
    [
        ("", None),
        ("load_study(3)", 'Argument 1 to "load_study" has incompatible type "int"; expected "Path | str"'),
        ('Setting.of("0.7")', 'Too many arguments for "of" of "Setting"'),
    ],
)
def test_code_that_uses_the_installed_package_is_checked_against_its_types(installed, tmp_path, more, error):
    pytest.importorskip("mypy")
    (tmp_path / "use.py").write_text(CONSUMER + more, "utf-8")
    (tmp_path / "mypy.ini").write_text(MYPY, "utf-8")
    command = [sys.executable, "-m", "mypy", "--python-executable", str(installed)]
    command += ["--cache-dir", str(installed.parent / "mypy"), "use.py"]
    clean = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "MYPYPATH")}
    done = subprocess.run(command, cwd=tmp_path, env=clean, capture_output=True, text=True)
    assert (error in done.stdout) if error else (done.returncode == 0), done.stdout + done.stderr
