"""What each token writes, by tokenizers of several kinds."""

import pytest

from tangeval.models.tokens import decode_completion, encode_completion
from tangeval.models.vocabulary import token_texts
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
