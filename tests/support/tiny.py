"""A random little model with a character tokenizer, for tests that need a real one."""

from pathlib import Path

import torch
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from tangeval.tasks.tang.data import SAMPLE
from tangeval.tasks.tang.prompt import SYSTEM

SPECIAL = ("<pad>", "<unk>", "<s>", "</s>")


def make_tiny_model(folder: Path, seed: int = 0, hidden: int = 64, layers: int = 2) -> Path:
    """Write a random Llama (fp32) and a tokenizer of the sample's characters and ASCII to ``folder``.

    Sizes are multiples of 64, so that bitsandbytes can quantise them; weights are spread
    widely, so that the next token is neither certain nor uniform.
    """
    texts = [file.read_text(encoding="utf-8") for file in SAMPLE.glob("Tang*")]
    characters = sorted({*"".join(texts), *SYSTEM, *map(chr, range(32, 127)), "\n"})
    vocabulary = {token: number for number, token in enumerate((*SPECIAL, *characters))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    tokenizer.decoder = decoders.Fuse()
    names = dict(zip(("pad_token", "unk_token", "bos_token", "eos_token"), SPECIAL, strict=True))
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names).save_pretrained(folder)
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=-(-len(vocabulary) // 64) * 64,
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=512,
        initializer_range=0.3,
        pad_token_id=0,
        bos_token_id=2,
        eos_token_id=3,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def make_adapter(
    base: Path, folder: Path, seed: int = 1, modules: tuple[str, ...] = ("q_proj", "v_proj", "down_proj")
) -> Path:
    """Write a LoRA adapter of random weights (not the zeros that training begins with) for ``base``."""
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(seed)
    model = LlamaForCausalLM.from_pretrained(base)
    adapted = get_peft_model(model, LoraConfig(r=8, target_modules=list(modules)))
    for name, parameter in adapted.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.2)
    adapted.save_pretrained(folder)
    return folder


def bpe_tokenizer(*, prefix: bool) -> PreTrainedTokenizerFast:
    """A tokenizer of Gemma's kind, with bytes to fall back on and tokens of several characters; with ``prefix`` of Llama's.

    Llama's and Breeze's put a space before a text and take it off again when they decode.
    """
    texts = "".join(file.read_text(encoding="utf-8") for file in SAMPLE.glob("Tang*"))
    characters = sorted({character for character in texts if character > "\x7f"})
    pairs = [("春", "風"), ("明", "月"), ("不", "見"), ("▁", "春"), ("。", "不"), ("春風", "不")]
    pieces = [
        *SPECIAL,
        *(f"<0x{byte:02X}>" for byte in range(256)),
        "▁",
        "▁▁",
        "AB",
        *characters,
        *map("".join, pairs),
    ]
    vocabulary = {token: number for number, token in enumerate(dict.fromkeys(pieces))}
    tokenizer = Tokenizer(models.BPE(vocabulary, pairs, byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    spaces = normalizers.Replace(" ", "▁")
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), spaces]) if prefix else spaces
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    tokenizer.decoder = decoders.Sequence([*steps, *[decoders.Strip(" ", 1, 0)] * prefix])
    names = dict(zip(("pad_token", "unk_token", "bos_token", "eos_token"), SPECIAL, strict=True))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names)
