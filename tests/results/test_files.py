"""CSV that no spreadsheet takes for formulas, and that says the same when it is read again."""

import pandas as pd
import pytest

from tangeval.results.files import csv_text, read_csv, write_csv

FORMULAS = ['=HYPERLINK("http://x";"y")', "+1", "-1+2", "@SUM(A1)", "\t=1", "\r=1", "'=1", "''@x"]
PLAIN = ["checkpoint-10", "a'=b", "'quoted'", "a=b", "春", "NA", "null", "nan", "1e3", "007", "true"]


@pytest.mark.parametrize("name", [*FORMULAS, *PLAIN])
def test_a_name_is_no_formula_in_csv_and_the_same_name_when_read(tmp_path, name):
    frame = pd.DataFrame({"checkpoint": [name], "bleu": [-1.5], "note": pd.Categorical([name])})
    write_csv(tmp_path / "x.csv", frame)
    plain = pd.read_csv(tmp_path / "x.csv", dtype=str, keep_default_na=False)
    assert not set("=+-@\t\r") & {plain["checkpoint"][0][0], plain["note"][0][0]}
    assert plain["bleu"][0] == "-1.5"
    assert read_csv(tmp_path / "x.csv")["checkpoint"].tolist() == [name]
    assert name not in PLAIN or csv_text(frame) == frame.to_csv(index=False)
