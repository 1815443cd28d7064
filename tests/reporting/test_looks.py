"""Pictures and page draw alike: one table of looks."""

import re
from pathlib import Path

from matplotlib.colors import to_hex

from tangeval.core.types import RANDOM, REFERENCE
from tangeval.reporting import looks, style
from tangeval.reporting.page import build

STATIC = Path(build.__file__).parent / "static"


def test_the_pages_light_theme_has_the_colours_of_the_pictures():
    found = dict(
        re.findall(r"--(base|early|middle|late): (#\w{6})", (STATIC / "report.css").read_text().split("}")[0])
    )
    assert found == looks.COLOURS
    assert [to_hex(style.shade(age)) for age in (0, 1)] == [looks.COLOURS["early"], looks.COLOURS["late"]]
    assert looks.COLOURS["base"] == style.BASE_COLOUR


def test_baselines_have_the_dashes_that_the_pages_captions_name():
    assert {name: dashes for name, (_, dashes) in style.BASELINES.items()} == looks.DASHES
    captions = [
        text
        for view in (STATIC / "views").glob("*.js")
        for text in re.findall(r"Dotted: (\w+); dashed: (\w+)", view.read_text())
    ]
    assert set(captions) == {(RANDOM, REFERENCE)}
    assert looks.DASHES == {RANDOM: "dotted", REFERENCE: "dashed"}
    assert "facts.dashes" in (STATIC / "charts.js").read_text()
