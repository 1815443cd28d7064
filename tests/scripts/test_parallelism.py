"""The maker of the table of facing characters."""

import json
from math import log

import numpy as np
import pytest

from scripts.parallelism import SMOOTHING, count, factor, gather
from tangeval.tasks.tang import data as dataset
from tests.scripts.test_pretrain import SPRING, package, tang  # noqa: F401  a fixture

SCENE = "國破山河在，城春草木深。感時花濺淚，恨別鳥驚心。烽火連三月，家書抵萬金。白頭搔更短，渾欲不勝簪。"


def test_couplets_between_the_first_and_the_last_are_counted_both_ways_round():
    counted = count([tang(SPRING), tang(SCENE), tang(SCENE)])
    assert counted["花", "鸟"] == counted["鸟", "花"] == 2  # folded
    assert counted["连", "抵"] == 2
    assert counted["国", "城"] == counted["白", "浑"] == counted["春", "处"] == 0
    assert sum(counted.values()) == 2 * 2 * 10


def test_the_table_gives_back_the_positive_log_ratios():
    """Of three pairs that always face each other, by hand: p(pair | one) = 1, chance by the smoothed frequency."""
    facing = {("a", "b"): 8, ("b", "a"): 8, ("c", "d"): 4, ("d", "c"): 4, ("e", "f"): 2, ("f", "e"): 2}
    table = factor(facing, 6, 5)
    assert str(table["characters"]) == "abcdef"
    own = table["vectors"].astype(float)
    product = own * table["weights"] @ own.T
    smoothed = np.array([8, 8, 4, 4, 2, 2]) ** SMOOTHING
    for one, other in ((2, 3), (4, 5)):  # five of the six eigenvectors: half of the smallest ratio is lost
        assert product[one, other] == pytest.approx(-log(smoothed[other] / smoothed.sum()), abs=0.05)
    assert abs(product[2, 4]) < 0.05


def test_no_poem_of_the_data_is_counted_training_included(package):  # noqa: F811
    file = package / "dist" / "quantangshi" / "poet.tang.0.json"
    data = dataset.load("sample")
    known = [data.split(split)[0] for split in ("train", "validation", "test")]
    poems = json.loads(file.read_text())
    poems += [{"author": "a", "title": "t", "paragraphs": [e.input, e.reference]} for e in known]
    file.write_text(json.dumps(poems))
    counted, held = gather(package, [data])
    texts = {poem.text for poem in (*counted, *held)}
    assert len(texts) == 40  # the made-up poems
    assert texts.isdisjoint(e.input + e.reference for e in known)
