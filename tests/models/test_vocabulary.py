"""What each token writes, by tokenizers of several kinds."""

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from tangeval.models.tokens import decode_completion, encode_completion
from tangeval.models.vocabulary import token_name, token_texts
from tests.support.tiny import bpe_tokenizer


@pytest.mark.parametrize("prefix", [False, True], ids=["Gemma's", "Llama's"])
def test_tokens_behind_each_other_write_their_texts(prefix):
    tokenizer = bpe_tokenizer(prefix=prefix)
    texts = token_texts(tokenizer)
    named = {name: texts[number] for name, number in tokenizer.get_vocab().items()}
    assert named["春風"] == "春風"
    assert named["▁春"] == " 春"
    assert named["</s>"] == named["<0xE6>"] == ""  # no text, and no whole character
    ids = encode_completion(tokenizer, "山水", "春風不見明月，。")[:-1]
    assert "".join(texts[i] for i in ids).removeprefix(" ") == decode_completion(tokenizer, ids, cut=False)


def test_tang_minis_tokens_are_characters(mini_tokenizer):
    texts = token_texts(mini_tokenizer)
    assert len(texts) == len(mini_tokenizer)
    assert max(map(len, texts)) < 20
    assert {"春", "，", "。", " "} <= set(texts)


def test_bytes_of_a_character_are_named_as_bytes():
    byte_level = Tokenizer(models.BPE())
    byte_level.pre_tokenizer, byte_level.decoder = (
        pre_tokenizers.ByteLevel(add_prefix_space=False),
        decoders.ByteLevel(),
    )
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    byte_level.train_from_iterator(
        [], trainers.BpeTrainer(initial_alphabet=alphabet, special_tokens=["</s>"])
    )
    own = PreTrainedTokenizerFast(tokenizer_object=byte_level, eos_token="</s>")
    ids = own.encode("春a")
    assert [token_name(own, token) for token in ids] == [*(f"<0x{byte:02X}>" for byte in "春".encode()), "a"]
    assert token_name(own, own.eos_token_id) == "</s>"
    fallback = bpe_tokenizer(prefix=False)
    assert token_name(fallback, fallback.convert_tokens_to_ids("<0xE6>")) == "<0xE6>"


def test_a_row_that_no_token_uses_has_its_number(mini_tokenizer):
    beyond = len(mini_tokenizer) + 5
    assert token_name(mini_tokenizer, beyond) == f"<{beyond}>"
