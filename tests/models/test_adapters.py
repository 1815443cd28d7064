"""Every type of adapter that peft has, one after another on one base model."""

import copy
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel, PeftType, get_peft_model
from peft.config import PromptLearningConfig
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING as CONFIGS
from peft.mapping import PEFT_TYPE_TO_TUNER_MAPPING as TUNERS
from peft.tuners.tuners_utils import BaseTuner
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, LlamaConfig, LlamaForCausalLM

from tangeval.core.errors import TangevalError, UnusableError
from tangeval.core.types import Checkpoint, Load
from tangeval.models.adapter_kinds import NO_LAYERS, unsupported
from tangeval.models.adapters import checksum, with_checkpoint
from tangeval.models.checkpoints import resolve_base
from tangeval.models.loading import load_model

LINEAR = ["q_proj", "v_proj", "down_proj"]
#: What a type needs beside the modules that it adapts.
NEEDS: dict[str, dict[str, Any]] = {
    "ADALORA": {"total_step": 10},
    "BOFT": {"boft_block_size": 4},
    "C3A": {"block_size": 16},
    "FOURIERFT": {"n_frequency": 50},
    "IA3": {"feedforward_modules": ["down_proj"]},
    "LN_TUNING": {"target_modules": ["input_layernorm", "norm"]},
    "OFT": {"oft_block_size": 4},
    "TRAINABLE_TOKENS": {"target_modules": ["embed_tokens"], "token_indices": [5, 6, 7]},
    "VBLORA": {"vector_length": 32, "num_vectors": 32, "topk": 2},
    "WAVEFT": {"n_frequency": 50},
}
#: Ways of a LoRA that change or carry tensors of the base model, or compute otherwise.
LORA: dict[str, dict[str, Any]] = {
    "plain": {},
    "pissa": {"init_lora_weights": "pissa"},
    "pissa_niter": {"init_lora_weights": "pissa_niter_4"},
    "olora": {"init_lora_weights": "olora"},
    "orthogonal": {"init_lora_weights": "orthogonal"},
    "eva": {"init_lora_weights": "eva"},
    "loftq": {"init_lora_weights": "loftq", "loftq_config": {"loftq_bits": 4, "loftq_iter": 1}},
    "dora": {"use_dora": True},
    "rslora": {"use_rslora": True},
    "lora_bias": {"lora_bias": True},
    "bias": {"bias": "all"},
    "whole_modules": {"modules_to_save": ["lm_head", "embed_tokens"]},
    "embedding": {"target_modules": ["embed_tokens", "q_proj"]},
    "new_tokens": {"trainable_token_indices": [5, 6, 7]},
    "replicated": {"layer_replication": [[0, 2], [1, 2]]},
}
IDS = torch.arange(4, 24)[None]
#: Cannot be merged, and say so.
APART = {"LILY", "replicated"}


@pytest.fixture(scope="module")
def base_folder(tmp_path_factory):
    """A Llama whose layers have biases."""
    folder = tmp_path_factory.mktemp("base")
    size = {"vocab_size": 64, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2}
    torch.manual_seed(0)
    config = LlamaConfig(
        **size, num_attention_heads=2, initializer_range=0.3, attention_bias=True, mlp_bias=True
    )
    model = LlamaForCausalLM(config)
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(parameter)
    model.save_pretrained(folder)
    return folder


def write_adapter(base: Path, folder: Path, kind: str) -> Checkpoint:
    """An adapter of a type, or of a way of LoRA's, its weights moved from where training begins."""
    torch.manual_seed(1)
    needs, kind = (LORA[kind], "LORA") if kind in LORA else (NEEDS.get(kind, {}), kind)
    config = CONFIGS[PeftType(kind)](**{"task_type": "CAUSAL_LM", "target_modules": LINEAR} | needs)
    adapted = get_peft_model(AutoModelForCausalLM.from_pretrained(base), config)
    with torch.no_grad():
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.05)
    adapted.save_pretrained(folder)
    return Checkpoint(folder.name, None, folder, "adapter")


@torch.inference_mode()
def logits(model: Any) -> torch.Tensor:
    return model(IDS, use_cache=False).logits


def alone(base: Path, checkpoint: Checkpoint) -> torch.Tensor:
    """What peft's own model says, loaded for it."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(base)
    return logits(PeftModel.from_pretrained(model, checkpoint.path).eval())


def described(model: Any) -> Any:
    """The model's modules with their attributes, and its configuration."""
    return [
        (n, type(m), sorted(vars(m)), sorted(m._forward_pre_hooks)) for n, m in model.named_modules()
    ], model.config.to_dict()


LAYERS = sorted(t.value for t in CONFIGS if t.value not in {*NO_LAYERS, "LORA", "POLY", "XLORA"})
#: In every run of the tests; the others in ``make matrix``.
QUICK = {
    "plain",
    "pissa",
    "olora",
    "embedding",
    "whole_modules",
    "new_tokens",
    "replicated",
    "IA3",
    "LOKR",
    "OFT",
}


def each(kinds: Iterable[str]) -> list[Any]:
    return [pytest.param(kind, id=kind, marks=[] if kind in QUICK else pytest.mark.matrix) for kind in kinds]


@pytest.mark.parametrize("merge", [False, True], ids=["apart", "merged"])
@pytest.mark.parametrize("kind", each([*LORA, *LAYERS]))
def test_an_adapter_leaves_nothing(base_folder, tmp_path, kind, merge):
    """X, a plain LoRA, X: each answers as alone, and the base is bit for bit what it was."""
    if kind == "ADAMSS":
        pytest.importorskip("sklearn")
    if kind == "loftq" and not torch.cuda.is_available():
        pytest.skip("peft quantises for LoftQ on a GPU alone")
    odd = write_adapter(base_folder, tmp_path / "odd", kind)
    plain = write_adapter(base_folder, tmp_path / "plain", "plain")
    load = Load(merge=merge)
    base = load_model(resolve_base(str(base_folder)), load)
    before, attributes, expected = (
        checksum(base),
        described(base),
        {c.name: alone(base_folder, c) for c in (odd, plain)},
    )
    for checkpoint in (odd, plain, odd):
        if merge and checkpoint is odd and kind in APART:
            with (
                pytest.raises(UnusableError, match="leave merge out"),
                with_checkpoint(base, checkpoint, load),
            ):
                pass
        else:
            with with_checkpoint(base, checkpoint, load) as model:
                torch.testing.assert_close(logits(model), expected[checkpoint.name], atol=1e-3, rtol=0)
        assert checksum(base) == before
        assert described(base) == attributes
    torch.testing.assert_close(
        logits(base), logits(AutoModelForCausalLM.from_pretrained(base_folder)), atol=0, rtol=0
    )


def test_what_is_no_layer_is_refused_by_its_configuration(tmp_path):
    """The list is peft's: what is learned in place of a prompt, and what is no tuner of layers."""
    prompts = {t.value for t, config in CONFIGS.items() if issubclass(config, PromptLearningConfig)}
    others = {t.value for t in CONFIGS if not issubclass(TUNERS[t], BaseTuner)}
    assert prompts | others | {"SHADOW"} == set(NO_LAYERS)
    configs = [{"peft_type": kind} for kind in (*NO_LAYERS, "POLY")]
    configs += [{"peft_type": "LORA", key: value} for key, value in
                [("alora_invocation_tokens", [1]), ("arrow_config", {"top_k": 3})]]  # fmt: skip
    for config in configs:
        (tmp_path / "adapter_config.json").write_text(json.dumps(config))
        assert "cannot be evaluated" in unsupported(tmp_path)
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "LORA", "arrow_config": null}')
    assert unsupported(tmp_path) is None


@pytest.mark.parametrize("merge", [False, True])
def test_new_tokens_of_tied_embeddings(tmp_path, merge):
    """Their rows stand in both, and go from both."""
    size = {"vocab_size": 64, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 1}
    config = LlamaConfig(**size, num_attention_heads=2, tie_word_embeddings=True)
    LlamaForCausalLM(config).save_pretrained(tmp_path / "base")
    checkpoint = write_adapter(tmp_path / "base", tmp_path / "new", "new_tokens")
    base, load = load_model(resolve_base(str(tmp_path / "base")), Load()), Load(merge=merge)
    before = checksum(base)
    with with_checkpoint(base, checkpoint, load) as model:
        torch.testing.assert_close(logits(model), alone(tmp_path / "base", checkpoint), atol=1e-4, rtol=0)
    assert checksum(base) == before


@pytest.mark.parametrize("change", ["flipped", "moved", "half"])
def test_a_checksum_sees_a_bit_and_an_order(model, change):
    changed = copy.deepcopy(model)
    weight = changed.lm_head.weight.data
    if change == "flipped":
        weight[0, 0] *= -1
    elif change == "moved":
        weight[[0, 1]] = weight[[1, 0]]
    else:
        weight[3, 5] += weight[3, 5].abs() * 2**-23
    assert checksum(changed) != checksum(model)


@pytest.fixture
def quantised(base_folder, tmp_path):
    """The base stored in 4 or 8 bits, which its own configuration says."""

    def write(**how: Any) -> Path:
        config = BitsAndBytesConfig(**how)
        model = AutoModelForCausalLM.from_pretrained(
            base_folder, quantization_config=config, device_map={"": "cpu"}
        )
        model.save_pretrained(tmp_path / "few")
        return tmp_path / "few"

    return write


def test_a_base_stored_in_4_bits_is_merged_into_the_values_that_they_stand_for(
    base_folder, quantised, tmp_path
):
    few = quantised(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.float32)
    checkpoint = write_adapter(base_folder, tmp_path / "plain", "plain")
    base = load_model(resolve_base(str(few)), Load(merge=True))
    assert not any("4bit" in type(m).__name__ for m in base.modules())
    before = checksum(base)
    with with_checkpoint(base, checkpoint, Load()) as model:
        expected = logits(model)
    with with_checkpoint(base, checkpoint, Load(merge=True)) as model:
        torch.testing.assert_close(logits(model), expected, atol=1e-3, rtol=0)
    assert checksum(base) == before


@pytest.mark.parametrize(
    ("how", "load", "message"),
    [
        ({"load_in_8bit": True}, Load(merge=True), r"load\.merge: .* is quantised \(int8\)"),
        (
            {"load_in_8bit": True},
            Load("nf4"),
            r"load\.quantization: .* is quantised already \(int8\); use none",
        ),
        (
            {"load_in_4bit": True},
            Load("int8"),
            r"load\.quantization: .* is quantised already \(nf4\); use none",
        ),
    ],
)
def test_what_does_not_suit_a_quantised_base_is_refused(quantised, how, load, message):
    with pytest.raises(TangevalError, match=message):
        load_model(resolve_base(str(quantised(**how))), load)


@pytest.mark.parametrize(
    "how", [{"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}, {"load_in_8bit": True}]
)
@pytest.mark.parametrize("kind", ["olora", "whole_modules"])
def test_few_bits_come_back_too(base_folder, quantised, tmp_path, how, kind):
    odd = write_adapter(base_folder, tmp_path / "odd", kind)
    plain = write_adapter(base_folder, tmp_path / "plain", "plain")
    base, said = load_model(resolve_base(str(quantised(**how))), Load()), []
    before = checksum(base)
    for checkpoint in (plain, odd, plain, odd):
        with with_checkpoint(base, checkpoint, Load()) as model:
            said.append(logits(model))
        assert checksum(base) == before
    torch.testing.assert_close(said[0], said[2], atol=0, rtol=0)
    torch.testing.assert_close(said[1], said[3], atol=0, rtol=0)
