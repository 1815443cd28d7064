"""The model card: huggingface_hub reads from it what summary.csv says, and names in it are no markup."""

import pandas as pd
import pytest
from huggingface_hub import ModelCard
from markdown_it import MarkdownIt

from tangeval.analysis.verdict import verdict
from tangeval.core.errors import TangevalError
from tangeval.reporting.notebook import Results
from tangeval.reporting.sharing import write_card
from tangeval.results.files import read_json, write_json
from tests.support.folders import NAME, make_results


@pytest.fixture
def results(tmp_path):
    """A folder whose choice is an adapter, with a name that would like to be markup."""
    make_results(tmp_path)
    run = Results(tmp_path).run
    chosen = read_json(run.selection_file)
    chosen["checkpoint"]["checkpoint"] = NAME
    write_json(run.selection_file, chosen)
    return Results(tmp_path)


def test_the_hubs_own_reader_finds_the_chosen_settings_values_on_the_split_that_did_not_choose(results):
    card = ModelCard.load(write_card(results))
    chosen = results.selection
    own = pd.read_csv(results.folder / "summary.csv", dtype={"checkpoint": str})
    own = own[(own["checkpoint"] == chosen["checkpoint"]["checkpoint"]) & (own["split"] == "test")]
    for knob in ("temperature", "top_k", "top_p", "max_length"):
        own = own[own[knob] == chosen["setting"][knob]]
    (row,) = own.to_dict("records")
    found = {each.metric_type: each for each in card.data.eval_results}
    assert {"bleu", "form", "rhyme"} <= found.keys()
    for name, each in found.items():
        assert each.metric_value == pytest.approx(row[name], abs=1e-4)
        assert each.dataset_split == "test"
        low = row[f"{name}_low"]
        ends = each.metric_args.get("interval_95")
        assert ends == (None if pd.isna(low) else pytest.approx([low, row[f"{name}_high"]], abs=1e-4))
    assert card.data.library_name == "peft"
    assert "base_model" not in card.data.to_dict()
    assert "This split chose" in card.text.partition("### validation")[2]
    assert "This split chose" not in card.text.partition("### validation")[0]


def test_a_base_of_the_hub_is_named(results):
    manifest = read_json(results.run.manifest_file)
    manifest["base_model"]["name"] = "MediaTek-Research/Breeze-7B-Instruct-v0_1"
    write_json(results.run.manifest_file, manifest)
    assert ModelCard.load(write_card(results)).data.base_model == "MediaTek-Research/Breeze-7B-Instruct-v0_1"


def test_names_of_anybodys_making_are_no_markup(results):
    assert verdict(results.study, results.run)["claims"]  # which name them too
    text = write_card(results).read_text("utf-8")
    assert "\u202e" not in text
    html = [
        t.type for t in MarkdownIt("commonmark").parse(ModelCard(text).text) for t in (t, *(t.children or ()))
    ]
    assert not {"html_block", "html_inline", "image", "link_open"} & set(html)


def test_where_nothing_or_the_base_model_was_chosen_there_is_no_card(results):
    chosen = read_json(results.run.selection_file)
    write_json(results.run.selection_file, chosen | {"setting": None})
    with pytest.raises(TangevalError, match="no setting was chosen"):
        write_card(Results(results.folder))
    chosen["checkpoint"]["checkpoint"] = "base"
    write_json(results.run.selection_file, chosen)
    with pytest.raises(TangevalError, match=r"the base model was chosen.*include_base=false --out"):
        write_card(Results(results.folder))
