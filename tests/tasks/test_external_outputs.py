"""Outputs made elsewhere: whose each one is, what is handed on, and what is refused."""

import codecs
import json
import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from tangeval.core.errors import TangevalError
from tangeval.tasks.tang import data as dataset
from tangeval.tasks.tang import external_outputs as outputs
from tangeval.tasks.tang.external_outputs import names, read
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
            content = content.encode()
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


def with_first(couplet: str, count: int) -> str:
    """``couplet`` with its first ``count`` characters wrong."""
    return "鼎" * count + couplet[count:]


# whose an output is


def test_outputs_with_couplets_are_matched_by_them(parse):
    read_ = parse(NUMBERED)
    assert read_.texts == TEXTS
    assert read_.summary == "out.txt: 15 outputs for 15 poems: 15 by couplet"


def test_outputs_without_couplets_are_matched_in_order(parse):
    read_ = parse(TEXTS)
    assert read_.texts == TEXTS
    assert read_.summary == "out.txt: 15 outputs for 15 poems: 15 by order"


def test_a_mixed_file_is_matched_by_couplet_and_then_in_order(parse):
    read_ = parse(changed(NUMBERED, _3="3. " + TEXTS[2], _7=TEXTS[6]))
    assert read_.texts == TEXTS
    assert read_.matched == "15 outputs for 15 poems: 13 by couplet, 2 by order"
    assert read_.notes == ("lines 3 and 7: without a couplet, taken in order",)


def test_reordered_outputs_find_their_poems_and_it_is_said(parse):
    read_ = parse(LINES[::-1])
    assert read_.texts == TEXTS
    assert read_.reordered
    assert read_.summary == "out.txt: 15 outputs for 15 poems: 15 by couplet; reordered"


def test_one_output_without_couplet_in_a_reordered_file_is_the_poems_that_is_left(parse):
    read_ = parse(changed(LINES[::-1], _5=TEXTS[10]))
    assert read_.texts == TEXTS
    assert read_.matched == "15 outputs for 15 poems: 14 by couplet, 1 by order; reordered"


def test_two_outputs_without_couplet_in_a_reordered_file_are_refused(refuse):
    message = refuse(changed(LINES[::-1], _5=TEXTS[10], _9=TEXTS[6]))
    assert message.startswith("out.txt, lines 5 and 9: without a couplet, in a file that has the poems in an")


@pytest.mark.parametrize(
    "number", ["{}. ", "{}.", "{}、", "{}．", "({}) ".replace("(", ""), " {}:\u3000", "\ufeff{}. "]
)
def test_any_number_before_an_output_is_left_out(parse, number):
    assert parse([number.format(n) + line for n, line in enumerate(LINES, 1)]).texts == TEXTS
    full_width = [number.format(n) + text for n, text in enumerate(TEXTS, 1)]
    full_width = [line.translate({ord("0") + n: ord("０") + n for n in range(10)}) for line in full_width]
    assert parse(full_width).texts == TEXTS


@pytest.mark.parametrize(
    "written",
    [
        lambda c: c.replace("，", ",").replace("。", "."),
        lambda c: c.replace("，", ", ").replace("。", ". "),
        lambda c: c.replace("，", "").replace("。", ""),
        lambda c: c.replace("，", "\t").replace("。", "\t"),
        lambda c: c.replace("，", " ").replace("。", "？"),
        lambda c: c + "\\n",
        lambda c: "\u3000" + " ".join(c),
        fold,
    ],
    ids=["half-width", "spaced", "unmarked", "tabs", "other mark", "line break", "spread", "simplified"],
)
def test_a_couplet_is_known_whatever_its_marks_and_variants(parse, written):
    assert any(fold(couplet) != couplet for couplet in COUPLETS)
    read_ = parse([written(c) + t for c, t in zip(COUPLETS[::-1], TEXTS[::-1], strict=True)])
    assert (read_.texts, read_.by_couplet) == (TEXTS, 15)


def test_two_outputs_for_one_poem_are_an_error_with_both_lines(refuse):
    message = refuse(changed(LINES, _9=LINES[2]))
    assert message == f"out.txt, lines 3 and 9: two outputs for one poem, {COUPLETS[2]}; leave one out"


def test_poems_without_an_output_are_named(refuse):
    message = refuse(LINES[:4] + LINES[5:14])
    assert message.startswith(
        f"out.txt: 13 outputs for 15 poems: none begins with {COUPLETS[4]} and {COUPLETS[14]};"
    )
    message = refuse(LINES[:1])
    assert message.startswith(f"out.txt: 1 outputs for 15 poems: none begins with {COUPLETS[1]}, ")
    assert f"{COUPLETS[5]} and 9 more; add" in message


def test_too_few_outputs_of_which_one_has_no_couplet_name_both(refuse):
    message = refuse(changed(LINES[:14], _2=TEXTS[1]))
    assert f"none begins with {COUPLETS[1]} and {COUPLETS[14]} (and line 2 without a couplet)" in message


def test_the_first_output_too_many_is_named(refuse):
    message = refuse([*TEXTS, "春風", "秋月"])
    assert message.startswith("out.txt, line 16: the first one too many; 17 outputs for 15 poems")
    message = refuse([*LINES[:4], "春風又綠江南岸", *LINES[4:]])
    assert message.startswith("out.txt, line 5: begins with no poem's couplet; 16 outputs for 15 poems")


def test_too_few_outputs_without_couplets_are_an_error(refuse):
    assert refuse(TEXTS[:14]).startswith("out.txt: 14 outputs for 15 poems; outputs without a couplet")


@pytest.mark.parametrize(
    ("name", "content"), [("out.txt", ""), ("out.json", "[]"), ("out.jsonl", "\n"), ("o.txt", "\n\n")]
)
def test_an_empty_file_is_an_error(refuse, name, content):
    assert refuse(content, name) == f"{name}: 0 outputs for 15 poems; the file is empty"


def test_numbers_that_contradict_the_order_are_refused_where_there_are_no_couplets(parse, refuse):
    numbered = [f"{n}. {text}" for n, text in enumerate(TEXTS, 1)]
    swapped = [*numbered[:3], numbered[4], numbered[3], *numbered[5:]]
    assert refuse(swapped).startswith("out.txt, line 4: numbered 5 where 4 is due, and without a couplet")
    assert parse([f"1. {text}" for text in TEXTS]).texts == TEXTS
    assert parse([f"{n}. {text}" for n, text in enumerate(TEXTS)]).texts == TEXTS


def test_poems_with_one_couplet_take_their_outputs_in_order(parse, refuse):
    twins = [replace(POEMS[0], id="test-0"), *POEMS[:3]]
    lines = [COUPLETS[0] + "一", *LINES[:3]]
    assert parse(lines, examples=twins).texts == ("一", *TEXTS[:3])
    assert "two outputs for one poem" in refuse(changed(lines, _4=lines[0]), examples=twins)


def test_outputs_of_another_split_are_refused_by_its_name(refuse):
    validation = SAMPLE.split("validation")
    first = validation[0].input
    message = refuse([e.input + e.reference for e in validation[:15]])
    assert message == (
        f"out.txt, line 1: begins with {first}, a poem of the validation split, as 15 of 15 outputs do; give that split"
    )
    message = refuse(json.dumps([{"input": first, "predict": ""}]), "out.json")
    assert (
        message == f"out.json, record 1: 'input' is {first}, a poem of the validation split; give that split"
    )


def test_an_output_may_recite_a_training_poem(parse):
    recited = OTHERS[0].input + OTHERS[0].reference
    assert parse(changed(TEXTS, _3=recited)).texts[2] == recited


# a couplet with wrong characters


@pytest.mark.parametrize("count", [1, 2, 3])
def test_an_edited_couplet_is_known_cut_off_and_said(parse, count):
    place = next(n for n, c in enumerate(COUPLETS) if len(han(c)) == 14)
    line = with_first(COUPLETS[place], count) + TEXTS[place]
    read_ = parse(changed(NUMBERED[::-1], **{f"_{15 - place}": line}))
    assert (read_.texts, read_.by_couplet) == (TEXTS, 15)
    assert read_.notes == (f"line {15 - place}: the couplet was edited: {count} of 14 characters differ",)


@pytest.mark.parametrize("mark", ["。", "", "."])
@pytest.mark.parametrize("edit", ["replaced", "added", "left out"])
def test_an_edit_at_the_couplets_end_takes_nothing_of_the_poem(parse, edit, mark):
    clause = COUPLETS[0].removesuffix("。")
    clause = {
        "replaced": clause[:-1] + "鼎",
        "added": clause[:-1] + "鼎" + clause[-1],
        "left out": clause[:-1],
    }[edit]
    if edit != "replaced" and not mark:
        pytest.skip("without a mark nothing says where the couplet ends")
    read_ = parse(changed(LINES, _1=clause + mark + TEXTS[0]))
    assert (read_.texts[0], read_.by_couplet) == (TEXTS[0], 15)
    assert read_.notes[0].startswith("line 1: the couplet was edited: 1 of ")


def test_a_couplet_with_more_wrong_characters_is_no_couplet(parse, refuse):
    place = next(n for n, c in enumerate(COUPLETS) if len(han(c)) == 10)
    line = with_first(COUPLETS[place], 3) + TEXTS[place]
    read_ = parse(changed(LINES, **{f"_{place + 1}": line}))
    assert read_.texts[place] == line
    assert read_.notes == (f"line {place + 1}: without a couplet, taken in order",)
    assert refuse([*LINES, line]).startswith("out.txt, line 16: begins with no poem's couplet")


def test_a_couplet_between_two_poems_is_neithers(parse):
    """Three characters apart, and one and two wrong."""
    near = replace(POEMS[0], id="near", input="鼎鼎鼎" + COUPLETS[0][3:])
    line = "鼎" + COUPLETS[0][1:] + TEXTS[0]
    read_ = parse([LINES[1], line, near.input + "一"], examples=[POEMS[1], POEMS[0], near])
    assert read_.texts == (TEXTS[1], line, "一")
    assert read_.by_order == 1


# JSON


def test_json_is_matched_by_its_input_in_any_order(parse):
    read_ = parse(json.dumps(RECORDS[::-1]), "out.json")
    assert read_.texts == TEXTS
    assert read_.summary == "out.json: 15 outputs for 15 poems: 15 by couplet; reordered"


def test_jsonl_is_matched_by_its_input_and_skips_blank_lines(parse):
    lines = "\n\n".join(json.dumps(record, ensure_ascii=False) for record in RECORDS[::-1])
    assert parse(lines + "\n\n", "out.jsonl").texts == TEXTS
    assert parse(lines, "OUT.JSON").texts == TEXTS


@pytest.mark.parametrize(
    "asked",
    [
        lambda e: e.instruction + "\n" + e.input,
        lambda e: e.instruction + e.input.removesuffix("。"),
        prompt_text,
        lambda e: f"{e.input}\n請接着寫。",
        lambda e: e.instruction + "鼎" + e.input[1:],
        lambda e: fold(e.input),
    ],
    ids=["instruction", "unmarked", "prompt", "instruction after", "edited", "simplified"],
)
def test_json_input_may_hold_an_instruction(parse, asked):
    records = [{"input": asked(e), "predict": t} for e, t in zip(POEMS, TEXTS, strict=True)]
    read_ = parse(json.dumps(records[::-1]), "out.json")
    assert (read_.texts, read_.by_couplet, read_.notes) == (TEXTS, 15, ())


@pytest.mark.parametrize("asked", [{}, {"input": None}, {"input": ""}, {"input": POEMS[0].instruction}])
def test_json_without_a_couplet_in_its_input_is_matched_by_what_is_written(parse, asked):
    read_ = parse(json.dumps([{**asked, "predict": text} for text in TEXTS]), "out.json")
    assert (read_.texts, read_.by_order) == (TEXTS, 15)
    read_ = parse(json.dumps([{**asked, "predict": line} for line in LINES[::-1]]), "out.json")
    assert (read_.texts, read_.by_couplet, read_.notes) == (TEXTS, 15, ())


def test_a_couplet_repeated_before_a_json_poem_is_cut_once_and_said(parse):
    records = changed(RECORDS, _4={**RECORDS[3], "predict": COUPLETS[3] + "\n" + LINES[3]})
    read_ = parse(json.dumps(records), "out.json")
    assert read_.texts == (*TEXTS[:3], LINES[3], *TEXTS[4:])
    assert read_.notes == ("record 4: the couplet before the poem cut",)


def test_json_input_outweighs_what_the_poem_begins_with(parse):
    records = changed(RECORDS, _4={**RECORDS[3], "predict": LINES[0]})
    assert parse(json.dumps(records), "out.json").texts[3] == LINES[0]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (
            "[\n{]",
            "o.json, line 2: not valid JSON (Expecting property name enclosed in double quotes); give a",
        ),
        ('{"predict": "a"}\n\n{"predict": ', "o.json, line 3: not valid JSON (Expecting value); give a list"),
        ("[" * 10**5, "o.json, line 1: not valid JSON (nested too deeply)"),
        ("[" + "1" * 5000 + "]", "o.json, line 1: not valid JSON ("),
        ("7", "o.json, line 1: no text field 'predict'"),
        ('["a"]', "o.json, record 1: no text field 'predict'; a record has 'input' and 'predict'"),
        ('[{"predict": "a"}, {"input": "a"}]', "o.json, record 2: no text field 'predict'"),
        ('[{"predict": null}]', "o.json, record 1: no text field 'predict'"),
        ('[{"predict": "a", "input": 7}]', "o.json, record 1: 'input' is no text; give the couplet"),
        (r'[{"predict": "\ud800"}]', "o.json, record 1: half of a surrogate pair"),
        (
            '[{"predict": "a", "input": "春眠不覺曉"}]',
            "o.json, record 1: 'input' ends with no poem's couplet: 春眠不覺曉",
        ),
    ],
)
def test_json_that_cannot_be_read_is_one_message(refuse, content, expected):
    assert refuse(content, "o.json").startswith(expected)


# bytes and lines


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("lines", [NUMBERED, TEXTS])
def test_line_ends_and_empty_lines_change_nothing(parse, end, lines):
    content = (end * 2).join(lines) + end * 5
    assert parse(content).texts == TEXTS


@pytest.mark.parametrize(
    ("mark", "encoding"),
    [
        (codecs.BOM_UTF8, "utf-8"),
        (codecs.BOM_UTF16_LE, "utf-16-le"),
        (codecs.BOM_UTF16_BE, "utf-16-be"),
        (codecs.BOM_UTF32_LE, "utf-32-le"),
        (codecs.BOM_UTF32_BE, "utf-32-be"),
    ],
)
def test_a_byte_order_mark_says_the_encoding(parse, mark, encoding):
    assert parse(mark + "\r\n".join(NUMBERED).encode(encoding)).texts == TEXTS
    assert parse(mark + json.dumps(RECORDS).encode(encoding), "out.json").texts == TEXTS


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_another_encoding_is_an_error_with_the_line(refuse, end):
    content = end.join([NUMBERED[0].encode(), "2. 春風".encode("big5"), b""])
    assert refuse(content) == "out.txt, line 2: not UTF-8; save the file as UTF-8"
    half = codecs.BOM_UTF16_LE + "一\n二\n三".encode("utf-16-le")[:-1]
    assert refuse(half) == "out.txt, line 3: not UTF-16; save the file as UTF-8"


def test_a_file_that_cannot_be_opened_is_one_message(tmp_path):
    with pytest.raises(TangevalError, match=r"nowhere\.txt: No such file or directory"):
        read(tmp_path / "nowhere.txt", "x", POEMS)
    with pytest.raises(TangevalError, match="Is a directory"):
        read(tmp_path, "x", POEMS)


@pytest.mark.parametrize("line", ["7. ", "7.", f"7. {COUPLETS[6]}", COUPLETS[6], f"7. {COUPLETS[6]} </s>"])
def test_an_empty_output_is_one_under_its_number_or_couplet(parse, line):
    lines = changed(NUMBERED, _7=line)
    read_ = parse("\n\n".join(lines))
    assert read_.texts == (*TEXTS[:6], "", *TEXTS[7:])
    assert "line 13: an empty output" in read_.notes


def test_a_blank_line_is_an_output_only_where_there_are_as_many_lines_as_poems(parse, refuse):
    for lines in (TEXTS, LINES):
        read_ = parse(changed(lines, _7=" \u3000"))
        assert read_.texts == (*TEXTS[:6], "", *TEXTS[7:])
        assert "line 7: a blank line, taken as an empty output" in read_.notes
    assert parse(["", *TEXTS]).texts == TEXTS
    assert parse("\n".join([*TEXTS[:14], "", ""])).texts == (*TEXTS[:14], "")
    # Every second line of fifteen, but the couplets say that they stand between outputs.
    assert "8 outputs for 15 poems" in refuse("\n\n".join(LINES[:8]))


def test_a_line_break_in_an_output_is_one_where_the_numbers_are_those_of_all_poems(parse, refuse):
    broken = changed(NUMBERED, _4=NUMBERED[3].replace("。", "。\n").rstrip())
    read_ = parse(broken)
    assert read_.texts[3].replace("\n", "") == TEXTS[3]
    assert read_.texts[:3] + read_.texts[4:] == TEXTS[:3] + TEXTS[4:]
    assert read_.notes == ("line 4: goes on over several lines",)
    assert "line 5: begins with no poem's couplet" in refuse(
        changed(LINES, _4=LINES[3].replace("。", "。\n").rstrip())
    )


def test_a_line_break_written_out_is_read_as_one(parse):
    read_ = parse(changed(NUMBERED, _2=f"2. {COUPLETS[1]}\\n一\\r\\n二\\n"))
    assert read_.texts[1] == "一\n二"
    assert read_.notes == ("line 2: \\n read as a line break",)


# the text itself


@pytest.mark.parametrize(
    "text",
    [
        "春风,秋月.",
        "春風， 秋月？！。",
        "Sure! 春風",
        "，春風。",
        "「春風」</s>秋月",
        "春風 \t 秋月",
        "[INST] 春風",
        "7 春風",
        "***",
        "春風 [/INST]",
    ],
)
def test_a_text_is_handed_on_as_it_was_written(parse, text):
    for lines in (LINES, TEXTS):
        before = COUPLETS[4] if lines is LINES else ""
        read_ = parse(changed(lines, _5=f"5. {before}{text} \u3000"))
        assert read_.texts[4] == text
        assert read_.notes == ()


@pytest.mark.parametrize("token", ["<s>", "</s>", "<|endoftext|>", "<eos>"])
def test_special_tokens_at_the_ends_are_cut_and_said(parse, token):
    for line in (f"{token} {LINES[8]} {token}{token} ", f"{COUPLETS[8]}{token}{TEXTS[8]}{token}"):
        read_ = parse(changed(LINES, _9=line))
        assert (read_.texts, read_.by_couplet) == (TEXTS, 15)
        assert read_.notes == (f"line 9: {token} cut",)


@pytest.mark.parametrize("end", [" </s>", ""])
@pytest.mark.parametrize("again", [True, False])
def test_a_prompt_before_the_poem_is_cut_and_names_the_poem(parse, again, end):
    def answer(example, text):
        return f"<s>{prompt_text(example)} {example.input if again else ''}{text}{end}"

    answers = [answer(e, t) for e, t in zip(POEMS, TEXTS, strict=True)]
    read_ = parse(json.dumps([{"predict": text} for text in answers[::-1]]), "out.json")
    assert (read_.texts, read_.by_couplet) == (TEXTS, 15)
    assert "records 1, 2, 3, 4, 5 and 10 more: the prompt before the poem cut" in read_.notes
    with_input = [{"input": c, "predict": a} for c, a in zip(COUPLETS, answers, strict=True)]
    assert parse(json.dumps(with_input), "out.json").texts == TEXTS
    # In a text file the prompt's own line breaks are the file's, or written out.
    assert parse([f"{n}. {text}" for n, text in enumerate(answers, 1)]).texts == TEXTS
    assert parse([c + text for c, text in zip(COUPLETS, answers, strict=True)][::-1]).texts == TEXTS
    assert parse([text.replace("\n", "\\n") for text in answers[::-1]]).texts == TEXTS


def test_a_prompt_that_does_not_end_swallows_no_other_output(parse):
    read_ = parse(changed(NUMBERED, _3=f"3. {COUPLETS[2]}春風[INST]", _9=f"9. {COUPLETS[8]}秋月[/INST]"))
    assert (read_.texts[2], read_.texts[8]) == ("春風[INST]", "秋月[/INST]")
    assert read_.texts[3:8] == TEXTS[3:8]


def test_notes_list_the_first_lines_and_count_the_rest(parse):
    assert parse([line + "</s>" for line in LINES]).notes == ("lines 1, 2, 3, 4, 5 and 10 more: </s> cut",)
    assert parse([line + "</s>" for line in LINES[:2]], examples=POEMS[:2]).notes == (
        "lines 1 and 2: </s> cut",
    )


verse = st.text(st.sampled_from("春風秋月何時了，。,.?!「 a"), max_size=40).map(outputs._bare)


@hypothesis_settings(max_examples=60, deadline=None)
@given(
    texts=st.lists(verse, min_size=15, max_size=15),
    order=st.permutations(range(15)),
    end=st.sampled_from(["\n", "\r\n", "\r", "\n\n", "\r\n\r\n"]),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
    number=st.sampled_from(["", "{}. ", "{}、", "{}．"]),
    marks=st.sampled_from(["，。", ",.", " ?"]),
    form=st.sampled_from([".txt", ".json", ".jsonl"]),
)
def test_order_numbers_marks_line_ends_and_encoding_change_no_text(
    tmp_path_factory, texts, order, end, encoding, number, marks, form
):
    couplets = [c.translate(str.maketrans("，。", marks)) for c in COUPLETS]
    if form == ".txt":
        # What follows must be no mark, which could be the couplet's own.
        lines = [f"{number.format(n)}{couplets[p]}\u3000{texts[p]}" for n, p in enumerate(order, 1)]
        content = end.join(lines)
    else:
        records = [json.dumps({"input": couplets[p], "predict": texts[p]}, ensure_ascii=False) for p in order]
        content = end.join(records) if form == ".jsonl" else f"[{(',' + end).join(records)}]"
    file = tmp_path_factory.mktemp("outputs") / f"out{form}"
    file.write_bytes((content + end).encode(encoding))
    read_ = read(file, "out", POEMS, OTHERS)
    assert read_.texts == tuple(texts)
    assert read_.by_couplet == 15
    assert read_.reordered == (list(order) != sorted(order))


@hypothesis_settings(max_examples=60, deadline=None)
@given(place=st.integers(0, 14), seed=st.integers(0, 10**6))
def test_up_to_a_quarter_of_random_edits_is_bridged(place, seed):
    """Marked couplets; each edit changes, drops or adds one character, all but the last before its mark.

    Two edits there, 罷時。 → 罷鼎鼎。, are rightly read as one, and the second as the output's own.
    """
    noise = random.Random(seed)
    couplet, length = COUPLETS[place], len(han(COUPLETS[place]))
    for _ in range(noise.randint(1, length // outputs.EDITS)):
        at = noise.randrange(len(couplet) - 2)
        couplet = couplet[:at] + noise.choice(["", "鼎", "鼎" + couplet[at]]) + couplet[at + 1 :]
    couplets = outputs._Couplets(tuple(fold(han(c)) for c in COUPLETS))
    match = outputs._at_start(couplet + TEXTS[place], couplets)
    assert match.key == fold(han(COUPLETS[place]))
    assert match.edits <= length // outputs.EDITS
    assert (couplet + TEXTS[place])[match.end :] == TEXTS[place]


# names


def test_files_are_named_by_what_tells_them_apart(tmp_path):
    one, other, lone = tmp_path / "a/run/results.txt", tmp_path / "b/run/results.txt", tmp_path / "c/x.txt"
    assert names([lone]) == ["x.txt"]
    assert names([one, lone]) == ["results.txt", "x.txt"]
    assert names([one, other, lone]) == ["a/run/results.txt", "b/run/results.txt", "x.txt"]
    assert names([one, tmp_path / "results.txt"]) == ["run/results.txt", f"{tmp_path.name}/results.txt"]
    assert names([tmp_path / "run1/random baseline"]) == ["run1/random baseline"]


def test_a_file_given_twice_is_refused(tmp_path):
    file, same = tmp_path / "a.txt", tmp_path / "b" / ".." / "a.txt"
    with pytest.raises(TangevalError, match=r"a\.txt: given twice; give each file once"):
        names([file, same])


def test_several_files_are_read_under_their_names(tmp_path):
    for folder in ("run1", "run2"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "results.txt").write_text("\n".join(LINES), encoding="utf-8")
    both = outputs.read_outputs([tmp_path / f / "results.txt" for f in ("run1", "run2")], POEMS, OTHERS)
    assert [each.name for each in both] == ["run1/results.txt", "run2/results.txt"]
    assert [each.texts for each in both] == [TEXTS, TEXTS]


def test_hw5s_own_couplets_are_told_apart(hw5, tmp_path):
    """All 200 validation poems, shuffled, the first character of each couplet wrong."""
    poems = list(hw5.split("validation"))
    lines = ["鼎" + e.input[1:] + e.reference for e in poems]
    file = tmp_path / "hw5.txt"
    file.write_text("\n".join(random.Random(1).sample(lines, len(lines))), encoding="utf-8")
    read_ = read(file, "hw5", poems, [e for e in hw5.examples if e.split != "validation"])
    assert read_.texts == tuple(e.reference for e in poems)
    assert read_.by_couplet == len(poems)
