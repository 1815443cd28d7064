import json
import shutil

import pytest
import torch
from peft import LoraConfig, get_peft_model
from peft.utils import save_and_load
from transformers import AutoModelForCausalLM, Qwen2Config, Qwen2ForCausalLM

from tangeval.core.errors import TangevalError
from tangeval.core.types import Checkpoint, Load
from tangeval.models.adapters import with_checkpoint
from tangeval.models.checkpoints import (
    TrainRecord,
    check_tokenizer,
    discover,
    fingerprint,
    resolve_base,
    trained_on,
)
from tangeval.models.folders import tensors
from tangeval.models.loading import load_model
from tests.support.tiny import make_adapter, make_tiny_model


@pytest.fixture
def run_folder(tiny_run, tmp_path):
    return shutil.copytree(tiny_run, tmp_path / "run")


def test_a_trainers_folder_gives_its_checkpoints_by_step(run_folder):
    shutil.copytree(run_folder / "checkpoint-20", run_folder / "checkpoint-100")
    found, skipped = discover([str(run_folder)])
    assert [(c.name, c.step, c.kind) for c in found] == [
        ("checkpoint-10", 10, "adapter"), ("checkpoint-20", 20, "adapter"), ("checkpoint-100", 100, "adapter"),
    ]  # fmt: skip
    assert skipped == ()


@pytest.mark.parametrize("kept", [0, 4, 100, 0.5, 0.999])
def test_weights_cut_short_are_never_a_checkpoint(run_folder, kept):
    file = run_folder / "checkpoint-20" / "adapter_model.safetensors"
    data = file.read_bytes()
    file.write_bytes(data[: int(kept * len(data)) if kept < 1 else kept])
    found, skipped = discover([str(run_folder)])
    assert [c.name for c in found] == ["checkpoint-10"]
    assert skipped[0].reason == "adapter_model.safetensors is missing or cut short"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("trainer_state.json", ""),
        ("trainer_state.json", '{"global_step": 2'),
        ("optimizer.pt", "x"),
        ("rng_state_0.pth", "x"),
    ],
)
def test_a_save_without_its_last_file_is_never_a_checkpoint(run_folder, name, content):
    (run_folder / "checkpoint-20" / "trainer_state.json").unlink()
    (run_folder / "checkpoint-20" / name).write_text(content)
    found, skipped = discover([str(run_folder)])
    assert [c.name for c in found] == ["checkpoint-10"]
    assert "cut off" in skipped[0].reason


def test_a_pickle_is_refused_unless_allowed(run_folder):
    save = run_folder / "checkpoint-20"
    (save / "adapter_model.safetensors").rename(save / "adapter_model.bin")
    with pytest.raises(TangevalError, match=r"adapter_model\.bin is a pickle.*--allow-pickle"):
        discover([str(run_folder)])
    assert len(discover([str(run_folder)], allow_pickle=True)[0]) == 2


def test_one_adapter_and_a_full_model_can_be_named_themselves(run_folder, tiny_model):
    found, _ = discover([str(run_folder / "checkpoint-10"), str(tiny_model)])
    assert [(c.name, c.step, c.kind) for c in found] == [
        ("checkpoint-10", 10, "adapter"),
        ("tiny", None, "full"),
    ]


def test_equal_names_of_two_runs_are_told_apart(run_folder):
    other = shutil.copytree(run_folder, run_folder.parent / "other")
    found, _ = discover([str(run_folder), str(other)])
    assert [c.name for c in found] == [
        "run/checkpoint-10", "run/checkpoint-20", "other/checkpoint-10", "other/checkpoint-20",
    ]  # fmt: skip


@pytest.mark.parametrize(("place", "message"), [("nowhere", "no folder"), ("empty", "expected an adapter")])
def test_what_is_no_checkpoint_is_named(tmp_path, place, message):
    (tmp_path / "empty").mkdir()
    with pytest.raises(TangevalError, match=message):
        discover([str(tmp_path / place)])


def test_whole_safetensors_knows_its_length(tiny_model, tmp_path):
    file = tmp_path / "x.safetensors"
    data = (tiny_model / "model.safetensors").read_bytes()
    file.write_bytes(data)
    assert tensors(file)
    file.write_bytes(data + b"x")
    assert tensors(file) is None


def test_fingerprint_changes_with_one_byte_of_weights(run_folder):
    folder = run_folder / "checkpoint-10"
    before = fingerprint(folder)
    file = folder / "adapter_model.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    assert fingerprint(folder) != before


def test_train_ids_are_found_beside_or_above(run_folder):
    (run_folder / "train_ids.json").write_text(json.dumps({"hashes": ["a"]}))
    found, _ = discover([str(run_folder)])
    assert trained_on(found[0]) == TrainRecord(frozenset({"a"}))
    (run_folder / "train_ids.json").unlink()
    assert trained_on(found[0]) is None


def test_a_base_that_is_nothing_says_what_would_be(tmp_path):
    with pytest.raises(TangevalError, match="tang-mini"):
        resolve_base("tang_mini")
    with pytest.raises(TangevalError, match="no file"):
        resolve_base("model.gguf")
    (tmp_path / "x").mkdir()
    with pytest.raises(TangevalError, match=r"config\.json"):
        resolve_base(str(tmp_path / "x"))


@pytest.mark.parametrize("merge", [False, True])
def test_the_base_model_is_the_same_after_each_checkpoint(tiny_model, run_folder, merge):
    load = Load(merge=merge)
    base = load_model(resolve_base(str(tiny_model)), load)
    ids = torch.arange(20)[None]
    with torch.inference_mode():
        before = base(ids).logits
        outputs = []
        for checkpoint in (*discover([str(run_folder)])[0], *discover([str(run_folder)])[0]):
            with with_checkpoint(base, checkpoint, load) as model:
                outputs.append(model(ids).logits)
        assert torch.equal(base(ids).logits, before)
    assert torch.equal(outputs[0], outputs[2])
    assert torch.equal(outputs[1], outputs[3])
    assert not torch.allclose(outputs[0], outputs[1], atol=1e-3)
    assert not torch.allclose(outputs[0], before, atol=1e-3)


def test_merged_weights_answer_as_unmerged_ones(tiny_model, run_folder):
    (checkpoint, _), _ = discover([str(run_folder)])
    ids = torch.arange(20)[None]
    answers = []
    for merge in (False, True):
        base = load_model(resolve_base(str(tiny_model)), Load(merge=merge))
        with torch.inference_mode(), with_checkpoint(base, checkpoint, Load(merge=merge)) as model:
            answers.append(model(ids).logits)
    assert torch.allclose(answers[0], answers[1], atol=1e-4)


def test_an_adapter_trained_elsewhere_asks_nothing_of_the_hub(tiny_model, run_folder, monkeypatch):
    (checkpoint, _), _ = discover([str(run_folder)])
    config = checkpoint.path / "adapter_config.json"
    config.write_text(
        json.dumps(json.loads(config.read_text()) | {"base_model_name_or_path": "/elsewhere/base"})
    )
    asked = []
    monkeypatch.setattr(save_and_load, "check_file_exists_on_hf_hub", lambda *names: asked.append(names))
    base = load_model(resolve_base(str(tiny_model)), Load())
    with with_checkpoint(base, checkpoint, Load()):
        assert not asked


def test_a_full_model_is_loaded_as_itself(tiny_model):
    checkpoint = Checkpoint("tiny", None, tiny_model, "full")
    expected = AutoModelForCausalLM.from_pretrained(tiny_model).eval()
    ids = torch.arange(9)[None]
    with torch.inference_mode(), with_checkpoint(expected, checkpoint, Load()) as model:
        assert model is not expected
        assert torch.equal(model(ids).logits, expected(ids).logits)


def test_nf4_and_int8_load_and_answer_on_this_machine(tiny_model):
    ids = torch.arange(9)[None]
    for quantization in ("nf4", "int8"):
        model = load_model(resolve_base(str(tiny_model)), Load(quantization=quantization))
        with torch.inference_mode():
            assert model(ids).logits.isfinite().all()


@pytest.mark.parametrize("extra", [{"modules_to_save": ["lm_head"]}, {"bias": "all"}])
def test_what_an_adapter_trained_whole_goes_with_it(tmp_path, extra):
    """peft's own unload leaves saved modules and biases in the model."""
    torch.manual_seed(0)
    size = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    Qwen2ForCausalLM(Qwen2Config(**size, num_attention_heads=2, num_key_value_heads=2)).save_pretrained(
        tmp_path / "base"
    )
    adapted = get_peft_model(
        AutoModelForCausalLM.from_pretrained(tmp_path / "base"),
        LoraConfig(target_modules=["q_proj"], **extra),
    )
    for parameter in adapted.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter)
    adapted.save_pretrained(tmp_path / "adapter")
    base = load_model(resolve_base(str(tmp_path / "base")), Load())
    ids = torch.arange(9)[None]
    with torch.inference_mode():
        before = base(ids).logits
        with with_checkpoint(base, Checkpoint("a", None, tmp_path / "adapter", "adapter"), Load()) as model:
            assert torch.allclose(model(ids).logits, adapted.eval()(ids).logits, atol=1e-4)
        assert torch.equal(base(ids).logits, before)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [({"layers": 1}, "made for another base"), ({"layers": 3}, "made for another base"), ({"hidden": 128}, "does not fit")],
)  # fmt: skip
def test_an_adapter_of_another_model_is_refused(tiny_model, tmp_path, sizes, message):
    """Where each layer's sizes fit, peft loads what it finds and warns."""
    other = make_tiny_model(tmp_path / "other", **sizes)
    adapter = make_adapter(other, tmp_path / "adapter")
    base = load_model(resolve_base(str(tiny_model)), Load())
    checkpoint = Checkpoint("adapter", None, adapter, "adapter")
    with pytest.raises(TangevalError, match=message), with_checkpoint(base, checkpoint, Load()):
        pass


def test_a_full_model_of_another_vocabulary_is_refused(tiny_model, tmp_path):
    base, same = resolve_base("tang-mini"), Checkpoint("tiny", None, tiny_model, "full")
    with pytest.raises(TangevalError, match="another vocabulary"):
        check_tokenizer(base, same)
    check_tokenizer(resolve_base(str(tiny_model)), same)


def test_nf4_is_merged_into_the_values_that_it_left(tiny_model, run_folder):
    """Merged nf4 answers as unmerged nf4 does, and not as the weights did before they were rounded."""
    (checkpoint, *_), _ = discover([str(run_folder)])
    ids, logits = torch.tensor([[5, 6, 7, 8, 9]]), {}
    for name, load in {
        "apart": Load("nf4"),
        "merged": Load("nf4", merge=True),
        "exact": Load(merge=True),
    }.items():
        base = load_model(resolve_base(str(tiny_model)), load)
        assert name == "apart" or not any("4bit" in type(m).__name__ for m in base.modules())
        assert base.model.rotary_emb.inv_freq.dtype == torch.float32
        with torch.inference_mode(), with_checkpoint(base, checkpoint, load) as model:
            logits[name] = model(ids).logits[0, -1].float()
    near = (logits["merged"] - logits["apart"]).norm()
    assert near < 0.02 * logits["apart"].norm()
    assert near < 0.2 * (logits["exact"] - logits["apart"]).norm()


def test_a_tied_weight_is_not_merged_into(tmp_path):
    """The embedding would be changed with the head that an adapter was trained on."""
    config = Qwen2Config(
        vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=2, tie_word_embeddings=True, pad_token_id=0,
    )  # fmt: skip
    model = Qwen2ForCausalLM(config)
    get_peft_model(Qwen2ForCausalLM(config), LoraConfig(target_modules=["lm_head"])).save_pretrained(tmp_path)
    checkpoint = Checkpoint("head", 1, tmp_path, "adapter")
    with pytest.raises(TangevalError, match="tied"), with_checkpoint(model, checkpoint, Load(merge=True)):
        pass
    with with_checkpoint(model, checkpoint, Load()):
        pass
