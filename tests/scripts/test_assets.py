"""The embedded sample and tang-mini, as they are shipped."""

import json
import string
from collections import Counter

import pytest
from opencc import OpenCC
from safetensors import safe_open
from transformers import AutoTokenizer

from tangeval.core.types import ASSETS, Example
from tangeval.models.tokens import encode_completion, encode_prompt
from tangeval.tasks.tang import data as dataset
from tangeval.tasks.tang.prompt import asked
from tangeval.tasks.tang.text import as_verse, clauses

TANG_MINI = ASSETS / "tang-mini"


@pytest.fixture(scope="module")
def sample():
    return dataset.load("sample")


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(TANG_MINI)


def whole(example: Example) -> str:
    return example.input + example.reference


def round_trip(tokenizer, text: str) -> str:
    ids = tokenizer.encode(text, add_special_tokens=False)
    assert tokenizer.unk_token_id not in ids
    return tokenizer.decode(ids)


def test_the_sample_has_600_poems_to_train_on_30_to_validate_and_15_to_test(sample):
    assert [len(sample.split(split)) for split in ("train", "validation", "test")] == [600, 30, 15]
    assert [e.id for e in sample.split("validation")] == [f"train-{n}" for n in range(601, 631)]


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_each_split_of_the_sample_mixes_metres_and_lengths(sample, split):
    shapes = Counter((len(clauses(whole(e))[0]), len(clauses(whole(e)))) for e in sample.split(split))
    assert set(shapes) == {(5, 4), (5, 8), (7, 4), (7, 8)}
    assert min(shapes.values()) >= 3


def test_the_sample_is_regulated_verse_with_commas_and_full_stops(sample):
    for example in sample.examples:
        assert len({len(clause) for clause in clauses(whole(example))}) == 1
        assert whole(example) == as_verse(whole(example))


def test_the_sample_is_in_traditional_characters(sample):
    # What is written alike in both scripts says nothing; simplified forms would change.
    text = "".join(map(whole, sample.examples))
    to_traditional, to_simplified = OpenCC("s2t"), OpenCC("t2s")
    simplified = sum(to_traditional.convert(c) != c and to_simplified.convert(c) == c for c in text)
    traditional = sum(to_simplified.convert(c) != c for c in text)
    assert traditional > 0.2 * len(text)
    assert simplified < 0.03 * len(text)


def test_no_two_poems_of_the_sample_share_a_clause(sample):
    count = Counter(clause for example in sample.examples for clause in set(dataset.parts(example)))
    assert set(count.values()) == {1}


def test_the_sample_has_hw5s_fields_and_wording(sample):
    records = json.loads((dataset.SAMPLE / dataset.TRAINING).read_text("utf-8"))
    assert all(list(record) == ["instruction", "input", "output"] for record in records)
    testing = json.loads((dataset.SAMPLE / dataset.TESTING).read_text("utf-8"))
    assert all(list(record) == ["instruction", "input"] for record in testing)
    assert len({e.instruction for e in sample.examples}) == 1


@pytest.mark.hw5
def test_the_sample_gives_away_nothing_of_hw5_nor_hw5_of_the_sample(sample, hw5):
    def seen(data, *splits):
        return {c for split in splits for e in data.split(split) for c in dataset.parts(e)}

    assert not seen(sample, "train", "validation", "test") & seen(hw5, "validation", "test")
    assert not seen(sample, "validation", "test") & seen(hw5, "train")
    assert {e.instruction for e in sample.examples} == {e.instruction for e in hw5.examples}


def test_text_survives_the_tokenizer_unchanged(tokenizer, sample):
    plain = string.digits + string.ascii_letters + string.punctuation + " \n\t"
    marks = "，。？！、；：「」《》□"
    for text in (plain, marks, f"  {marks} \n\n don't {plain}", *map(whole, sample.examples)):
        assert round_trip(tokenizer, text) == text


@pytest.mark.hw5
def test_every_character_of_hw5_survives_the_tokenizer(tokenizer, hw5):
    text = "".join(sorted({c for e in hw5.examples for c in e.instruction + whole(e)}))
    assert "\ue829" in text
    assert round_trip(tokenizer, text) == text


def test_the_tokenizer_has_special_tokens_of_its_own_and_adds_none(tokenizer):
    special = [tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token, tokenizer.unk_token]
    assert special == ["<s>", "</s>", "<pad>", "<unk>"]
    assert len({*map(tokenizer.convert_tokens_to_ids, special)}) == 4
    assert len(tokenizer.encode("春眠，", add_special_tokens=False)) == 3


def test_no_repeat_ngram_size_3_lets_every_completion_begin_with_its_space(tokenizer, sample):
    for example in sample.split("test"):
        ids = (
            encode_prompt(tokenizer, asked(example, "hw5"))
            + encode_completion(tokenizer, asked(example, "hw5"), "")[:1]
        )
        trigrams = [tuple(ids[n : n + 3]) for n in range(len(ids) - 2)]
        assert trigrams.count(trigrams[-1]) == 1


def test_tang_mini_is_small_and_its_sizes_suit_nf4():
    weights = TANG_MINI / "model.safetensors"
    assert weights.stat().st_size <= 10_000_000
    with safe_open(weights, "pt") as file:
        shapes = {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118
    assert all(size % 64 == 0 for shape in shapes.values() if len(shape) == 2 for size in shape)
    assert "lm_head.weight" not in shapes


def test_tang_mini_has_room_for_a_prompt_and_knows_its_special_tokens(tokenizer):
    config = json.loads((TANG_MINI / "config.json").read_text())
    generation = json.loads((TANG_MINI / "generation_config.json").read_text())
    assert config["max_position_embeddings"] >= 1024
    assert config["vocab_size"] >= len(tokenizer)
    for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
        assert config[name] == generation[name] == getattr(tokenizer, name)
