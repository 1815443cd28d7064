"""Each character's share of a reference's likelihood, with tokenizers of several kinds."""

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from tangeval.engines.likelihood import by_character
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
