from tangeval.tasks.tang.text import (
    HAN,
    ITERATION,
    as_verse,
    clauses,
    fold,
    han,
    line_length,
    punctuate,
    variants,
)


def test_clauses_are_runs_of_han_characters():
    assert clauses("綺殿千尋起，離宮百雉餘。") == ("綺殿千尋起", "離宮百雉餘")
    assert clauses("綺殿千尋起\t離宮百雉餘\n") == ("綺殿千尋起", "離宮百雉餘")
    assert clauses(" a，。1 ") == ()


def test_rare_and_lost_characters_count_as_han():
    """□ marks a lost character, U+E829 is one that HW5 keeps in the private-use area, 𥳇 lies beyond the BMP."""
    assert line_length("□\ue829𥳇〇䪥，") == 5


def test_iteration_marks_stand_for_the_character_before_them():
    """々, its vertical form 〻 and the old Chinese mark neither cut a clause nor stay signs of their own."""
    for mark in ITERATION:
        assert clauses(f"悠{mark}我心，人{mark}{mark}") == ("悠悠我心", "人人人")
        assert line_length(f"悠{mark}我心，") == 4
        assert fold(han(f"遠山長{mark}，")) == fold("遠山長長")
    assert as_verse("々春，夜") == "々春，夜。"  # nothing stands before it


def test_marks_and_latin_are_not_han():
    assert han("春,眠 abc不１覺！曉。") == "春眠不覺曉"


def test_fold_makes_variants_one():
    assert fold("撫長劒") == fold("撫長劍")
    assert fold("爲裏羣却啓") == fold("為里群卻啟")
    assert fold("棲") == fold("栖")
    assert fold("\uf914") == fold("樂")  # a compatibility ideograph


def test_fold_depends_on_no_context_and_keeps_the_length():
    """OpenCC knows phrases (乾坤 keeps 乾): a character must fold alike everywhere."""
    assert fold("乾坤") == fold("乾") + fold("坤")
    text = "乾坤皇后頭髮白髮" * 3
    assert len(fold(text)) == len(text)


def test_fold_is_idempotent_on_every_variant():
    for variant, common in variants().items():
        assert fold(variant) == common == fold(common)


def test_distinct_characters_stay_distinct():
    assert fold("春") != fold("秋")


def test_punctuate_is_comma_and_stop_by_turns():
    assert punctuate(["一", "二", "三", "四"]) == "一，二。三，四。"
    assert punctuate(["一", "二", "三"]) == "一，二。三。"
    assert punctuate([]) == ""
    assert as_verse("一？二！三 四") == "一，二。三，四。"


def test_han_is_a_character_class_without_ascii():
    assert not any(chr(code) in HAN for code in range(128) if chr(code) != "-")
