"""The plan covers each output once, and a recorded plan is read by its keys."""

import json
import re
from collections import Counter
from itertools import product

import pytest

from tangeval.core.knobs import Setting
from tangeval.core.study import Study
from tangeval.generation import estimate_duration
from tangeval.resolve import resolve
from tangeval.results.folder import RunFolder
from tangeval.results.plan import make_plan, read_plan, write_plan

STUDY = {"name": "x", "checkpoints": [], "data": "sample", "splits": ["test"], "select": None}


@pytest.mark.parametrize("prefixes", [True, False])
def test_values_that_are_named_twice_are_planned_once(tmp_path, prefixes):
    grid = {"temperature": [0.7, 0.7], "max_length": [6, 18, 6]}
    resolved = resolve(Study.model_validate({**STUDY, "decoding": grid, "samples": 2}))
    batches = make_plan(resolved, RunFolder(tmp_path), {"base": "key"}, 16, prefixes=prefixes)
    planned = Counter(output for b in batches for output in product(b.settings, b.examples, b.samples))
    assert len(planned) == 2 * 15 * 2
    assert set(planned.values()) == {1}
    assert len({b.id for b in batches}) == len(batches)


def test_a_plan_is_read_by_the_names_of_its_axes(tmp_path):
    run = RunFolder(tmp_path)
    resolved = resolve(
        Study.model_validate({**STUDY, "decoding": {"temperature": [0.0, 0.7], "top_k": [0, 5]}})
    )
    batches = make_plan(resolved, run, {"base": "key"}, 16)
    write_plan(run, batches)
    assert read_plan(run) == batches
    content = json.loads(run.plan.read_text())
    content["axes"].reverse()
    content["grids"] = [[values[::-1] for values in grid] for grid in content["grids"]]
    run.plan.write_text(json.dumps(content))
    assert read_plan(run) == batches
    assert isinstance(read_plan(run)[0].settings[0], Setting)


@pytest.mark.parametrize(("sizes", "named"), [(3, False), (0, False), ([0, 2], True)])
def test_an_n_gram_size_that_is_the_whole_studys_is_in_no_plan(tmp_path, sizes, named):
    """As in folders of before it was an axis: it is in the cache key, and read from the study beside the plan."""
    run = RunFolder(tmp_path)
    decoding = {"temperature": [0.0, 0.7], "no_repeat_ngram_size": sizes}
    resolved = resolve(Study.model_validate({**STUDY, "decoding": decoding}))
    run.study_file.write_text(resolved.study.to_yaml(), "utf-8")
    batches = make_plan(resolved, run, {"base": "key"}, 16)
    write_plan(run, batches, resolved.study.decoding.wide("no_repeat_ngram_size"))
    assert read_plan(run) == batches
    assert ("no_repeat_ngram_size" in json.loads(run.plan.read_text())["axes"]) == named
    written = {f"no_repeat_ngram_size: {sizes}\n" in run.study_file.read_text("utf-8")}
    assert written == {not named}  # one value stays the number that it was


def test_processes_side_by_side_take_a_part_of_the_time(finished):
    run = RunFolder(finished[1])
    batches = read_plan(run)

    def rate(processes):
        told = estimate_duration(run, batches, processes)
        return int(re.search(r"at the ([\d,]+) sequences a second", told)[1].replace(",", ""))

    assert rate(3) == pytest.approx(3 * rate(1), rel=0.01)
    assert rate(100) == pytest.approx(len(batches) * rate(1), rel=0.01), "no more than there are batches"
