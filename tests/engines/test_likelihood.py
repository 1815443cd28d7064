"""Each character's share of a reference's likelihood, with tokenizers of several kinds."""

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from tangeval.core.types import Base
from tangeval.engines.likelihood import by_character, scorer
from tangeval.tasks.tang.text import han


def tokenizer_of(vocabulary, **options):
    """Byte fallback for what ``vocabulary`` lacks, as Llama 2's and Gemma's."""
    tokens = ["<unk>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *vocabulary]
    merges = [(word[:1], word[1:]) for word in vocabulary if len(word) == 2]
    tokenizer = Tokenizer(
        models.BPE({t: n for n, t in enumerate(tokens)}, merges, byte_fallback=True, unk_token="<unk>")
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Split("，", "isolated")
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", eos_token="</s>")


def test_tokens_are_characters_parts_of_them_or_several():
    tokenizer = tokenizer_of(["白", "日", "白日", "，", " "])
    tokens = [*tokenizer.encode(" 白日，山", add_special_tokens=False), 1]
    assert tokenizer.convert_ids_to_tokens(tokens) == [
        " ", "白日", "，", "<0xE5>", "<0xB1>", "<0xB1>", "</s>"
    ]  # fmt: skip
    nats = [9.0, 3.0, 9.0, 1.0, 2.0, 0.5, 9.0]
    assert by_character(tokenizer, tokens, nats, "白日山", han) == pytest.approx([1.5, 1.5, 3.5])


def test_an_unknown_character_keeps_its_place():
    tokenizer = tokenizer_of(["白", "日"])
    assert by_character(tokenizer, [258, 0, 259, 1], [1.0, 2.0, 3.0, 4.0], "白山日", han) == [1.0, 2.0, 3.0]


def test_a_tokenizer_that_spells_other_characters_has_no_places():
    tokenizer = tokenizer_of(["白", "日"])
    assert by_character(tokenizer, [258, 1], [1.0, 2.0], "白日", han) == []


def test_a_text_after_its_prompt_has_the_loss_that_transformers_gives(tiny_model, model, tokenizer):
    pairs = [("白日", "依山盡"), ("黃河入海流，", "欲窮千里目。"), ("白日", "")]
    found = scorer(Base("tiny", str(tiny_model)))(pairs)
    for (prompt, text), nats in zip(pairs, found, strict=True):
        given = tokenizer.encode(prompt, add_special_tokens=False)
        answer = [*tokenizer.encode(f" {text}", add_special_tokens=False), tokenizer.eos_token_id]
        ids = torch.tensor([[tokenizer.bos_token_id, *given, *answer]])
        labels = ids.where(torch.arange(ids.shape[1]) > len(given), -100)
        with torch.inference_mode():
            assert nats == pytest.approx(float(model(ids, labels=labels).loss) * len(answer), rel=1e-4)
