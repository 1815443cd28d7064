"""The prompt and the completion as tokens, for tokenizers of several kinds."""

import random

import pytest
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from tangeval.core.errors import TangevalError
from tangeval.models.checkpoints import resolve_base
from tangeval.models.tokens import decode_completion, encode_completion, encode_prompt, spelling_problem
from tangeval.tasks.tang import data as dataset
from tangeval.tasks.tang.prompt import asked, prompt_text

EXAMPLE = dataset.load("sample").split("test")[0]
POEM = "不知棟裏雲，去作人間雨。"


def characters(*, llama2: bool, eos: str | None = "</s>") -> PreTrainedTokenizerFast:
    """A character tokenizer; with Llama 2's normaliser, which puts a space before every text."""
    letters = sorted({*prompt_text(EXAMPLE), *POEM, "▁", " "})
    core = Tokenizer(
        models.WordLevel({t: n for n, t in enumerate(["<unk>", "<s>", "</s>", *letters])}, "<unk>")
    )
    core.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    core.decoder = decoders.Fuse()
    if llama2:
        core.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
        core.decoder = decoders.Sequence(
            [decoders.Replace("▁", " "), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
        )
    return PreTrainedTokenizerFast(tokenizer_object=core, unk_token="<unk>", bos_token="<s>", eos_token=eos)


@pytest.mark.parametrize("llama2", [False, True])
def test_prompt_and_completion_are_the_whole_text_tokenised_at_once(llama2):
    """As the homework tokenises it: prompt, a space, the poem."""
    tokenizer = characters(llama2=llama2)
    whole = tokenizer.encode(f"{prompt_text(EXAMPLE)} {POEM}", add_special_tokens=False)
    prompt = encode_prompt(tokenizer, asked(EXAMPLE, "hw5"))
    completion = encode_completion(tokenizer, asked(EXAMPLE, "hw5"), POEM)
    assert prompt + completion == [tokenizer.bos_token_id, *whole, tokenizer.eos_token_id]
    assert decode_completion(tokenizer, completion[:-1], cut=False) == POEM


def test_text_survives_tang_minis_tokens():
    tokenizer = AutoTokenizer.from_pretrained(resolve_base("tang-mini").source)
    completion = encode_completion(tokenizer, asked(EXAMPLE, "hw5"), POEM)
    assert tokenizer.decode(completion[:1]) == " "
    assert decode_completion(tokenizer, completion[:-1], cut=False) == POEM


def byte_level() -> PreTrainedTokenizerFast:
    """As GPT-2's and Qwen's: every character is its bytes."""
    letters = {c: n for n, c in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    core = Tokenizer(models.BPE(letters, []))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    core.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=core)


def byte_fallback() -> PreTrainedTokenizerFast:
    """As Llama's and Mistral's: some characters are tokens, others fall back to their bytes."""
    tokens = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", *"不知雲，"]
    core = Tokenizer(
        models.BPE({t: n for n, t in enumerate(tokens)}, [], unk_token="<unk>", byte_fallback=True)
    )
    core.normalizer = normalizers.Replace(" ", "▁")
    core.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    return PreTrainedTokenizerFast(tokenizer_object=core, unk_token="<unk>")


@pytest.mark.parametrize("make", [byte_level, byte_fallback])
def test_bytes_that_a_cut_leaves_unfinished_are_dropped(make):
    tokenizer = make()
    ids = tokenizer.encode(f" {POEM}")
    texts = [decode_completion(tokenizer, ids[:length], cut=True) for length in range(1, len(ids) + 1)]
    assert texts[-1] == POEM
    assert all(POEM.startswith(text) for text in texts)
    assert len(set(texts)) == len(POEM) + 1


@pytest.mark.parametrize("make", [byte_level, byte_fallback])
def test_any_tokens_decode_to_text_that_can_be_written(make):
    """A hot model draws bytes that make no character: they become U+FFFD, never an error or half a surrogate."""
    tokenizer, noise = make(), random.Random(0)
    for _ in range(300):
        ids = [noise.randrange(len(tokenizer)) for _ in range(noise.randrange(1, 30))]
        text = decode_completion(tokenizer, ids, cut=False)
        assert text.encode("utf-8").decode("utf-8") == text


def test_a_template_that_knows_no_system_role_opens_the_question_with_it():
    tokenizer = characters(llama2=False)
    tokenizer.chat_template = (
        "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('System role not supported') }}"
        "{% endif %}[INST] {{ m.content }} [/INST]{% endfor %}"
    )
    text = tokenizer.decode(encode_prompt(tokenizer, asked(EXAMPLE, "chat")))
    assert text.startswith("[INST] You are a helpful assistant")
    assert EXAMPLE.input in text


def test_a_tokenizer_without_what_is_needed_is_refused():
    with pytest.raises(TangevalError, match="use prompt: hw5"):
        encode_prompt(characters(llama2=False), asked(EXAMPLE, "chat"))
    with pytest.raises(TangevalError, match="no EOS"):
        encode_completion(characters(llama2=False, eos=None), asked(EXAMPLE, "hw5"), POEM)


def word_pieces(letters: str) -> PreTrainedTokenizerFast:
    """BERT's kind, which knows these characters alone and decodes them with spaces between."""
    core = Tokenizer(
        models.WordPiece({t: n for n, t in enumerate(["[UNK]", "[SEP]", *letters])}, unk_token="[UNK]")
    )
    core.normalizer, core.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    core.decoder = decoders.WordPiece()
    return PreTrainedTokenizerFast(tokenizer_object=core, unk_token="[UNK]", eos_token="[SEP]")


def test_what_a_decoder_of_word_pieces_parts_is_joined():
    tokenizer = word_pieces("".join(dict.fromkeys(POEM + "山水人日月")))
    ids = encode_completion(tokenizer, "", POEM)[:-1]
    assert " " in tokenizer.decode(ids)
    assert decode_completion(tokenizer, ids, cut=False) == POEM
    assert spelling_problem(tokenizer, [POEM]) == ""


def test_what_a_tokenizer_cannot_spell_is_told_with_an_example():
    problem = spelling_problem(
        word_pieces("不知棟裏，去作人間。"), [POEM, "不知人間，去作人間。", "不知棟裏，去作人間。"]
    )
    assert "cannot write 1 of 3 references as they are: '不知棟裏雲，去作人間雨。'" in problem
    assert "it lacks 雲雨; their scores suffer" in problem
    assert "no text can be right" in spelling_problem(word_pieces("天"), [POEM])


@pytest.mark.parametrize("llama2", [False, True])
def test_a_space_that_a_model_wrote_stays(llama2):
    tokenizer = characters(llama2=llama2)
    ids = encode_completion(tokenizer, "", "不知 棟裏")[:-1]
    assert decode_completion(tokenizer, ids, cut=False) == "不知 棟裏"
