"""``python -m finetune`` on a random tiny model: what a run leaves, how it goes on, what it refuses."""

import csv
import errno
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM, AutoTokenizer, DataCollatorForLanguageModeling, MambaConfig

from finetune import train
from finetune.__main__ import main
from finetune.config import load_config
from finetune.data import IGNORED, Layout, collate, layout_of, summed_loss, tokenize
from tangeval import api, tasks
from tangeval.analysis.select import check_selection
from tangeval.core.errors import TangevalError
from tangeval.core.study import load_study
from tangeval.core.types import Load
from tangeval.models.adapters import with_checkpoint
from tangeval.models.checkpoints import discover, resolve_base, trained_on
from tangeval.models.loading import load_model
from tangeval.models.tokens import encode_prompt
from tangeval.resolve import resolve
from tangeval.tasks.base import part_digests
from tangeval.tasks.tang import TANG
from tangeval.tasks.tang import data as dataset
from tangeval.tasks.tang.data import TESTING, TRAINING, TRUTH
from tangeval.tasks.tang.prompt import asked, prompt_text
from tests.support.faults import unreadable
from tests.support.tiny import make_tiny_model

CONFIGS = Path(train.__file__).parent / "configs"
# Six steps an epoch, the last of half a batch; saves neither at the log's steps nor at an epoch's end.
CONFIG = """
base_model: {base}
data: sample
output_dir: {out}
records: 88
epochs: 2
learning_rate: 1.0e-2
warmup_steps: 3
per_device_batch_size: 8
batch: 16
logging_steps: 2
save_steps: 5
"""
SAVES = ["checkpoint-5", "checkpoint-10", "checkpoint-12"]


@pytest.fixture(autouse=True, scope="module")
def one_cpu_thread():
    """No GPU: what is compared bit for bit must be fp32 on a CPU.

    So small a model gains nothing by threads, and on a busy machine they wait for one another.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.cuda, "is_available", lambda: False)
        yield
    torch.set_num_threads(before)


def finetune(*arguments: object) -> None:
    """What ``python -m finetune`` does, without importing torch anew."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["finetune", *map(str, arguments)])
        main()


def start(*arguments: object) -> subprocess.Popen:
    """``python -m finetune`` itself, for tests that kill it."""
    return subprocess.Popen(
        [sys.executable, "-m", "finetune", *map(str, arguments)],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
    )  # fmt: skip


def refusal(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """The message of a run that must be refused."""
    with pytest.raises(SystemExit) as stop:
        finetune(*arguments)
    assert stop.value.code == 2
    return capsys.readouterr().err


def write_config(base: Path, folder: Path) -> Path:
    file = folder / "tiny.yaml"
    file.write_text(CONFIG.format(base=base, out=folder / "out"))
    return file


@pytest.fixture
def config(tiny_model, tmp_path):
    """A configuration whose ``output_dir`` is ``tmp_path / "out"``."""
    return write_config(tiny_model, tmp_path)


@pytest.fixture(scope="module")
def whole(tiny_model, tmp_path_factory):
    """An uncut run of ``CONFIG`` that tests may look at, not change."""
    folder = tmp_path_factory.mktemp("whole")
    finetune(write_config(tiny_model, folder))
    return folder / "out"


@pytest.fixture
def out(whole, tmp_path):
    """A copy of the uncut run, where ``config`` has its folder."""
    return shutil.copytree(whole, tmp_path / "out")


@pytest.fixture(scope="module")
def lone_layer(tmp_path_factory):
    """A smaller model still, for runs of many steps."""
    return make_tiny_model(tmp_path_factory.mktemp("models") / "lone", layers=1)


def made_up(folder: Path, records: int) -> Path:
    """Write HW5's three files with ``records`` short quatrains, no clause of which stands twice."""
    verses = []
    for number in range(records + 1):
        # Two digits in base 60 tell the poems apart, one the clauses of a poem.
        mark = "".join(chr(0x4E00 + 100 * place + number // 60**place % 60) for place in range(2))
        verses.append([f"{mark}{chr(0x5000 + clause)}天地" for clause in range(4)])
    asked = [{"instruction": "續", "input": f"{a}，{b}。"} for a, b, _, _ in verses]
    answers = [{"output": f"{c}，{d}。"} for _, _, c, d in verses]
    training = [question | answer for question, answer in zip(asked, answers, strict=True)][:records]
    folder.mkdir()
    (folder / TRAINING).write_text(json.dumps(training, ensure_ascii=False), encoding="utf-8")
    (folder / TESTING).write_text(json.dumps(asked[records:], ensure_ascii=False), encoding="utf-8")
    (folder / TRUTH).write_text("\t".join(verses[records][2:]), encoding="utf-8")
    return folder


def log(folder: Path) -> dict[int, dict[str, str]]:
    """The rows of ``training_log.csv`` by step, without the times."""
    rows = csv.DictReader(io.StringIO((folder / "training_log.csv").read_text("utf-8")))
    return {int(row.pop("step")): {k: v for k, v in row.items() if k != "seconds"} for row in rows}


def weights(save: Path) -> bytes:
    return (save / "adapter_model.safetensors").read_bytes()


def saves(folder: Path) -> list[str]:
    return [checkpoint.name for checkpoint in discover([str(folder)])[0]]


def unfinish(folder: Path) -> None:
    """Take back the mark that a run came to its end, as if it had been killed before."""
    record = json.loads((folder / "run.json").read_text("utf-8"))
    del record["finished"]
    (folder / "run.json").write_text(json.dumps(record), "utf-8")


def completion_loss(model: torch.nn.Module, tokenizer, example) -> tuple[float, int]:
    """Hugging Face's own loss of one unpadded text's completion, summed, and its tokens."""
    prompt = encode_prompt(tokenizer, asked(example, "hw5"))
    answer = [*tokenizer.encode(f" {example.reference}", add_special_tokens=False), tokenizer.eos_token_id]
    labels = torch.tensor([[IGNORED] * len(prompt) + answer])
    with torch.no_grad():
        loss = model(input_ids=torch.tensor([prompt + answer]), labels=labels).loss.item()
    return loss * len(answer), len(answer)


# The homework's recipe


@pytest.mark.parametrize(
    ("file", "model"),
    [
        ("taide-7b.yaml", "taide/TAIDE-LX-7B-Chat"),
        ("breeze-7b.yaml", "MediaTek-Research/Breeze-7B-Instruct-v0_1"),
    ],
)
def test_recipe_hw5_has_the_homeworks_values(file, model):
    config = load_config(CONFIGS / file, ["recipe=hw5"])
    assert config.base_model == model
    assert (config.data, config.prompt, config.records) == ("hw5", "hw5", 1040)
    assert (config.load.quantization, config.load.merge) == ("nf4", False)
    assert (config.lora.r, config.lora.alpha, config.lora.dropout) == (8, 16, 0.05)
    assert set(config.lora.target_modules) == {
        "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"
    }  # fmt: skip
    assert (config.epochs, config.learning_rate, config.warmup_steps) == (1, 3e-4, 50)
    assert (config.per_device_batch_size, config.batch, config.cutoff) == (4, 16, 256)
    assert (config.logging_steps, config.save_steps, config.save_total_limit, config.seed) == (20, 65, 3, 42)
    assert (config.loss_on, config.padding, config.attention_mask) == ("all", "cutoff", "ones")
    assert (config.precision, config.gradient_checkpointing) == ("float16", True)


def test_what_is_given_outweighs_the_recipe():
    config = load_config(CONFIGS / "taide-7b.yaml", ["recipe=hw5", "records=64", "loss_on=completion"])
    assert (config.records, config.loss_on, config.padding) == (64, "completion", "cutoff")
    corrected = load_config(CONFIGS / "taide-7b.yaml", [])
    assert (corrected.records, corrected.loss_on, corrected.save_total_limit) == (None, "completion", None)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("pads_with_eos", [False, True])
def test_recipe_hw5_batches_as_the_homeworks_collator_does(tiny_model, poems, side, pads_with_eos):
    """Against transformers' collator, fed as the notebook feeds it: padded to 256, EOS in the text and added."""
    tokenizer = AutoTokenizer.from_pretrained(tiny_model, padding_side=side)
    tokenizer.pad_token_id = tokenizer.eos_token_id if pads_with_eos else 0
    config = load_config(CONFIGS / "taide-7b.yaml", ["recipe=hw5"])
    if pads_with_eos:
        config = config.model_copy(update={"eos": "masked"})
    layout = layout_of(config, tokenizer)
    rows, _ = tokenize(tokenizer, poems, "hw5", layout)
    ours = collate(list(rows), layout)
    fed = []
    for poem in poems:
        text = f"{prompt_text(poem)} {poem.reference}"
        ends = [tokenizer.eos_token_id] * (1 if pads_with_eos else 2)
        ids = [tokenizer.bos_token_id, *tokenizer.encode(text, add_special_tokens=False), *ends]
        pads = [tokenizer.pad_token_id] * (256 - len(ids))
        whole = pads + ids if side == "left" else ids + pads
        fed.append({"input_ids": whole, "attention_mask": [1] * 256})
    theirs = DataCollatorForLanguageModeling(tokenizer, mlm=False)(fed)
    assert all(torch.equal(ours[name], theirs[name]) for name in ("input_ids", "attention_mask", "labels"))


@pytest.mark.parametrize("changes", [{}, {"attention_mask": "real"}, {"padding": "longest"}])
def test_the_homeworks_loss_is_hugging_faces(model, tokenizer, poems, changes):
    config = load_config(CONFIGS / "taide-7b.yaml", ["recipe=hw5"]).model_copy(update=changes)
    layout = layout_of(config, tokenizer)
    batch = collate(list(tokenize(tokenizer, poems, "hw5", layout)[0]), layout)
    labels = batch.pop("labels")
    with torch.no_grad():
        ours = summed_loss(model(**batch).logits, labels)
        theirs = model(batch["input_ids"], attention_mask=batch["attention_mask"], labels=labels).loss
    assert ours.item() == pytest.approx(theirs.item() * (labels[:, 1:] != IGNORED).sum().item(), rel=1e-5)


def test_a_text_that_is_cut_does_not_teach_to_end(tokenizer, poems):
    rows, left_out = tokenize(tokenizer, poems, "hw5", Layout(120, overflow="cut"))
    assert left_out == 0
    assert {len(row["input_ids"]) for row in rows} == {120}
    assert all(tokenizer.eos_token_id not in row["labels"] for row in rows)


def test_float16_is_refused_where_there_is_no_gpu(config, capsys):
    assert "set precision=auto" in refusal(capsys, config, "recipe=hw5", "records=16")


def test_a_model_that_could_not_be_decoded_with_is_not_trained(config, tiny_model, tmp_path, capsys):
    base = shutil.copytree(tiny_model, tmp_path / "mamba")
    size = {"vocab_size": len(AutoTokenizer.from_pretrained(base)), "hidden_size": 32, "num_hidden_layers": 2}
    AutoModelForCausalLM.from_config(MambaConfig(**size)).save_pretrained(base)
    assert "MambaForCausalLM keeps no keys and values" in refusal(capsys, config, f"base_model={base}")


def test_the_homeworks_log_is_reproduced(lone_layer, tmp_path):
    """1,040 records give the 65 steps, epochs and learning rates that the homework printed."""
    data, folder = made_up(tmp_path / "data", 1040 + 8), tmp_path / "out"
    finetune(
        CONFIGS / "taide-7b.yaml", "recipe=hw5", f"base_model={lone_layer}", f"data={data}", "validation=8",
        f"output_dir={folder}", "load.quantization=none", "precision=auto",
    )  # fmt: skip
    assert len(json.loads((folder / "train_ids.json").read_text("utf-8"))["ids"]) == 1040
    assert saves(folder) == ["checkpoint-65"]
    rows = log(folder)
    assert list(rows) == [0, 20, 40, 60, 65]
    assert [f"{float(rows[step]['epoch']):.2f}" for step in (20, 40, 60)] == ["0.31", "0.62", "0.92"]
    rates = [float(f"{float(rows[step]['learning_rate']):.3g}") for step in (20, 40, 60)]
    assert rates == [1.14e-4, 2.34e-4, 1.2e-4]
    # lora_B begins at zero; where no gradient came it still is.
    adapter = load_file(folder / "checkpoint-65" / "adapter_model.safetensors")
    assert all(tensor.any() for name, tensor in adapter.items() if "lora_B" in name)


# What is learnt


@pytest.fixture(scope="module")
def tokenizer(tiny_model):
    return AutoTokenizer.from_pretrained(tiny_model)


@pytest.fixture(scope="module")
def model(tiny_model):
    return AutoModelForCausalLM.from_pretrained(tiny_model).eval()


@pytest.fixture(scope="module")
def poems():
    """Poems of unlike lengths, a quatrain of 5 and a regulated poem of 7 among them."""
    train_split = dataset.load("sample").split("train")
    by_length = sorted(train_split[:60], key=lambda example: len(example.reference))
    return [by_length[0], by_length[-1], by_length[30], by_length[15]]


@pytest.mark.parametrize("pad", ["<pad>", "</s>"])
def test_the_completion_alone_is_supervised_and_its_eos_too(tiny_model, poems, pad):
    """Also where EOS pads, which made it unlearnable in the homework."""
    tokenizer = AutoTokenizer.from_pretrained(tiny_model, pad_token=pad)
    rows, left_out = tokenize(tokenizer, poems, "hw5", Layout())
    assert left_out == 0
    batch = collate(list(rows))
    for example, ids, labels in zip(poems, batch["input_ids"], batch["labels"], strict=True):
        supervised = labels != IGNORED
        assert torch.equal(labels[supervised], ids[supervised])
        assert tokenizer.decode(labels[supervised]) == f" {example.reference}</s>"
        assert supervised.nonzero()[0] == len(encode_prompt(tokenizer, asked(example, "hw5")))


def test_the_loss_of_a_padded_batch_is_hugging_faces(model, tokenizer, poems):
    rows, _ = tokenize(tokenizer, poems, "hw5", Layout())
    assert len({len(row["input_ids"]) for row in rows}) == len(poems)
    batch = collate(list(rows))
    labels = batch.pop("labels")
    with torch.no_grad():
        ours = summed_loss(model(**batch).logits, labels)
        theirs = model(batch["input_ids"], attention_mask=batch["attention_mask"], labels=labels).loss
    assert ours.item() == pytest.approx(theirs.item() * (labels != IGNORED).sum().item(), rel=1e-5)
    apart = sum(completion_loss(model, tokenizer, example)[0] for example in poems)
    assert ours.item() == pytest.approx(apart, rel=1e-4)


def test_the_prompts_predictions_have_no_part_in_the_loss(model, tokenizer, poems):
    """Whatever the model says of the prompt's own tokens, the sum stays."""
    rows, _ = tokenize(tokenizer, poems, "hw5", Layout())
    batch = collate(list(rows))
    labels = batch.pop("labels")
    kept = batch["logits_to_keep"]
    with torch.no_grad():
        logits = model(**batch).logits
    expected = summed_loss(logits, labels)
    unsupervised = labels[:, kept + 1] == IGNORED
    assert unsupervised.any()
    logits[unsupervised] = torch.randn_like(logits[unsupervised])
    assert torch.equal(summed_loss(logits, labels), expected)
    whole_sum = cross_entropy(
        logits.flatten(0, 1), batch["input_ids"][:, kept + 1].flatten(), reduction="sum"
    )
    assert expected < whole_sum


def test_a_task_in_a_file_is_trained_on(config, out, tmp_path):
    """Its prompts and answers, its own splits; a folder of another task's checkpoints is refused."""
    rows = [{"word": f"山{n}", "rest": f"水{n}。"} for n in range(20)]
    (tmp_path / "d.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows), "utf-8")
    task = {"name": "mine", "data": {"train": "d.jsonl", "test": 2, "validation": 2}, "prompt": "{{ word }}:"}
    task |= {"fields": {"prompt": "word", "reference": "rest"}, "metrics": ["exact"]}
    (tmp_path / "task.yaml").write_text(json.dumps(task), "utf-8")
    settings = ["task=" + str(tmp_path / "task.yaml"), "validation=null", "records=null", "epochs=1"]
    with pytest.raises(SystemExit):
        finetune(config, *settings)
    finetune(config, *settings, f"output_dir={tmp_path / 'mine'}")
    record = json.loads((tmp_path / "mine" / "train_ids.json").read_text())
    assert record["ids"] == [f"train-{n}" for n in range(1, 17)]
    (checkpoint,) = discover([str(next((tmp_path / "mine").glob("checkpoint-*")))])[0]
    made = tasks.load(str(tmp_path / "task.yaml"))
    seen = trained_on(checkpoint)
    examples = made.load("sample", None).examples
    assert [seen.saw(made.identity(e), part_digests(made, e)) for e in examples] == [True] * 16 + [False] * 4


def test_gradient_checkpointing_changes_nothing_that_is_learnt(config, whole, tmp_path):
    finetune(config, "gradient_checkpointing=true")
    ours = load_file(tmp_path / "out" / "checkpoint-12" / "adapter_model.safetensors")
    expected = load_file(whole / "checkpoint-12" / "adapter_model.safetensors")
    assert ours.keys() == expected.keys()
    assert all(torch.allclose(ours[name], expected[name], atol=1e-6) for name in expected)


def test_a_text_longer_than_the_cutoff_is_left_out_whole(tokenizer, poems):
    lengths = [len(row["input_ids"]) for row in tokenize(tokenizer, poems, "hw5", Layout(10_000))[0]]
    rows, left_out = tokenize(tokenizer, poems, "hw5", Layout(sorted(lengths)[2]))
    assert left_out == 1
    assert [len(row["input_ids"]) for row in rows] == [n for n in lengths if n < max(lengths)]
    assert all(row["labels"][-1] == tokenizer.eos_token_id for row in rows)


def test_accumulated_micro_batches_are_one_batch(config, tmp_path, model, tokenizer):
    """The first loss is Hugging Face's mean over the batch's tokens, however the batch is cut."""
    settings = ["records=32", "epochs=1", "warmup_steps=0", "lora.dropout=0", "logging_steps=1"]
    logs = []
    for size in (4, 16):
        finetune(config, *settings, f"per_device_batch_size={size}", f"output_dir={tmp_path / str(size)}")
        logs.append([float(row["loss"]) for step, row in log(tmp_path / str(size)).items() if step])
    assert len(logs[0]) == 2
    assert logs[0] == pytest.approx(logs[1], abs=1e-4)
    finetune(
        config, *settings, "per_device_batch_size=4", "padding=longest", f"output_dir={tmp_path / 'padded'}"
    )
    padded = [float(row["loss"]) for step, row in log(tmp_path / "padded").items() if step]
    assert logs[0] == pytest.approx(padded, abs=1e-5)
    one = ["records=16", "per_device_batch_size=4", f"output_dir={tmp_path / 'one'}"]
    finetune(config, *settings, *one)
    sums, tokens = zip(
        *(completion_loss(model, tokenizer, e) for e in dataset.load("sample").split("train")[:16]),
        strict=True,
    )
    assert float(log(tmp_path / "one")[1]["loss"]) == pytest.approx(sum(sums) / sum(tokens), abs=1e-4)


# What a run leaves


def test_every_save_and_the_last_step_are_kept(whole):
    assert saves(whole) == SAVES
    assert sorted(path.name for path in whole.iterdir()) == sorted(
        [*SAVES, "loss.png", "run.json", "timings.json", "train_ids.json", "training_log.csv"]
    )
    assert len({weights(whole / save) for save in SAVES}) == 3
    modules = json.loads((whole / SAVES[0] / "adapter_config.json").read_text("utf-8"))["target_modules"]
    assert modules == sorted(modules)  # peft's set has another order in each process
    assert (whole / "loss.png").read_bytes().startswith(b"\x89PNG")


def test_the_log_has_training_and_validation_loss(whole, tiny_model, tokenizer):
    """Validation loss before training and at the end is Hugging Face's, poem by poem."""
    rows = log(whole)
    assert [step for step, row in rows.items() if row["validation_loss"]] == [0, 5, 10, 12]
    assert {2, 4, 6, 8, 10, 12} <= {step for step, row in rows.items() if row["loss"]}
    held_out = dataset.load("sample").split("validation")
    base = load_model(resolve_base(str(tiny_model)), Load())
    for step, checkpoint in ((0, None), (12, discover([str(whole / "checkpoint-12")])[0][0])):
        if checkpoint is None:
            pairs = [completion_loss(base, tokenizer, example) for example in held_out]
        else:
            with with_checkpoint(base, checkpoint, Load()) as adapted:
                pairs = [completion_loss(adapted, tokenizer, example) for example in held_out]
        expected = sum(total for total, _ in pairs) / sum(count for _, count in pairs)
        assert float(rows[step]["validation_loss"]) == pytest.approx(expected, rel=1e-4)
    assert float(rows[12]["validation_loss"]) < float(rows[0]["validation_loss"])


def test_train_ids_hold_the_poems_that_were_used_and_no_others(whole):
    data = dataset.load("sample")
    record = json.loads((whole / "train_ids.json").read_text("utf-8"))
    used = data.split("train")[:88]
    assert record["data"] == data.digest
    assert record["ids"] == [example.id for example in used]
    assert record["hashes"] == [TANG.identity(example) for example in used]
    # The checkpoints inside are known by it.
    assert trained_on(discover([str(whole)])[0][0]).texts == set(record["hashes"])


def test_nf4_trains_on_a_cpu_and_leaves_a_checkpoint(config, tmp_path, tiny_model):
    finetune(config, "load.quantization=nf4", "records=32", "epochs=1", "warmup_steps=0")
    found, left_out = discover([str(tmp_path / "out")])
    assert ([c.step for c in found], left_out) == ([2], ())
    base = load_model(resolve_base(str(tiny_model)), Load(quantization="nf4"))
    ids = torch.arange(9)[None]
    with torch.inference_mode():
        before = base(ids).logits
        with with_checkpoint(base, found[0], Load(quantization="nf4")) as adapted:
            after = adapted(ids).logits
    assert after.isfinite().all()
    assert not torch.equal(after, before)


@pytest.mark.parametrize("quantization", ["none", "nf4"])
def test_measuring_the_validation_loss_changes_nothing_that_is_learnt(
    config, tmp_path, monkeypatch, quantization
):
    """bitsandbytes packs weights that are used in evaluation mode, and packed ones pass no gradient on."""
    settings = [f"load.quantization={quantization}", "records=32", "epochs=1", "save_steps=1"]
    finetune(config, *settings)
    monkeypatch.setattr("finetune.log.validation_loss", lambda *_: 1.0)
    finetune(config, *settings, f"output_dir={tmp_path / 'blind'}")
    assert weights(tmp_path / "blind" / "checkpoint-2") == weights(tmp_path / "out" / "checkpoint-2")


# A run that learns nothing more


@pytest.mark.parametrize(
    ("watched", "said"),
    [([], "step 2: the validation loss is "), (["include_validation=true"], "step 3: the loss is ")],
)
def test_a_run_that_diverges_stops_and_keeps_what_was_good(config, tmp_path, capsys, watched, said):
    """The rate of step 1 is 0; that of step 2 throws the weights out of all numbers."""
    message = refusal(capsys, config, "learning_rate=1e30", "save_steps=1", *watched)
    assert said in message
    assert "learning_rate below 1e+30" in message
    assert "checkpoint-1" in saves(tmp_path / "out")
    kept = [
        load_file(tmp_path / "out" / save / "adapter_model.safetensors") for save in saves(tmp_path / "out")
    ]
    assert all(tensor.isfinite().all() for adapter in kept for tensor in adapter.values())
    assert "finished" not in json.loads((tmp_path / "out" / "run.json").read_text("utf-8"))


def test_a_gradient_that_is_no_number_stops_a_run(tmp_path, capsys):
    """A first token of zeros stays zeros through all layers, and each norm makes its gradient 1,000 times as large."""
    base = make_tiny_model(tmp_path / "deep", layers=20)
    weights = load_file(base / "model.safetensors")
    weights["model.embed_tokens.weight"][AutoTokenizer.from_pretrained(base).bos_token_id] = 0
    save_file(weights, base / "model.safetensors", {"format": "pt"})
    message = refusal(capsys, write_config(base, tmp_path), "records=16")
    assert "step 1: the gradient's norm is " in message
    assert not list((tmp_path / "out").glob("checkpoint-*"))


# A run that was cut off


def test_a_save_that_fails_is_one_message_and_the_run_goes_on_from_there(
    config, tmp_path, capsys, monkeypatch
):
    """What torch says of a full disk names neither disk nor file."""
    save = torch.save

    def full(what, place, *more, **named):
        if "checkpoint-2" in str(place):
            raise RuntimeError("unexpected pos 64 vs 0")
        save(what, place, *more, **named)

    monkeypatch.setattr(torch, "save", full)
    message = refusal(capsys, config, "save_steps=1")
    assert re.search(
        r"out/checkpoint-2 cannot be written: unexpected pos 64 vs 0 \([\d,]+ MiB are free there\)", message
    )
    monkeypatch.undo()
    finetune(config, "save_steps=1")
    assert {"checkpoint-1", "checkpoint-2"} <= set(saves(tmp_path / "out"))


def test_a_killed_run_goes_on_and_ends_in_the_same_weights_and_log(config, whole, tmp_path):
    out = tmp_path / "out"
    moments = [
        # The folder is there before its files are: the save is cut off.
        lambda: (out / "checkpoint-5").is_dir(),
        lambda: (out / "training_log.csv").is_file() and 6 in log(out),
    ]
    for moment in moments:
        process = start(config)
        while process.poll() is None and not moment():
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
        output, _ = process.communicate()
        assert process.returncode == -signal.SIGKILL, output
    assert not (out / "checkpoint-12").exists()
    finetune(config)
    assert saves(out) == SAVES
    assert [weights(out / save) for save in SAVES] == [weights(whole / save) for save in SAVES]
    assert log(out) == log(whole)


@pytest.mark.parametrize("kept", [1, 2])
def test_a_run_goes_on_from_its_newest_checkpoint(config, whole, out, capsys, kept):
    """In the first epoch and in the second; dropout is on, so noise must be where it was."""
    for save in SAVES[kept:]:
        shutil.rmtree(out / save)
    unfinish(out)
    (out / f".tangeval-{16 * '0'}.unfinished").write_text("step,ep")
    times = {save: (out / save / "trainer_state.json").stat().st_mtime_ns for save in SAVES[:kept]}
    finetune(config)
    told = [line.split(":")[0] for line in capsys.readouterr().out.splitlines() if ": validation" in line]
    assert told == SAVES[kept:]
    assert {save: (out / save / "trainer_state.json").stat().st_mtime_ns for save in times} == times
    assert weights(out / "checkpoint-12") == weights(whole / "checkpoint-12")
    assert log(out) == log(whole)
    assert not list(out.glob(".*"))


def cut_state(save: Path) -> None:
    (save / "trainer_state.json").unlink()


def cut_weights(save: Path) -> None:
    (save / "adapter_model.safetensors").write_bytes(weights(save)[:-1])


def test_a_model_beside_the_checkpoints_is_no_save_to_be_removed(config, whole, out):
    for name in ("", "merged"):
        shutil.copytree(
            out / SAVES[0],
            out / name,
            dirs_exist_ok=True,
            ignore=shutil.ignore_patterns("trainer_state.json"),
        )
    unfinish(out)
    finetune(config)
    assert (out / "merged" / "adapter_model.safetensors").is_file()
    assert saves(out) == SAVES


@pytest.mark.parametrize("cut", [cut_state, cut_weights])
def test_a_save_that_was_cut_off_is_made_again(config, whole, out, cut):
    for save in SAVES[1:]:
        cut(out / save)
    (out / SAVES[2] / "left over").touch()
    unfinish(out)
    finetune(config)
    assert saves(out) == SAVES
    assert not (out / SAVES[2] / "left over").exists()
    assert [weights(out / save) for save in SAVES] == [weights(whole / save) for save in SAVES]
    assert log(out) == log(whole)


def test_a_run_cut_off_after_its_last_save_only_ends(config, whole, out, capsys):
    unfinish(out)
    (out / "loss.png").unlink()
    finetune(config)
    assert "validation loss" not in capsys.readouterr().out
    assert saves(out) == SAVES
    assert log(out) == log(whole)
    assert (out / "loss.png").is_file()
    finetune(config)
    assert "complete already" in capsys.readouterr().out


def test_part_of_an_epoch_that_was_cut_off_after_its_last_save_only_ends(config, tmp_path):
    """There the data have batches left that must not be trained on."""
    finetune(config, "epochs=0.5")
    out = tmp_path / "out"
    assert saves(out) == ["checkpoint-3"]
    before, rows = weights(out / "checkpoint-3"), log(out)
    unfinish(out)
    finetune(config, "epochs=0.5")
    assert saves(out) == ["checkpoint-3"]
    assert weights(out / "checkpoint-3") == before
    assert log(out) == rows


@pytest.mark.parametrize(("moment", "kept"), [("on_log", 1), ("on_save", 2)])
def test_a_run_cut_off_just_before_or_after_a_save_logs_every_row(
    config, whole, tmp_path, monkeypatch, moment, kept
):
    """The Trainer saves between the two events; a kill -9 seldom hits the moment."""
    original = getattr(train.Log, moment)

    def cut_off(self, args, state, control, **kwargs):
        if state.global_step == 10:
            raise KeyboardInterrupt
        original(self, args, state, control, **kwargs)

    monkeypatch.setattr(train.Log, moment, cut_off)
    with pytest.raises(SystemExit):
        finetune(config)
    monkeypatch.undo()
    assert saves(tmp_path / "out") == SAVES[:kept]
    finetune(config)
    assert log(tmp_path / "out") == log(whole)


def test_only_the_newest_checkpoints_are_kept_where_so_many_are_asked_for(config, whole, tmp_path):
    finetune(config, "save_total_limit=1")
    assert saves(tmp_path / "out") == ["checkpoint-12"]
    assert weights(tmp_path / "out" / "checkpoint-12") == weights(whole / "checkpoint-12")


def test_an_adapter_is_taken_up_with_the_poems_it_saw(config, whole, tmp_path):
    """With a rate too small to move anything it leaves the adapter that it took up."""
    start = whole / "checkpoint-5"
    lone = tmp_path / "lone"  # its only checkpoint is meant
    shutil.copytree(start, lone / start.name)
    shutil.copy(whole / "train_ids.json", lone)
    finetune(
        config, f"resume_adapter={lone}", "records=16", "epochs=1", "learning_rate=1e-12", "lora.r=4", "save_steps=1"
    )  # fmt: skip
    ours, theirs = (
        load_file(folder / "adapter_model.safetensors")
        for folder in (tmp_path / "out" / "checkpoint-1", start)
    )
    assert ours.keys() == theirs.keys()
    assert all(torch.allclose(ours[name], theirs[name], atol=1e-8) for name in theirs)
    hashes = [json.loads((folder / "train_ids.json").read_text("utf-8"))["hashes"] for folder in (
        tmp_path / "out", whole)]  # fmt: skip
    assert set(hashes[0]) == set(hashes[1])
    assert len(hashes[0]) == 88


def test_an_adapter_that_keeps_no_record_is_not_taken_up(config, whole, tmp_path, capsys):
    shutil.copytree(whole / "checkpoint-5", tmp_path / "bare")
    assert "keeps no train_ids.json" in refusal(capsys, config, f"resume_adapter={tmp_path / 'bare'}")


def test_a_folder_of_several_or_no_adapters_is_not_taken_up(config, whole, tmp_path, capsys):
    (tmp_path / "cut" / "checkpoint-5").mkdir(parents=True)
    for place in (whole, tmp_path / "cut"):
        assert "resume_adapter: " in refusal(capsys, config, f"resume_adapter={place}")


def test_an_adapter_for_another_model_is_not_taken_up(whole, lone_layer, tmp_path, capsys):
    config = write_config(lone_layer, tmp_path)
    assert "the adapter was made for another base" in refusal(
        capsys, config, f"resume_adapter={whole / 'checkpoint-5'}"
    )


def test_tensorboard_is_told_both_losses(config, whole, tmp_path):
    event_accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    finetune(config, "report_to=[tensorboard]")
    (events,) = (tmp_path / "out" / "runs").glob("*")
    told = event_accumulator.EventAccumulator(str(events))
    told.Reload()
    logged = log(whole)
    for name, column in (("train/loss", "loss"), ("train/validation_loss", "validation_loss")):
        points = {event.step: event.value for event in told.Scalars(name)}
        expected = {step: float(row[column]) for step, row in logged.items() if row[column] and step}
        assert points == pytest.approx(expected, rel=1e-4)


def test_what_cannot_be_reported_to_is_named(config, capsys):
    assert "report_to: nowhere is not installed" in refusal(capsys, config, "report_to=[nowhere]")


def test_two_processes_train_as_one(config, whole, tmp_path):
    """Under torchrun, gloo on a CPU: the same effective batch, the same poems a step, the same losses."""
    out = tmp_path / "out"
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    script = tmp_path / "run.py"
    script.write_text(
        "from finetune.__main__ import main\nmain()\nimport torch\nassert not torch.distributed.is_initialized()"
    )
    settings = [config, "lora.dropout=0", "per_device_batch_size=4"]
    environment = os.environ | {
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    subprocess.run([*command, script, *map(str, settings)], env=environment, check=True, capture_output=True)
    finetune(*settings, f"output_dir={tmp_path / 'alone'}")
    assert saves(out) == SAVES
    ours, alone = log(out), log(tmp_path / "alone")
    assert ours.keys() == alone.keys()
    for column in ("validation_loss", "learning_rate", "epoch"):
        values = [[float(row[column]) for row in rows.values() if row[column]] for rows in (ours, alone)]
        assert values[0] == pytest.approx(values[1], rel=1e-3)
    state = json.loads((out / "checkpoint-12" / "trainer_state.json").read_text("utf-8"))
    assert state["global_step"] == 12
    again = subprocess.run(
        [*command, script, *map(str, settings)], env=environment, check=True, capture_output=True
    )
    assert b"complete already" in again.stdout


def test_one_process_cannot_share_a_model_nor_several_int8(config, capsys):
    assert "fsdp: one process has nobody to share" in refusal(capsys, config, "fsdp=true")
    assert "fsdp: int8 weights cannot" in refusal(capsys, config, "fsdp=true", "load.quantization=int8")


@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
def test_configurations_for_several_gpus_are_read(kind):
    config = load_config(CONFIGS / f"breeze-7b-{kind}.yaml", [])
    assert config.fsdp == (kind == "fsdp")
    assert not config.batch % (4 * config.per_device_batch_size)


def test_a_batch_that_the_processes_cannot_share_is_refused(config, monkeypatch, capsys):
    monkeypatch.setattr(train, "PartialState", lambda cpu: SimpleNamespace(num_processes=3))
    assert "no multiple of per_device_batch_size 8 × 3 processes" in refusal(capsys, config)


def test_a_complete_run_says_so_without_importing_torch(config, out, whole):
    script = "from finetune.__main__ import main; main(); import sys; assert 'torch' not in sys.modules"
    command = [sys.executable, "-c", script, str(config)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    assert "complete already" in done.stdout
    for file in whole.rglob("*"):
        assert not file.is_file() or (out / file.relative_to(whole)).read_bytes() == file.read_bytes()


# What is refused


def test_other_settings_are_refused_and_overwrite_lifts_it(config, out, whole, capsys):
    changes = ["learning_rate=2e-2", "lora.r=4", "records=16", "epochs=1"]
    message = refusal(capsys, config, *changes)
    assert "(records, lora, epochs, learning_rate differ)" in message
    assert "--overwrite" in message
    assert (out / "train_ids.json").read_bytes() == (whole / "train_ids.json").read_bytes()
    assert weights(out / "checkpoint-12") == weights(whole / "checkpoint-12")
    finetune(config, *changes, "--overwrite")
    assert saves(out) == ["checkpoint-1"]
    assert list(log(out)) == [0, 1]
    assert json.loads((out / "checkpoint-1" / "adapter_config.json").read_text("utf-8"))["r"] == 4


def test_changed_weights_of_the_base_model_are_other_settings(config, out, tiny_model, tmp_path, capsys):
    other = make_tiny_model(tmp_path / "other", seed=1)
    base = shutil.copytree(other, tmp_path / tiny_model.name)
    message = refusal(capsys, config, f"base_model={base}")
    assert "(base_model, base_fingerprint differ)" in message


def test_another_output_dir_is_not_another_setting(config, out, capsys):
    moved = out.rename(out.with_name("moved"))
    finetune(config, f"output_dir={moved}")
    assert "complete already" in capsys.readouterr().out


def test_a_cutoff_that_leaves_no_record_is_refused(config, capsys):
    assert "cutoff: all 88 records exceed 16 tokens" in refusal(capsys, config, "cutoff=16")


def test_layers_that_the_model_lacks_are_refused(config, capsys):
    message = refusal(capsys, config, "lora.target_modules=[c_attn]")
    assert "lora.target_modules: " in message
    assert "c_attn" in message


def test_more_records_than_train_has_are_refused(config, tmp_path, capsys):
    message = refusal(capsys, config, "records=601")
    assert "records: 601 were asked for and there are 600 to train on" in message
    assert "include_validation: true" in message
    assert not (tmp_path / "out").exists()


def test_more_records_than_there_are_is_refused_without_a_remedy_that_was_taken(config, capsys):
    message = refusal(capsys, config, "records=631", "include_validation=true")
    assert "631" in message
    assert "630" in message
    assert "include_validation: true" not in message


def test_a_run_on_validation_poems_is_known_for_it(config, tiny_model, tmp_path):
    data, folder = made_up(tmp_path / "data", 16), tmp_path / "out"
    finetune(config, f"data={data}", "validation=4", "records=16", "include_validation=true")
    examples = dataset.load(str(data), 4).examples
    record = json.loads((folder / "train_ids.json").read_text("utf-8"))
    assert set(record["ids"]) == {example.id for example in examples if example.split != "test"}
    # No poem is left to watch by.
    assert not any(row["validation_loss"] for row in log(folder).values())
    study = tmp_path / "study.yaml"
    study.write_text(
        f"name: x\nbase_model: {tiny_model}\ncheckpoints: {folder}\ndata: {{path: {data}, validation: 4}}\n"
    )
    resolved = resolve(load_study(study))
    seen = {checkpoint.name: resolved.seen(checkpoint) for checkpoint in resolved.checkpoints}
    assert seen == {"base": {"validation": 0, "test": 0}, "checkpoint-2": {"validation": 4, "test": 0}}
    with pytest.raises(TangevalError, match="trained on validation examples"):
        check_selection(resolved.study.select, resolved.task.metrics, seen, assume_unseen=False)


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("learning_rat=1", "learning_rat: unknown key; did you mean learning_rate?"),
        ("lora.alfa=1", "lora.alfa: unknown key; did you mean alpha?"),
        ("epochs=many", "epochs: Input should be a valid number"),
        ("records=0", "records: Input should be greater than or equal to 1"),
        ("load.quantization=nf5", "load.quantization: Input should be 'none', 'nf4' or 'int8'"),
        ("load.merge=true", "load.merge: "),
        ("output_dir=null", "output_dir: "),
    ],
)
def test_a_wrong_key_or_value_is_named_with_what_gave_it(config, tmp_path, capsys, override, expected):
    assert f"error: {override!r}: {expected}" in refusal(capsys, config, override)
    assert not (tmp_path / "out").exists()


def test_what_is_wrong_between_an_override_and_the_file_is_named_with_what_gave_it(config, capsys):
    wrong = "batch: 16 is no multiple of per_device_batch_size 5"
    assert f"error: {config}: {wrong}" in refusal(capsys, config, "per_device_batch_size=5")
    assert f"error: 'batch=16': {wrong}" in refusal(capsys, config, "per_device_batch_size=5", "batch=16")


@pytest.mark.parametrize("padding", ["packed", "longest"])
def test_texts_cut_before_their_completions_are_refused(config, tmp_path, capsys, padding):
    said = refusal(capsys, config, "overflow=cut", "cutoff=8", f"padding={padding}")
    assert "cutoff: no completion begins within 8 tokens; raise it" in said


def test_a_base_model_that_is_nowhere_is_refused(config, tmp_path, capsys):
    assert "base_model: nowhere is not a shipped model" in refusal(capsys, config, "base_model=nowhere")
    assert not (tmp_path / "out").exists()


# What is suspect is moved aside; what cannot be read stops the run


@pytest.mark.parametrize("part", ["optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json"])
@pytest.mark.parametrize("damage", ["missing", "cut short"])
def test_a_checkpoint_is_whole_with_all_its_parts_or_not_at_all(config, whole, out, capsys, part, damage):
    shutil.rmtree(out / SAVES[2])
    unfinish(out)
    file = out / SAVES[1] / part
    if damage == "missing":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:-9])
    finetune(config)
    assert re.search(f"moved aside to .*{SAVES[1]}.*tangeval repair", capsys.readouterr().err)
    assert [weights(out / save) for save in SAVES] == [weights(whole / save) for save in SAVES]
    assert len(list(out.glob(f"quarantine/*/{SAVES[1]}/adapter_model.safetensors"))) == 1


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.EACCES])
@pytest.mark.parametrize("name", ["adapter_model.safetensors", "optimizer.pt", ""])
def test_a_checkpoint_that_cannot_be_read_stops_the_run_and_stays(
    config, out, monkeypatch, capsys, number, name
):
    unfinish(out)
    shutil.rmtree(out / SAVES[2])
    before = sorted(out.rglob("*"))
    with monkeypatch.context() as patch:
        unreadable(patch, str(out / SAVES[1] / name), number)
        with pytest.raises(SystemExit):
            finetune(config)
    assert "cannot be read now" in capsys.readouterr().err
    assert [file for file in sorted(out.rglob("*")) if file.name != ".lock"] == before


def test_a_folder_of_ones_own_is_moved_aside_and_brought_back(config, out, capsys):
    unfinish(out)
    (out / "checkpoint-99").mkdir()
    (out / "checkpoint-99" / "mine.txt").write_text("mine")
    (out / "checkpoint-mine").mkdir()
    finetune(config)
    assert re.search("moved aside to .*checkpoint-99", capsys.readouterr().err)
    assert (out / "checkpoint-mine").is_dir()
    (place,) = (out / "quarantine").iterdir()
    api.repair(place)
    assert (out / "checkpoint-99" / "mine.txt").read_text() == "mine"
    assert saves(out)[: len(SAVES)] == SAVES
