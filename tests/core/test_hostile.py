"""What a stranger may hand over: files that explode, headers that lie, models with code, texts that steer a terminal.

Readers of hostile files run in a process of their own, which says how much memory it came to.
"""

import io
import json
import resource
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tangeval.cli.progress import SafeConsole, print_event
from tangeval.core.errors import TangevalError
from tangeval.core.types import Load
from tangeval.core.untrusted import LARGEST, MIB, inert, inert_json
from tangeval.models.checkpoints import discover, resolve_base, trained_on
from tangeval.models.folders import tensors
from tangeval.models.loading import load_model, load_tokenizer
from tangeval.results import files as store
from tangeval.results import plan
from tangeval.results.folder import RunFolder
from tangeval.results.plan import Batch, read_plan, write_plan
from tangeval.tasks.tang import data as dataset
from tangeval.tasks.tang import external_outputs
from tangeval.tasks.tang.data import SAMPLE, TESTING, TRAINING, TRUTH
from tests.support.command import succeeds

#: MiB that a reader may come to beside Python with the libraries; a file of 100 MB as Python's objects is 3 GB.
BOUND = 1024
READER = """
import resource, sys
from pathlib import Path
from tangeval.core import study
from tangeval.judge import asking
from tangeval.models import checkpoints as checkpoint
from tangeval.results import files as store
from tangeval.tasks.tang import data as dataset
from tangeval.tasks.tang import external_outputs as outputs
from tangeval.core.errors import TangevalError
examples = dataset.load("sample").split("test")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
place = Path(sys.argv[2])
try:
    print("taken:", type({
        "outputs": lambda: outputs.read(place, "outputs", examples),
        "data": lambda: dataset.load(str(place), 5),
        "study": lambda: study.load_study(place),
        "checkpoint": lambda: checkpoint.discover([str(place)]),
        "base": lambda: checkpoint.resolve_base(str(place)),
        "json": lambda: store.read_json(place),
        "parquet": lambda: store.read_parquet(place),
        "prompt": lambda: asking.load_prompt(asking.Prompt, place),
    }[sys.argv[1]]()).__name__)
except TangevalError as error:
    print("refused:", error)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""
ROOM = 6 * 2**30  # bytes of address space: a reader that breaks the bound fails, and the machine does not


def read(reader: str, place: Path) -> str:
    """What a reader says of a hostile file, in a process of its own that must stay small."""
    done = subprocess.run(
        [sys.executable, "-c", READER, reader, str(place)], capture_output=True, text=True, timeout=60, check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (ROOM, ROOM)),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-1500:]
    *told, grown = done.stdout.strip().split("\n")
    assert int(grown) < BOUND, f"{grown} MiB"
    return "\n".join(told)


def long(file: Path, begin: bytes, part: bytes, end: bytes = b"", size: int = 100 * 10**6) -> Path:
    """Write ``size`` bytes of ``part`` again and again."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("wb") as stream:
        stream.write(begin)
        block = part * (MIB // len(part))
        for _ in range(size // len(block)):
            stream.write(block)
        stream.write(end)
    return file


# Files that are too large, or become so


@pytest.mark.parametrize(
    ("name", "begin", "part", "size", "expected"),
    [
        ("results.txt", b"1. ", "春".encode(), 100 * 10**6, "larger than 16 MiB"),
        ("results.jsonl", b'{"predict": "', b"x", 100 * 10**6, "larger than 16 MiB"),
        ("results.json", b"[", b"[],", 100 * 10**6, "larger than 16 MiB"),
        ("bomb.json", b"[[]", b",[]", 15 * MIB, "a record has a text 'predict'"),
        ("lines.txt", b"", b"a\n", 15 * MIB, "more than 100,000 lines"),
        ("one.txt", b"", b"<s>", 15 * MIB, "longer than 32,768 characters"),
    ],
)
def test_outputs_of_hostile_size_are_refused_in_little_memory(tmp_path, name, begin, part, size, expected):
    told = read("outputs", long(tmp_path / name, begin, part, b"]", size))
    assert told.startswith("refused")
    assert expected in told


@pytest.mark.parametrize("name", [TRAINING, TESTING, TRUTH])
def test_data_of_hostile_size_are_refused_in_little_memory(tmp_path, name):
    for file in (TRAINING, TESTING, TRUTH):
        shutil.copy(SAMPLE / file, tmp_path)
    long(tmp_path / name, b"", b"[],")
    assert f"refused: {tmp_path / name}: larger than 32 MiB" in read("data", tmp_path)


@pytest.mark.parametrize("name", ["adapter_config.json", "trainer_state.json"])
def test_a_checkpoints_files_of_hostile_size_are_refused(tiny_run, tmp_path, name):
    shutil.copytree(tiny_run, tmp_path / "run")
    file = long(tmp_path / "run" / "checkpoint-10" / name, b"[", b"[],")
    assert f"refused: {file}: larger than 64 MiB" in read("checkpoint", tmp_path / "run")


@pytest.mark.parametrize("name", ["tokenizer.json", "config.json", "chat_template.jinja", "tokenizer.model"])
def test_a_models_files_of_hostile_size_are_refused_before_a_library_reads_them(tiny_model, tmp_path, name):
    shutil.copytree(tiny_model, tmp_path / "model")
    file = long(tmp_path / "model" / name, b"", b"[],")
    assert f"refused: {file}: larger than 64 MiB" in read("base", tmp_path / "model")


def test_what_tangeval_wrote_itself_is_read_within_bounds_too(tmp_path):
    assert "larger than 64 MiB" in read("json", long(tmp_path / "plan.json", b"[", b"[],"))
    assert "larger than 1 MiB" in read("prompt", long(tmp_path / "prompt.yaml", b"", b"- x\n"))
    assert "larger than 1 MiB" in read("study", long(tmp_path / "study.yaml", b"", b"- x\n"))


def test_a_device_without_an_end_is_refused(tmp_path):
    (tmp_path / "results.txt").symlink_to("/dev/zero")
    assert "larger than 16 MiB" in read("outputs", tmp_path / "results.txt")


def many_rows(file: Path) -> Path:
    """300 million zeros in some thousand bytes: one dictionary entry, run-length encoded."""
    part = pa.table({"a": pa.array(np.zeros(10**7, dtype=np.int64))})
    with pq.ParquetWriter(file, part.schema, compression="zstd") as writer:
        for _ in range(30):
            writer.write_table(part, row_group_size=10**7)
    return file


def long_text(file: Path) -> Path:
    """A text of a megabyte, four thousand times, in some hundred bytes."""
    text = pa.DictionaryArray.from_arrays(pa.array(np.zeros(4000, dtype=np.int32)), pa.array(["x" * 10**6]))
    pq.write_table(pa.table({"text": text}), file, compression="zstd")
    return file


@pytest.mark.parametrize("bomb", [many_rows, long_text])
def test_a_parquet_file_that_explodes_is_refused(tmp_path, bomb):
    file = bomb(tmp_path / "scores.parquet")
    assert file.stat().st_size < 5 * MIB
    assert "holds more than any file that tangeval writes" in read("parquet", file)


def test_the_places_of_a_list_are_counted_too(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "_VALUES", 10**6)
    inner = pa.array(np.zeros(2 * 10**6, dtype=np.int8))
    pq.write_table(pa.table({"a": pa.ListArray.from_arrays([0, len(inner)], inner)}), tmp_path / "x.parquet")
    with pytest.raises(TangevalError, match="2,000,000 values"):
        store.read_parquet(tmp_path / "x.parquet")


def test_parquet_that_does_not_explode_is_read_as_pandas_reads_it(tmp_path):
    frame = pd.DataFrame(
        {"text": ["春", None, "眠"], "step": pd.array([1, None, 3], "Int64"), "x": [0.5, 1, 2]}
    )
    store.write_parquet(tmp_path / "x.parquet", frame)
    pd.testing.assert_frame_equal(
        store.read_parquet(tmp_path / "x.parquet"), pd.read_parquet(tmp_path / "x.parquet")
    )
    (tmp_path / "x.parquet").write_bytes((tmp_path / "x.parquet").read_bytes()[:-9])
    with pytest.raises(TangevalError, match=r"x\.parquet: not a parquet file"):
        store.read_parquet(tmp_path / "x.parquet")


DEEP, HUGE = "[" * 100_000 + "]" * 100_000, f"[{'9' * 10_000}]"


@pytest.mark.parametrize("text", [DEEP, HUGE])
def test_deep_json_and_huge_numbers_are_an_error_of_ours_everywhere(tiny_run, tmp_path, text):
    for file in (TRAINING, TESTING, TRUTH):
        shutil.copy(SAMPLE / file, tmp_path)
    examples = dataset.load("sample").split("test")
    for name in (TRAINING, "results.json", "results.jsonl", "manifest.json"):
        (tmp_path / name).write_text(text)
    for reader in (
        lambda: dataset.load(str(tmp_path)),
        lambda: external_outputs.read(tmp_path / "results.json", "a", examples),
        lambda: external_outputs.read(tmp_path / "results.jsonl", "a", examples),
        lambda: store.read_json(tmp_path / "manifest.json"),
    ):
        with pytest.raises(TangevalError, match=str(tmp_path)):
            reader()
    run = shutil.copytree(tiny_run, tmp_path / "run")
    (run / "checkpoint-10" / "adapter_config.json").write_text(text)
    (run / "checkpoint-20" / "trainer_state.json").write_text(text)
    found, skipped = discover([str(run)])
    assert not found
    assert all("not whole" in each.reason for each in skipped)


@pytest.mark.parametrize(
    ("suffix", "expected"),
    [(".gz", "give .txt"), (".parquet", "give .txt"), ("", "not UTF-8"), (".json", "not UTF-8")],
)
def test_outputs_that_are_packed_are_no_text(tmp_path, suffix, expected):
    import gzip

    file = tmp_path / f"results{suffix}"
    file.write_bytes(gzip.compress(bytes(10**7)))
    assert expected in read("outputs", file)


# Weights that lie, indices that climb


def safetensors(header: object, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


@pytest.mark.parametrize(
    "content",
    [
        safetensors({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, "4"]}}, b"1234"),
        safetensors({"a": {"dtype": "F32", "shape": [1], "data_offsets": []}}),
        safetensors({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 10**30]}}),
        safetensors(["a"]),
        safetensors(DEEP.encode()),
        struct.pack("<Q", 2**62) + b"{}",
        struct.pack("<Q", 2**63 + 5),
    ],
)  # fmt: skip
def test_a_safetensors_header_that_lies_is_no_whole_file(tmp_path, content):
    (tmp_path / "x.safetensors").write_bytes(content)
    assert tensors(tmp_path / "x.safetensors") is None


def test_a_safetensors_header_of_hostile_size_is_not_read(tiny_run, tmp_path):
    run = shutil.copytree(tiny_run, tmp_path / "run")
    text = b'{"a":[' + b"[]," * (30 * MIB) + b"[]]}"
    (run / "checkpoint-10" / "adapter_model.safetensors").write_bytes(safetensors(text))
    assert read("checkpoint", run).startswith("taken")
    assert [skipped.path.name for skipped in discover([str(run)])[1]] == ["checkpoint-10"]


@pytest.mark.parametrize("name", ["../../model.safetensors", "/etc/passwd", "..", 5, None])
def test_a_weight_index_that_leads_out_of_its_folder_is_refused(tiny_model, tmp_path, name):
    model = shutil.copytree(tiny_model, tmp_path / "a" / "b" / "model")
    shutil.move(model / "model.safetensors", tmp_path / "a" / "model.safetensors")
    (model / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"x": name}}))
    with pytest.raises(TangevalError, match="files that are not beside it"):
        discover([str(model)])


def test_a_plan_whose_shards_lie_elsewhere_is_refused(tmp_path):
    batch = {"id": "../../x", "checkpoint": "a", "cache_key": "", "examples": [], "samples": [], "grid": 0}
    (tmp_path / "plan.json").write_text(
        json.dumps({"schema": 3, "axes": [], "grids": [[]], "batches": [batch]})
    )
    with pytest.raises(TangevalError, match="no batch's id"):
        read_plan(RunFolder(tmp_path))
    (tmp_path / "plan.json").write_text(
        '{"schema": 3, "axes": [], "grids": [], "batches": [{"id": 5, "grid": 0}]}'
    )
    with pytest.raises(TangevalError, match="not a plan"):
        read_plan(RunFolder(tmp_path))


def test_a_plan_too_large_to_be_read_again_is_not_written(tmp_path, monkeypatch):
    monkeypatch.setattr(plan, "LARGEST", 1000)
    batches = [Batch(f"{n:08x}", "base", "", ("test-1",), tuple(range(50)), ()) for n in range(9)]
    with pytest.raises(TangevalError, match=r"9 batches are more than a plan may list.*batch_size"):
        write_plan(RunFolder(tmp_path), batches)
    write_plan(RunFolder(tmp_path), batches[:2])
    assert read_plan(RunFolder(tmp_path)) == batches[:2]


def test_train_ids_that_are_no_list_of_texts_are_named(tiny_run, tmp_path):
    run = shutil.copytree(tiny_run, tmp_path / "run")
    for content in ('{"hashes": [[]]}', "{}", '{"hashes": "abc"}'):
        (run / "train_ids.json").write_text(content)
        with pytest.raises(TangevalError, match=r"train_ids\.json: no list of texts"):
            trained_on(discover([str(run)])[0][0])


# Models with code


def armed(model: Path, folder: Path, kind: str) -> Path:
    """A copy of a model that would like its own code to run, and that is of a ``kind`` of its own."""
    shutil.copytree(model, folder)
    (folder / "evil.py").write_text(f"open({str(folder / 'ran')!r}, 'w')\nclass Evil: pass\n")
    classes = {f"Auto{name}": "evil.Evil" for name in ("Config", "Model", "ModelForCausalLM", "Tokenizer")}
    for name in ("config.json", "tokenizer_config.json"):
        content = json.loads((folder / name).read_text())
        content |= {"auto_map": {**classes, "AutoTokenizer": ["evil.Evil", "evil.Evil"]}}
        content |= {"model_type": kind} if name == "config.json" else {"tokenizer_class": "Evil"}
        (folder / name).write_text(json.dumps(content))
    return folder


@pytest.mark.parametrize("kind", ["llama", "evil"])
def test_a_models_own_code_never_runs(tiny_model, tmp_path, kind):
    base = resolve_base(str(armed(tiny_model, tmp_path / "model", kind)))
    for load in (load_tokenizer, lambda base: load_model(base, Load())):
        try:
            assert "evil" not in type(load(base)).__module__
        except TangevalError as error:
            assert str(base.source) in str(error)  # noqa: PT017
    assert not (tmp_path / "model" / "ran").exists()
    if kind == "evil":
        with pytest.raises(TangevalError, match="no code of its own"):
            load_model(base, Load())


def test_an_adapter_beside_the_base_model_is_not_silently_put_on_it(tiny_model, tiny_run, tmp_path):
    shutil.copytree(tiny_model, tmp_path / "model")
    shutil.copy(tiny_run / "checkpoint-10" / "adapter_config.json", tmp_path / "model")
    with pytest.raises(TangevalError, match="the adapter under checkpoints"):
        resolve_base(str(tmp_path / "model"))


def test_an_adapter_that_names_other_adapters_is_left_out(tiny_run, tmp_path):
    run = shutil.copytree(tiny_run, tmp_path / "run")
    config = run / "checkpoint-10" / "adapter_config.json"
    config.write_text(
        json.dumps(json.loads(config.read_text()) | {"peft_type": "XLORA", "adapters": {"0": "who/what"}})
    )
    found, skipped = discover([str(run)])
    assert [c.name for c in found] == ["checkpoint-20"]
    assert "X-LoRA" in skipped[0].reason


# Texts that steer a terminal

STEERING = "春\x1b]0;title\x07\x1b[2J\x1b[31m眠\x9b5A\u202e不\u2066覺\x00\r曉\x08\x7f"
ACTIVE = set("\x1b\x07\x9b\u202e\u2066\x00\r\x08\x7f")


def test_control_characters_are_pictures_on_the_console():
    stream = io.StringIO()
    console = SafeConsole(file=stream, force_terminal=False, width=200)
    from rich.table import Table
    from rich.text import Text

    table = Table("text", title=STEERING)
    table.add_row(Text(STEERING))
    console.print(table)
    console.print(STEERING)
    assert not ACTIVE & set(stream.getvalue())
    assert "␛]0;title" in stream.getvalue()


def test_the_consoles_own_colours_still_work():
    stream = io.StringIO()
    SafeConsole(file=stream, force_terminal=True, color_system="standard").print("[red]春[/]\x1b[2J")
    assert stream.getvalue().startswith("\x1b[31m春\x1b[0m")
    assert "\x1b[2J" not in stream.getvalue()


def test_lines_for_machines_say_the_same_and_steer_nothing(capsys):
    print_event("decoding", text=STEERING)
    told = capsys.readouterr().out
    assert not ACTIVE & set(told)
    assert json.loads(told)["text"] == STEERING
    assert inert_json('"\\u001b"') == '"\\u001b"'


def test_a_text_without_control_characters_is_shown_as_it_is():
    assert inert("春眠，\n\t不覺曉。👍🏽é") == "春眠，\n\t不覺曉。👍🏽é"


def test_no_message_of_a_hostile_file_steers_the_terminal(tmp_path):
    (tmp_path / "results.json").write_text(json.dumps([{"input": STEERING, "predict": STEERING}]))
    code = "from tangeval.cli.app import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "score", str(tmp_path / "results.json"), "--data", "sample"],
        capture_output=True, text=True, check=False, encoding="utf-8",
    )  # fmt: skip
    assert done.returncode == 2
    assert "春" in done.stderr
    assert not ACTIVE & set(done.stderr + done.stdout)


def test_names_with_markup_are_shown_as_they_are(tiny_run, tmp_path):
    run = shutil.copytree(tiny_run, tmp_path / "[bold]x[")
    (run / "checkpoint-10" / "adapter_config.json").write_text("{")
    told = succeeds(tmp_path, "checkpoints", run).raw
    assert "[bold]x[" in told.replace("\n", "")  # a long folder's name is wrapped


def test_the_largest_tokenizers_are_within_bounds():
    """Gemma 3's ``tokenizer.json``, of 262,144 tokens, has 33,384,570 bytes."""
    assert LARGEST > 1.5 * 33_384_570
