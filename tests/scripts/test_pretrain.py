import json

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from scripts.corpus import Poem, hold_out, is_regulated, leave_out, read, without_repeats
from scripts.pretrain import IGNORED, Rows, Settings, choose_vocabulary, make_model, make_tokenizer, pretrain
from tangeval.core.errors import TangevalError
from tangeval.tasks.tang import data as dataset

SPRING = "春眠不覺曉，處處聞啼鳥。夜來風雨聲，花落知多少。"
MOON = "牀前明月光，疑是地上霜。舉頭望明月，低頭思故鄉。"
TOWER = "白日依山盡，黃河入海流。欲窮千里目，更上一層樓。"
SETTINGS = Settings(
    vocabulary=5000, hidden=64, inner=64, layers=1, heads=1, steps=4, warmup=1, rows=2, evaluate=2, held_out=3
)


def tang(text: str) -> Poem:
    return Poem("tang", "author", "title", text)


@pytest.fixture
def package(tmp_path):
    """A made-up chinese-poetry: 40 quatrains to each dynasty, no clause in two of them."""
    folder = tmp_path / "package"
    (folder / "dist" / "quantangshi").mkdir(parents=True)
    for dynasty, first in (("tang", 0x5000), ("song", 0x6000)):
        poems = []
        for number in range(40):
            clauses = [
                "".join(chr(first + (20 * number + 5 * n + k) % 90) for k in range(5)) for n in range(4)
            ]
            clauses = [clause[:-1] + chr(first + 100 + number) for clause in clauses]
            paragraphs = [f"{clauses[0]}，{clauses[1]}。", f"{clauses[2]}，{clauses[3]}。"]
            poems.append({"author": "a", "title": "t", "paragraphs": paragraphs})
        file = folder / "dist" / "quantangshi" / f"poet.{dynasty}.0.json"
        file.write_text(json.dumps(poems))
    return folder


@pytest.mark.parametrize(
    ("text", "regulated"),
    [
        (SPRING, True),
        (SPRING + MOON, True),
        (SPRING[:12], False),
        (SPRING + "日暮。", False),
        (SPRING.replace("，", ""), False),
        (SPRING.replace("。", "（一作）。"), False),
        (SPRING.replace("春", "A"), False),
        (SPRING.replace("。", "。。"), False),
        ("", False),
    ],
)
def test_only_whole_verse_of_one_metre_is_regulated(text, regulated):
    assert is_regulated(tang(text)) is regulated


def test_a_poem_that_shares_one_clause_is_left_out_in_another_editions_characters():
    shares = tang("床前明月光，" + TOWER.split("，", 1)[1])
    kept, left = leave_out([tang(SPRING), shares, tang(TOWER)], [MOON])
    assert [poem.text for poem in kept] == [SPRING, TOWER]
    assert left == [shares]


def test_the_same_poem_in_other_marks_is_one_poem():
    assert len(without_repeats([tang(SPRING), tang(SPRING.replace("，", "；")), tang(MOON)])) == 2


def test_held_out_poems_are_tang_and_share_no_clause_with_training():
    copy = tang(SPRING.replace("多少", "幾何"))
    song = Poem("song", "author", "title", TOWER)
    training, held = hold_out([tang(SPRING), copy, song, tang(MOON)], 10)
    assert [poem.text for poem in held] == [MOON]
    assert training == [tang(SPRING), copy, song]


def test_a_folder_without_poems_is_refused_with_the_remedy(tmp_path):
    with pytest.raises(TangevalError, match="chinese-poetry"):
        list(read(tmp_path, "tang"))


def test_the_vocabulary_has_what_is_needed_first_and_then_the_commonest():
    vocabulary = choose_vocabulary([tang(MOON)], "\ue829□", 124)
    assert len(vocabulary) == len(set(vocabulary)) == 124
    assert {"\ue829", "□", "明", "月", "頭"} <= set(vocabulary)


def test_rows_show_each_poem_whole_and_teach_it_alone():
    poems = [tang(SPRING), tang(MOON)]
    tokenizer = make_tokenizer(choose_vocabulary(poems, "", 320))
    rows = Rows(poems, tokenizer, Settings(before=0.5, amid=0.5, length=256))
    for (ids, labels), _ in zip(rows, range(20), strict=False):
        learnt = labels[labels != IGNORED]
        assert len(ids) == len(labels) == 256
        assert ids[0] == tokenizer.bos_token_id
        assert torch.equal(ids[labels != IGNORED], learnt)
        texts = tokenizer.decode(learnt).split("</s>")[:-1]
        assert texts
        assert set(texts) <= {SPRING, MOON}


def test_the_models_sizes_are_multiples_of_64_whatever_the_vocabulary():
    tokenizer = make_tokenizer(choose_vocabulary([tang(MOON)], "", 125))
    model = make_model(tokenizer, SETTINGS)
    assert all(size % 64 == 0 for p in model.parameters() if p.dim() == 2 for size in p.shape)


def test_pretraining_makes_a_model_that_transformers_loads(package, tmp_path, capsys):
    out = tmp_path / "tang-mini"
    # The sample stands in for HW5's data, which not every machine has.
    figures = pretrain(package, out, str(dataset.SAMPLE), SETTINGS)
    tokenizer = AutoTokenizer.from_pretrained(out)
    model = AutoModelForCausalLM.from_pretrained(out)
    prompt = tokenizer("[INST] 春\n[/INST] ", return_tensors="pt", return_token_type_ids=False)
    tokens = model.generate(**prompt, max_new_tokens=4, do_sample=False)
    assert tokens.shape[1] <= prompt["input_ids"].shape[1] + 4
    assert f"{figures['text']:.3f} nats" in (out / "README.md").read_text()
    assert "held out" in capsys.readouterr().out


def test_pretraining_ends_where_the_held_out_poems_gain_no_more(package, tmp_path, capsys):
    settings = Settings(**{**vars(SETTINGS), "steps": 200, "evaluate": 1, "patience": 2, "rate": 10.0})
    pretrain(package, tmp_path / "out", str(dataset.SAMPLE), settings)
    assert "step 200/" not in capsys.readouterr().out
