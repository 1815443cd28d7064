"""Outputs made elsewhere: whose each one is, what is handed on, and what is refused."""

import json
import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from tangeval.analysis.external import output_names
from tangeval.core.errors import TangevalError
from tangeval.tasks.tang import data as dataset
from tangeval.tasks.tang.external_outputs import EDITS, read
from tangeval.tasks.tang.prompt import prompt_text
from tangeval.tasks.tang.text import fold, han

SAMPLE = dataset.load("sample")
POEMS = SAMPLE.split("test")
OTHERS = [example for example in SAMPLE.examples if example.split != "test"]
TEXTS = tuple(example.reference for example in POEMS)
COUPLETS = [example.input for example in POEMS]
LINES = [couplet + text for couplet, text in zip(COUPLETS, TEXTS, strict=True)]
NUMBERED = [f"{n}. {line}" for n, line in enumerate(LINES, 1)]
RECORDS = [{"input": c, "predict": t} for c, t in zip(COUPLETS, TEXTS, strict=True)]


@pytest.fixture
def parse(tmp_path):
    """What is read from a file of these lines, records, or bytes."""

    def parsed(content, name="out.txt", examples=POEMS, others=OTHERS):
        file = tmp_path / name
        if not isinstance(content, bytes):
            content = "\n".join(content) if not isinstance(content, str) else content
            content = content.encode("utf-8", "surrogatepass")
        file.write_bytes(content)
        return read(file, name, examples, others)

    return parsed


@pytest.fixture
def refuse(parse, tmp_path):
    """The message about such a file, its folder left out."""

    def refused(*arguments, **named):
        with pytest.raises(TangevalError) as error:
            parse(*arguments, **named)
        return str(error.value).replace(f"{tmp_path}/", "")

    return refused


def changed(lines, **at):
    """``lines`` with some replaced: ``_3="…"`` is line 3."""
    lines = list(lines)
    for place, line in at.items():
        lines[int(place[1:]) - 1] = line
    return lines


# whose an output is


def test_outputs_with_couplets_are_matched_by_them(parse):
    found = parse(NUMBERED)
    assert found.texts == TEXTS
    assert found.summary == "out.txt: 15 outputs for 15 poems: 15 by couplet"


def test_reordered_outputs_find_their_poems_and_it_is_said(parse):
    found = parse(LINES[::-1])
    assert found.texts == TEXTS
    assert found.matched == "15 outputs for 15 poems: 15 by couplet; reordered"


def test_outputs_without_couplets_are_matched_in_order(parse):
    found = parse(TEXTS)
    assert found.texts == TEXTS
    assert found.summary == "out.txt: 15 outputs for 15 poems: 15 by order, none with a couplet of the data"


def test_outputs_are_matched_in_order_where_some_begin_with_their_couplet(parse, refuse):
    found = parse(changed(NUMBERED, _3="3. " + TEXTS[2], _7=TEXTS[6]))
    assert (found.texts, found.matched) == (TEXTS, "15 outputs for 15 poems: 13 by couplet, 2 by order")
    message = refuse(changed(LINES[::-1], _5=TEXTS[10], _9=TEXTS[6]))
    assert message.startswith(
        "out.txt: lines 5 and 9: begins with no poem's couplet, and 15 outputs for 15 poems"
    )


@pytest.mark.parametrize("number", ["{}. ", "{}.", "{}、", "{}．", "{}) ", " {}:\u3000"])
def test_any_number_before_an_output_is_left_out(parse, number):
    assert parse([number.format(n) + line for n, line in enumerate(LINES, 1)]).texts == TEXTS
    assert parse([number.format(n) + text for n, text in enumerate(TEXTS, 1)]).texts == TEXTS


@pytest.mark.parametrize(
    "written",
    [
        lambda c: c.replace("，", ", ").replace("。", "."),
        lambda c: c.replace("，", "").replace("。", ""),
        lambda c: c.replace("，", "\t").replace("。", "\t"),
        lambda c: "\u3000" + " ".join(c),
        fold,
    ],
    ids=["half-width", "unmarked", "tabs", "spread", "simplified"],
)
def test_a_couplet_is_known_whatever_its_marks_and_variants(parse, written):
    assert any(fold(couplet) != couplet for couplet in COUPLETS)
    found = parse([written(c) + t for c, t in zip(COUPLETS[::-1], TEXTS[::-1], strict=True)])
    assert (found.texts, found.matched) == (TEXTS, "15 outputs for 15 poems: 15 by couplet; reordered")


@hypothesis_settings(max_examples=60, deadline=None)
@given(place=st.integers(0, 14), seed=st.integers(0, 10**6))
def test_a_couplet_with_up_to_a_quarter_of_edits_is_known_cut_off_and_said(tmp_path_factory, place, seed):
    noise = random.Random(seed)
    couplet, length = COUPLETS[place], len(han(COUPLETS[place]))
    edits = noise.randint(1, length // EDITS)
    for at in noise.sample([n for n, c in enumerate(couplet) if c == han(c)], edits):
        couplet = couplet[:at] + "鼎" + couplet[at + 1 :]
    file = tmp_path_factory.mktemp("outputs") / "out.txt"
    file.write_text("\n".join(changed(LINES, **{f"_{place + 1}": couplet + TEXTS[place]})[::-1]), "utf-8")
    found = read(file, "out", POEMS, OTHERS)
    assert found.texts == TEXTS
    assert found.notes == (f"line {15 - place}: the couplet was edited: {edits} of {length} characters",)


def test_a_couplet_with_more_edits_or_as_near_to_another_poem_is_no_couplet(parse):
    place = next(n for n, c in enumerate(COUPLETS) if len(han(c)) == 10)
    line = "鼎鼎鼎" + COUPLETS[place][3:] + TEXTS[place]
    assert parse(changed(LINES, **{f"_{place + 1}": line})).texts[place] == line
    near = replace(POEMS[0], id="near", input="鼎鼎鼎" + COUPLETS[0][3:])
    line = "鼎" + COUPLETS[0][1:] + TEXTS[0]
    assert parse([LINES[1], line, near.input + "一"], examples=[POEMS[1], POEMS[0], near]).texts[1] == line


def test_two_outputs_for_one_poem_are_an_error_with_both_lines(refuse):
    message = refuse(changed(LINES, _9=LINES[2]))
    assert message == f"out.txt: lines 3 and 9: two outputs for one poem, {COUPLETS[2]}; leave one out"


def test_poems_with_one_couplet_take_their_outputs_in_order(parse, refuse):
    twins = [replace(POEMS[0], id="test-0"), *POEMS[:3]]
    lines = [COUPLETS[0] + "一", *LINES[:3]]
    assert parse(lines, examples=twins).texts == ("一", *TEXTS[:3])
    assert "two outputs for one poem" in refuse(changed(lines, _4=lines[0]), examples=twins)


def test_poems_without_an_output_are_named(refuse):
    message = refuse(LINES[:4] + LINES[5:14])
    assert message.startswith(f"out.txt: 13 outputs for 15 poems: none for {COUPLETS[4]} and {COUPLETS[14]};")
    assert f"{COUPLETS[5]} and 9 more; an empty" in refuse(LINES[:1])


@pytest.mark.parametrize(
    "lines", [[*TEXTS, "春風", "秋月"], [*LINES[:4], "春風又綠江南岸", *LINES[4:]], TEXTS[:14]]
)
def test_too_many_or_too_few_outputs_without_couplets_are_refused(refuse, lines):
    assert f"begins with no poem's couplet, and {len(lines)} outputs for 15 poems" in refuse(lines)


@pytest.mark.parametrize("name", ["out.txt", "out.json", "out.jsonl"])
def test_an_empty_file_is_an_error(refuse, name):
    content = "[]" if name == "out.json" else "\n\n"
    assert refuse(content, name).startswith(f"{name}: 0 outputs for 15 poems")


def test_numbers_that_contradict_the_order_are_refused_where_there_are_no_couplets(parse, refuse):
    numbered = [f"{n}. {text}" for n, text in enumerate(TEXTS, 1)]
    swapped = [*numbered[:3], numbered[4], numbered[3], *numbered[5:]]
    assert refuse(swapped).startswith("out.txt: line 4: numbered 5 where 4 is due")
    assert parse([f"1. {text}" for text in TEXTS]).texts == TEXTS
    assert parse([f"{n}. {text}" for n, text in enumerate(TEXTS)]).texts == TEXTS


def test_outputs_of_another_split_are_refused_by_its_name(refuse):
    validation = SAMPLE.split("validation")
    first = validation[0]
    message = refuse([e.input + e.reference for e in validation[:15]])
    assert message.startswith(
        f"out.txt: line 1: begins with {first.input}, a poem of the validation split, as 15 of"
    )
    for key, value in (("input", first.input), ("id", first.id)):
        message = refuse(json.dumps([{key: value, "predict": ""}]), "out.json")
        assert message == f"out.json: record 1: {value!r} is no poem of this split but validation"


def test_an_output_may_recite_a_training_poem(parse):
    recited = OTHERS[0].input + OTHERS[0].reference
    assert parse(changed(TEXTS, _3=recited)).texts[2] == recited


# JSON


@pytest.mark.parametrize("key", ["id", "input"])
@pytest.mark.parametrize("name", ["out.json", "OUT.JSONL"])
def test_records_are_matched_by_id_or_input_in_any_order(parse, key, name):
    records = [{key: getattr(e, key), "predict": t} for e, t in zip(POEMS, TEXTS, strict=True)][::-1]
    lines = "\n\n".join(json.dumps(record, ensure_ascii=False) for record in records)
    found = parse(json.dumps(records) if name == "out.json" else lines, name)
    way = {"id": "id", "input": "couplet"}[key]
    assert (found.texts, found.matched) == (TEXTS, f"15 outputs for 15 poems: 15 by {way}; reordered")


@pytest.mark.parametrize(
    "asked", [lambda e: f"{e.instruction}\n{e.input}", prompt_text, lambda e: fold(e.input)]
)
def test_input_may_hold_an_instruction_before_the_couplet(parse, asked):
    records = [{"input": asked(e), "predict": t} for e, t in zip(POEMS, TEXTS, strict=True)]
    assert parse(json.dumps(records[::-1]), "out.json").texts == TEXTS


@pytest.mark.parametrize("asked", [{}, {"input": None}, {"input": "", "id": ""}])
def test_records_that_do_not_say_whose_they_are_are_matched_by_what_is_written(parse, asked):
    assert parse(json.dumps([{**asked, "predict": text} for text in TEXTS]), "out.json").texts == TEXTS
    assert parse(json.dumps([{**asked, "predict": line} for line in LINES[::-1]]), "out.json").texts == TEXTS


def test_a_couplet_repeated_before_a_records_text_is_cut_once_and_another_poems_is_its_text(parse):
    records = changed(
        RECORDS, _4={**RECORDS[3], "predict": COUPLETS[3] + LINES[3]}, _5={**RECORDS[4], "predict": LINES[0]}
    )
    found = parse(json.dumps(records), "out.json")
    assert found.texts[3:5] == (LINES[3], LINES[0])
    assert found.notes == ("record 4: the couplet before the poem cut",)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("[\n{]", "o.json: line 2: not valid JSON (Expecting property name enclosed in double quotes)"),
        ("[" * 10**5, "o.json: line 1: not valid JSON (nested too deeply)"),
        ("[" + "1" * 5000 + "]", "o.json: line 1: not valid JSON ("),
        ("7", "o.json: no list of records"),
        ('["a"]', "o.json: record 1: a record has a text 'predict'"),
        ('[{"predict": "a"}, {"input": "a"}]', "o.json: record 2: a record has a text 'predict'"),
        ('[{"predict": "a", "input": 7}]', "o.json: record 1: a record has a text 'predict'"),
        (r'[{"predict": "\ud800"}]', "o.json: line 1: not valid JSON (half of a surrogate pair"),
        ('[{"predict": "a", "input": "春眠不覺曉"}]', "o.json: record 1: '春眠不覺曉' is no poem of this split"),
    ],
)  # fmt: skip
def test_json_that_cannot_be_read_is_one_message(refuse, content, expected):
    assert refuse(content, "o.json").startswith(expected)


def test_a_line_of_jsonl_that_cannot_be_read_is_named(refuse):
    assert refuse('{"predict": "a"}\n\n{"predict": ', "o.jsonl").startswith("o.jsonl: line 3: not valid JSON")


@pytest.mark.parametrize("coding", ["utf-16", "utf-8-sig"])
def test_a_file_whose_byte_order_mark_says_its_encoding_is_read(parse, coding):
    """Windows PowerShell's ``>`` writes UTF-16."""
    assert parse("\r\n".join(NUMBERED).encode(coding)).texts == TEXTS


# what is refused rather than guessed


def test_another_encoding_or_format_is_refused(refuse):
    content = b"\r\n".join([NUMBERED[0].encode(), "2. 春風".encode("big5"), b""])
    assert refuse(content) == "out.txt: line 2: not UTF-8; save the file as UTF-8"
    told = "out.txt: line 1: not UTF-8, perhaps Big5 (`iconv -f CP950 -t UTF-8` turns it); save the file as UTF-8"
    assert refuse("1. 春風".encode("big5")) == told
    assert refuse("a,b", "out.csv").startswith("out.csv: give .txt with an output a line, .json")


@pytest.mark.parametrize("name", ["out.txt", "out.json", "out.jsonl", "out"])
def test_json_is_read_as_json_whatever_its_file_is_called(parse, name):
    lines = "\n".join(json.dumps(record, ensure_ascii=False) for record in RECORDS)
    for content in (json.dumps(RECORDS), json.dumps(RECORDS, indent=1), lines, f"\n {lines}"):
        assert parse(content, name).texts == TEXTS


def test_what_begins_with_a_bracket_and_is_a_number_is_no_json(parse):
    assert parse([f"[{n}] {line}" for n, line in enumerate(LINES, 1)]).texts == TEXTS


def test_a_prompt_before_the_poem_is_cut_and_says_whose_it_is(parse):
    answers = [{"predict": f"{prompt_text(e)} {e.reference}"} for e in reversed(POEMS)]
    found = parse(json.dumps(answers), "o.json")
    assert (found.texts, found.matched) == (TEXTS, "15 outputs for 15 poems: 15 by couplet; reordered")
    assert found.notes == ("records 1, 2, 3, 4, 5 and 10 more: the prompt cut",)


@pytest.mark.parametrize(
    "before", ["{instruction}", "請完成這首詩。", "第三題", "題為山中作：", "根據上文寫成全詩 "]
)
def test_a_couplet_near_the_beginning_owns_its_line(parse, before):
    lines = [before.format(instruction=e.instruction) + line for e, line in zip(POEMS, LINES, strict=True)]
    found = parse(lines[::-1])
    assert (found.texts, found.matched) == (TEXTS, "15 outputs for 15 poems: 15 by couplet; reordered")
    assert "before the couplet cut" in found.notes[0]
    records = [{"id": e.id, "predict": line} for e, line in zip(POEMS, lines, strict=True)]
    assert parse(json.dumps(records), "o.json").texts == TEXTS


def test_an_output_by_order_that_holds_another_poems_couplet_is_refused(refuse, parse):
    message = refuse(changed(TEXTS, _3=TEXTS[2] + COUPLETS[4] + TEXTS[4]))
    assert message.startswith(
        f"out.txt: line 3: by its place the output for {COUPLETS[2]}, and holds {COUPLETS[4]}; put each"
    )
    own = TEXTS[2] + COUPLETS[2]
    assert parse(changed(TEXTS, _3=own)).texts[2] == own


def test_any_numbering_that_contradicts_the_order_is_refused(refuse):
    numbered = [f"第{n}首：{text}" for n, text in enumerate(TEXTS, 1)]
    assert refuse(changed(numbered, _4=numbered[4], _5=numbered[3])).startswith("out.txt: line 4: numbered 5")


def test_an_output_over_several_lines_is_refused_in_a_text_file(refuse):
    message = refuse(changed(LINES, _4=LINES[3].replace("。", "。\n").rstrip()))
    assert message.startswith("out.txt: lines 5, 6 and 7: begins with no poem's couplet")
    assert message.endswith("an output with line breaks is given in JSON")


def test_a_file_that_cannot_be_opened_is_one_message(tmp_path):
    with pytest.raises(TangevalError, match=r"nowhere\.txt: No such file or directory"):
        read(tmp_path / "nowhere.txt", "x", POEMS)
    with pytest.raises(TangevalError, match="Is a directory"):
        read(tmp_path, "x", POEMS)


# the text itself


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("lines", [NUMBERED, TEXTS])
def test_line_ends_empty_lines_and_a_byte_order_mark_change_nothing(parse, end, lines):
    assert parse("\ufeff" + (end * 2).join(lines) + end * 5).texts == TEXTS


@pytest.mark.parametrize("line", ["7. ", f"7. {COUPLETS[6]}", COUPLETS[6], f"7. {COUPLETS[6]} ", " \u3000"])
def test_an_empty_output_is_one_under_its_number_its_couplet_or_in_its_place(parse, line):
    found = parse(changed(NUMBERED, _7=line))
    assert found.texts == (*TEXTS[:6], "", *TEXTS[7:])
    assert found.notes == ("line 7: an empty output",)


@pytest.mark.parametrize(
    "text",
    ["春風,秋月.", "春風， 秋月？！。", "Sure! 春風", "，春風。", "「春風」</s>秋月", "春風 \t 秋月", "7 春風"],
)  # fmt: skip
def test_a_text_is_handed_on_as_it_was_written(parse, text):
    for lines in (LINES, TEXTS):
        found = parse(changed(lines, _5=f"5. {COUPLETS[4] if lines is LINES else ''}{text} \u3000"))
        assert (found.texts[4], found.notes) == (text, ())


def test_notes_list_the_first_lines_and_count_the_rest(parse):
    assert parse(COUPLETS).notes == ("lines 1, 2, 3, 4, 5 and 10 more: an empty output",)


# names


def test_files_are_named_by_what_tells_them_apart(tmp_path):
    one, other, lone = tmp_path / "a/run/results.txt", tmp_path / "b/run/results.txt", tmp_path / "c/x.txt"
    assert output_names([lone]) == ["x.txt"]
    assert output_names([one, lone]) == ["results.txt", "x.txt"]
    assert output_names([one, other, lone]) == ["a/run/results.txt", "b/run/results.txt", "x.txt"]
    assert output_names([one, tmp_path / "results.txt"]) == [
        "run/results.txt",
        f"{tmp_path.name}/results.txt",
    ]
    assert output_names([tmp_path / "run1/random"]) == ["run1/random"]


def test_a_file_given_twice_is_refused(tmp_path):
    file, same = tmp_path / "a.txt", tmp_path / "b" / ".." / "a.txt"
    with pytest.raises(TangevalError, match=r"a\.txt: given twice; give each file once"):
        output_names([file, same])


def test_hw5s_own_couplets_are_told_apart(hw5, tmp_path):
    """All 200 validation poems, shuffled, the first character of each couplet wrong."""
    poems = list(hw5.split("validation"))
    lines = ["鼎" + e.input[1:] + e.reference for e in poems]
    file = tmp_path / "hw5.txt"
    file.write_text("\n".join(random.Random(1).sample(lines, len(lines))), encoding="utf-8")
    found = read(file, "hw5", poems, [e for e in hw5.examples if e.split != "validation"])
    assert found.texts == tuple(e.reference for e in poems)
