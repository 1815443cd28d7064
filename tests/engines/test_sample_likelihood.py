"""Samples' own likelihood against the sum of log-softmax, one text at a time; the likeliest is the one picked."""

import copy

import pandas as pd
import pytest
import torch
from peft import PeftModel

from tangeval import api
from tangeval.core.errors import TangevalError
from tangeval.engines.base import asked
from tangeval.models.tokens import encode_completion, encode_prompt
from tests.support.study import evaluate, write_study


@pytest.fixture(scope="module")
def made(tiny_model, tiny_run, tmp_path_factory):
    """A folder of five samples of each poem, some of which end by themselves, and its study resolved."""
    folder = tmp_path_factory.mktemp("made")
    decoding = {"temperature": [1.0], "max_length": 6, "no_repeat_ngram_size": 0}
    file = write_study(folder, tiny_model, tiny_run, samples=5, decoding=decoding, select=None)
    return folder / "results", evaluate(file, folder / "results")


def test_the_likeliest_sample_of_each_poem_is_picked(made, tiny_run, model, tokenizer):
    folder, resolved = made
    found, results = api.headroom(folder, split="test", checkpoint="all", likelihood=True)
    nats = pd.read_parquet(results.run.sample_likelihood)
    assert set(nats["checkpoint"]) == {"base", "checkpoint-10", "checkpoint-20"}
    adapted = PeftModel.from_pretrained(copy.deepcopy(model), tiny_run / "checkpoint-10").eval()
    models = {"base": model, "checkpoint-10": adapted}
    for row in nats[nats["checkpoint"].isin(models)].groupby("checkpoint").head(12).itertuples():
        question = asked(resolved, resolved.dataset.by_id[row.example_id])
        prompt, answer = encode_prompt(tokenizer, question), encode_completion(tokenizer, question, row.text)
        answer = answer[: len(answer) - (row.finish_reason == "length")]
        with torch.inference_mode():
            logits = models[row.checkpoint](torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 : -1]
        own = logits.float().log_softmax(-1)[range(len(answer)), answer]
        assert row.nats == pytest.approx(-float(own.sum()), rel=1e-4)
    rows = pd.concat(map(pd.read_parquet, sorted((folder / "generations").glob("*.parquet"))))
    rows = rows.merge(nats, on=["checkpoint", "example_id", "text", "finish_reason"])
    rows = (
        rows.sort_values("sample")
        .sort_values("nats", kind="stable")
        .drop_duplicates(["checkpoint", "example_id"])
    )
    scores = pd.read_parquet(folder / "scores.parquet")
    picked = scores.merge(rows[["checkpoint", "example_id", "sample"]]).groupby("checkpoint")["chrf"].mean()
    reranked = found.reranked.query("rerank == 'likelihood'").set_index("checkpoint")["chrf"]
    assert reranked.to_dict() == pytest.approx(picked.to_dict(), rel=1e-5)


def test_other_weights_than_those_that_wrote_the_texts_are_refused(made, monkeypatch):
    folder, _ = made
    changed = api.load_results(folder)
    said = changed.run.manifest
    said["checkpoints"][0]["fingerprint"] = "other"
    monkeypatch.setattr(type(changed.run), "manifest", said)
    with pytest.raises(TangevalError, match="base: its weights are not those that wrote the texts"):
        api.headroom(folder, split="test", checkpoint="base", likelihood=True)
