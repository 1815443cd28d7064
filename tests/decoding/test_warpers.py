"""The cuts: their order, exact ties, and that they keep what transformers keeps."""

from itertools import product

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    MinPLogitsWarper,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from tangeval.core.knobs import CUTS, KNOB, Setting
from tangeval.decoding import sampler
from tangeval.decoding.decoder import TokenSequence, decode
from tangeval.decoding.noise import gumbel
from tangeval.decoding.sampler import Kind, kind_of
from tangeval.decoding.warpers import WARPERS, Candidates, cut


def test_every_cut_has_a_warper_in_the_order_of_the_knobs():
    assert tuple(WARPERS) == CUTS


def test_sequences_are_drawn_by_what_their_setting_cuts():
    kinds = {
        Kind.GREEDY: [{"temperature": 0}, {"temperature": 0, "top_k": 3, "top_p": 0.5}],
        Kind.WHOLE: [{"temperature": 1.0}],
        Kind.CUT: [{"temperature": 1.0, "top_k": 3}, {"temperature": 1.0, "top_k": 3, "top_p": 0.5}],
        Kind.MASS: [{"temperature": 1.0, "top_p": 0.5}],
    }
    for kind, settings in kinds.items():
        assert {kind_of(Setting.of(**setting)) for setting in settings} == {kind}


@pytest.mark.parametrize(("tokens", "top_p"), [(4, 0.5), (8, 0.25), (8, 0.875), (2, 0.5)])
def test_where_the_mass_is_exactly_p_nothing_more_is_kept(tokens, top_p):
    """Equal logits and powers of 2: no rounding, so that < and ≤ can be told apart."""
    row = torch.zeros(1, tokens)
    ((_, left),) = cut(Candidates.whole(row, ["top_p"]), {"top_p": torch.tensor([top_p]).double()})
    assert int(left.kept) == tokens * top_p == TopPLogitsWarper(top_p)(None, row).isfinite().sum()


def plain(model, prompt, sequence):
    """What ``sequence`` writes, by whole forward passes and transformers' own warpers."""
    text, setting, own = [*prompt], sequence.setting, []
    for step in range(setting.max_length):
        with torch.inference_mode():
            scores = model(torch.tensor([text])).logits[:, -1]
        if setting.temperature:
            for warp in warpers_of(setting):
                scores = warp(None, scores)
            scores = scores + gumbel(torch.tensor([sequence.key]), step, torch.arange(scores.shape[1])[None])
        own.append(int(scores.argmax()))
        text.append(own[-1])
    return own


#: A cut's warper in transformers.
OWN = {"top_k": TopKLogitsWarper, "top_p": TopPLogitsWarper, "min_p": MinPLogitsWarper}


def warpers_of(setting):
    """The setting's warpers, in transformers' order."""
    on = [name for name in CUTS if getattr(setting, name) != KNOB[name].off]
    return [TemperatureLogitsWarper(setting.temperature), *(OWN[name](getattr(setting, name)) for name in on)]


@pytest.mark.parametrize("candidates", [sampler.CANDIDATES, (2, 20), (500,)])
def test_cuts_are_decoded_as_by_transformers_however_many_candidates_are_looked_at(candidates, monkeypatch):
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=500, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        initializer_range=0.3, pad_token_id=0,
    )  # fmt: skip
    model = AutoModelForCausalLM.from_config(config).eval()
    settings = [
        Setting.of(temperature=t, top_k=k, top_p=p, min_p=m, max_length=6)
        for t, k, p, m in product((0.0, 0.7, 1.5), (0, 40), (0.9, 1.0), (0.0, 0.02, 0.3, 1.0))
    ]
    sequences = [TokenSequence(0, setting, key) for setting in settings for key in range(3)]
    expected = [plain(model, [5, 6, 7], sequence) for sequence in sequences]
    written = {
        m: {tuple(e) for s, e in zip(sequences, expected, strict=True) if s.setting.min_p == m}
        for m in (0.0, 0.02, 0.3, 1.0)
    }
    assert len(set(map(frozenset, written.values()))) == 4, "min_p changes what is written"
    monkeypatch.setattr(sampler, "CANDIDATES", candidates)
    assert decode(model, [[5, 6, 7]], sequences, eos=[]).tokens == expected
