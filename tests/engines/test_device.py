"""Searches, and contrast with the base model, as the engine of this machine gives them."""

import pandas as pd
import pytest
from transformers import AutoModelForCausalLM

from tangeval.core.study import load_study
from tangeval.core.types import Load
from tangeval.decoding.batch import Workspace
from tangeval.decoding.contrast import Reader
from tangeval.decoding.decoder import decode
from tangeval.engines import make
from tangeval.engines.base import asked
from tangeval.generation import decode as generate
from tangeval.generation import estimate, pending
from tangeval.models import adapters, loading
from tangeval.models.tokens import decode_completion, encode_prompt
from tangeval.resolve import resolve
from tangeval.results.folder import RunFolder
from tangeval.results.plan import read_plan
from tests.models.test_adapters import write_adapter
from tests.support.plain_decoder import sequence_of
from tests.support.study import write_study
from tests.support.tiny import make_tiny_model

GAMMAS = [0.0, 0.6, 3.0]
GREEDY = {"temperature": 0, "max_length": 6, "no_repeat_ngram_size": 0, "contrast": GAMMAS}


def generated(folder, base, **changes):
    """The resolved study, and its texts by checkpoint and contrast."""
    study = load_study(write_study(folder, base, samples=1, decoding=GREEDY, select=None, **changes))
    resolved = resolve(study)
    generate(resolved, folder / "results")
    rows = pd.concat(map(pd.read_parquet, (folder / "results").glob("generations/*.parquet")))
    texts = {key: own["text"].tolist() for key, own in rows.groupby(["checkpoint", "contrast"])}
    return resolved, texts


@pytest.mark.parametrize(
    ("kind", "merge"), [("plain", False), ("plain", True), ("pissa", False), ("full", False)]
)
def test_a_checkpoint_is_set_against_the_base_as_it_was(tmp_path, tiny_model, kind, merge):
    """PiSSA's adapter changes the base's own weights: its base is no longer under it."""
    place = tmp_path / kind
    if kind == "full":
        make_tiny_model(place, seed=5)
    else:
        write_adapter(tiny_model, place, kind)
    resolved, texts = generated(tmp_path, tiny_model, checkpoints=[str(place)], load={"merge": merge})
    checkpoint, base = resolved.checkpoints[-1], loading.load_model(resolved.base, Load())
    tokenizer = loading.load_tokenizer(resolved.base)
    prompts = [encode_prompt(tokenizer, asked(resolved, example)) for example in resolved.examples("test")]
    other = Reader(AutoModelForCausalLM.from_pretrained(tiny_model).eval(), Workspace())
    with adapters.with_checkpoint(base, checkpoint, Load(merge=merge)) as model:
        for gamma in GAMMAS:
            every = [sequence_of(p, 0, 0, 1.0, 6, contrast=gamma) for p in range(len(prompts))]
            made = decode(model, prompts, every, eos=[3], other=other).tokens
            expected = [
                decode_completion(tokenizer, ids[:-1] if ids[-1] == 3 else ids, cut=ids[-1] != 3)
                for ids in made
            ]
            assert texts[checkpoint.name, gamma] == expected
    assert texts[checkpoint.name, 0.0] != texts[checkpoint.name, 3.0]


def test_the_base_itself_is_decoded_once_and_alone(tmp_path, tiny_model, monkeypatch):
    loads, load = [], loading.load_model
    monkeypatch.setattr(
        loading, "load_model", lambda *given, **more: loads.append(given) or load(*given, **more)
    )
    _, texts = generated(tmp_path, tiny_model)
    assert texts["base", 0.0] == texts["base", 0.6] == texts["base", 3.0]
    assert len(loads) == 1


def test_searches_are_planned_and_counted_by_their_beams(tmp_path, tiny_model):
    decoding = {"temperature": 0, "num_beams": [1, 3], "max_length": [4, 6], "no_repeat_ngram_size": 0}
    resolved = resolve(load_study(write_study(tmp_path, tiny_model, decoding=decoding)))
    ended: list[int] = []
    generate(resolved, tmp_path / "out", lambda name, count, text: ended.append(count))
    batches = read_plan(RunFolder(tmp_path / "out"))
    assert sum(ended) == sum(batch.sequences() for batch in batches) == 15 * (1 + 3 + 3)
    rows = pd.concat(map(pd.read_parquet, (tmp_path / "out").glob("generations/*.parquet")))
    texts = rows.groupby(["num_beams", "max_length", "example_id"])["text"]
    assert texts.size().eq(2).all()
    assert texts.nunique().eq(1).all()


def test_a_dry_run_says_how_many_sequences_run_two_models(tmp_path, tiny_model, tiny_run):
    study = load_study(write_study(tmp_path, tiny_model, tiny_run, samples=1, decoding=GREEDY))
    resolved = resolve(study)
    with make(resolved) as engine:
        batches = pending(resolved, tmp_path / "out", engine).waiting
        said = estimate(tmp_path / "out", engine, batches, resolved.base_fingerprint)
    assert (
        "; 60 sequences run the base model too, for contrast" in said
    )  # two checkpoints, two values, 15 poems
