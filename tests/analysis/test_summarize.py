"""The likelihood's curve: nats by the place of a character."""

import pandas as pd
import pytest

from tangeval.analysis import summarize
from tests.reporting.test_figures import likelihood


@pytest.mark.filterwarnings("error")  # pandas 4 makes no table of rows of several lengths
def test_the_curve_is_the_mean_of_the_examples_that_reach_so_far():
    frame = summarize.curve(likelihood())
    own = frame[(frame["checkpoint"] == "checkpoint-5") & (frame["group"] == "5")].set_index("position")
    assert own.index.tolist() == list(range(1, 31))
    assert own.loc[1, "poems"] == 10
    assert own.loc[30, "poems"] == 6
    assert (own["nll"] == own.index).all()
    assert (own["nll_low"] <= own["nll"]).all()
    assert (own["nll"] <= own["nll_high"]).all()
    # Three of four examples of 7 end after two lines.
    assert frame[frame["group"] == "7"]["position"].max() == 14


def test_likelihoods_without_characters_have_no_curve():
    assert not len(summarize.curve(likelihood().drop(columns="by_character")))
    assert not len(summarize.curve(pd.DataFrame()))


def test_no_interval_of_a_likelihood_reaches_below_nought():
    frame = pd.concat([likelihood().head(1)] * 3, ignore_index=True).assign(
        by_character=[[0.1], [5.0], [5.0]]
    )
    low, nll = summarize.curve(frame).loc[0, ["nll_low", "nll"]]
    assert 0 == low < nll
